from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lodestar.models.candidate import full_fit
from lodestar.models.current import Trained
from lodestar.models.dataset import TrainingData
from lodestar.models.incremental import update
from lodestar.models.parameters import MAX_TREES, Parameters
from lodestar.models.rows import Rows
from lodestar.models.textmodel import parse_trees

SMALL = Parameters(rounds=20, min_data_in_leaf=20)
MakeRows, DataOf = Callable[..., Rows], Callable[[Rows], TrainingData]


def joined(*parts: Rows) -> Rows:
    """The parts one after the other, as one log."""
    n = sum(len(part) for part in parts)
    arrived_at_s = np.arange(n) * 0.25
    features = np.concatenate([part.features for part in parts])
    latency_ms = np.concatenate([part.latency_ms for part in parts])
    return Rows(np.arange(n), features, latency_ms, arrived_at_s, arrived_at_s + 2.0, n, {})


def first_fit(data: TrainingData, parameters: Parameters = SMALL) -> Trained:
    trained = full_fit(data, "ttft_ms", parameters, 0, None, "").trained
    assert trained is not None
    return trained


def test_an_update_keeps_the_old_trees_and_adds_its_own(make_rows: MakeRows, data_of: DataOf) -> None:
    old, new = make_rows(400), make_rows(300, seed=1, slower=1.5)
    current = first_fit(data_of(old))
    outcome = update(data_of(joined(old, new)), "ttft_ms", current, seed=0)
    assert (outcome.mode, outcome.promoted) == ("extended", True)
    assert outcome.trained is not None
    assert parse_trees(outcome.trained.model.booster)[:20] == parse_trees(current.model.booster)
    assert outcome.trained.model.trees == 40


def test_an_update_reads_the_new_rows_only(make_rows: MakeRows, data_of: DataOf) -> None:
    old, new = make_rows(400), make_rows(300, seed=1, slower=1.5)
    current = first_fit(data_of(old))
    other = make_rows(400, seed=9, slower=7.0)
    outcomes = [update(data_of(joined(before, new)), "ttft_ms", current, seed=0) for before in (old, other)]
    texts = [outcome.trained.model.text() for outcome in outcomes if outcome.trained]
    assert len(texts) == 2
    assert texts[0] == texts[1]


def test_nothing_new_is_said_and_nothing_is_done(make_rows: MakeRows, data_of: DataOf) -> None:
    data = data_of(make_rows(400))
    outcome = update(data, "ttft_ms", first_fit(data), seed=0)
    assert (outcome.mode, outcome.trained, outcome.promoted) == ("unchanged", None, False)
    assert outcome.reason == "nothing new since request 400: nothing done"


def test_too_few_new_rows_wait_for_more(make_rows: MakeRows, data_of: DataOf) -> None:
    old = make_rows(400)
    outcome = update(data_of(joined(old, make_rows(60, seed=1))), "ttft_ms", first_fit(data_of(old)), seed=0)
    assert outcome.mode == "unchanged"
    assert outcome.reason.startswith("60 new rows are too few")


def test_a_worse_model_is_refused_with_both_errors(make_rows: MakeRows, data_of: DataOf) -> None:
    old = make_rows(800)
    misleading = make_rows(210, seed=1, slower=20.0)  # learned from …
    usual_again = make_rows(90, seed=2)  # … and measured on these
    current = first_fit(data_of(old))
    outcome = update(data_of(joined(old, misleading, usual_again)), "ttft_ms", current, seed=0)
    assert outcome.verdict is not None
    assert not outcome.promoted
    assert outcome.verdict.rows == 90
    assert outcome.verdict.mae_ms is not None
    assert outcome.verdict.current_mae_ms is not None
    assert outcome.verdict.mae_ms > 5 * outcome.verdict.current_mae_ms


def test_beyond_the_tree_limit_the_full_window_is_fitted_anew(make_rows: MakeRows, data_of: DataOf) -> None:
    old, new = make_rows(400), make_rows(300, seed=1)
    current = first_fit(data_of(old), replace(SMALL, rounds=MAX_TREES))
    outcome = update(data_of(joined(old, new)), "ttft_ms", current, seed=0)
    assert outcome.mode == "fitted"
    assert outcome.reason == f"{MAX_TREES} trees and 20 more would exceed {MAX_TREES}"
    assert outcome.trained is not None
    assert outcome.trained.record["window"]["rows"] == 700


def test_a_dataset_that_begins_differently_is_fitted_anew(make_rows: MakeRows, data_of: DataOf) -> None:
    data = data_of(make_rows(400))
    current = first_fit(data)
    outcome = update(replace(data, request_ids=["other", *data.request_ids[1:]]), "ttft_ms", current, seed=0)
    assert outcome.mode == "fitted"
    assert "no longer begins with" in outcome.reason
    assert outcome.verdict is not None
    assert outcome.verdict.rows == 120
    assert outcome.verdict.current_mae_ms is not None
    assert "the current model may have seen some of them" in outcome.verdict.reason


def test_after_a_changed_history_a_worse_model_is_refused(make_rows: MakeRows, data_of: DataOf) -> None:
    current = first_fit(data_of(make_rows(800)))
    changed = data_of(joined(make_rows(210, seed=1, slower=20.0), make_rows(90, seed=2)))
    for outcome in (update(changed, "ttft_ms", current, 0), full_fit(changed, "ttft_ms", SMALL, 0, current, "")):
        assert not outcome.promoted
        assert outcome.verdict is not None
        assert outcome.verdict.rows == 90


def test_the_record_of_an_extension_describes_all_that_the_model_learned_from(
    make_rows: MakeRows, data_of: DataOf
) -> None:
    old, new, newest = make_rows(400), make_rows(300, seed=1), make_rows(300, seed=2)
    old.features[7, 0], old.features[8, 0], new.features[9, 0] = -5.0, 50.0, 99.0
    old.features[:, 3] = np.nan
    base = first_fit(data_of(old), replace(SMALL, window_requests=393))
    excluded = {"no decision": np.array([2, 450, 460, 990])}
    extended = update(data_of(replace(joined(old, new), excluded=excluded)), "ttft_ms", base, 0).trained
    assert extended is not None
    ranges, window = extended.record["feature_ranges"], extended.record["window"]
    names = list(ranges)
    assert ranges[names[0]] == [min(joined(old, new).features[7:, 0]), 99.0]
    assert ranges[names[0]][0] == -5.0
    assert ranges[names[3]] == [new.features[:, 3].min(), new.features[:, 3].max()]
    assert (window["rows"], window["first_request"], window["last_request"]) == (693, 7, 699)
    assert (window["from_s"], window["to_s"]) == (7 * 0.25, 699 * 0.25)
    assert window["excluded"] == {"no decision": 2}
    parts = [(part["rows"], part["first_request"], part["last_request"]) for part in window["parts"]]
    assert parts == [(393, 7, 399), (300, 400, 699)]
    again = update(data_of(joined(old, new, newest)), "ttft_ms", extended, 0).trained
    assert again is not None
    assert [part["rows"] for part in again.record["window"]["parts"]] == [393, 300, 300]


def test_what_a_full_fit_excludes_is_counted_within_its_window(make_rows: MakeRows, data_of: DataOf) -> None:
    rows = replace(make_rows(400), excluded={"no decision": np.array([3, 4, 390])})
    record = first_fit(data_of(rows), replace(SMALL, window_requests=100)).record
    assert record["window"]["excluded"] == {"no decision": 1}


def test_without_an_earlier_model_an_update_is_a_full_fit(make_rows: MakeRows, data_of: DataOf) -> None:
    outcome = update(data_of(make_rows(400)), "ttft_ms", None, seed=0)
    assert (outcome.mode, outcome.reason, outcome.promoted) == ("fitted", "no earlier model", True)
