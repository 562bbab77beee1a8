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


def test_without_an_earlier_model_an_update_is_a_full_fit(make_rows: MakeRows, data_of: DataOf) -> None:
    outcome = update(data_of(make_rows(400)), "ttft_ms", None, seed=0)
    assert (outcome.mode, outcome.reason, outcome.promoted) == ("fitted", "no earlier model", True)
