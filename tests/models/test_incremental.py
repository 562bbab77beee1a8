from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.workspace import Workspace
from lodestar.models.candidate import full_fit
from lodestar.models.dataset import TrainingData
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import MAX_TREES, Parameters
from lodestar.models.refresh.batches import by_requests
from lodestar.models.refresh.begin import begun, with_champion
from lodestar.models.refresh.carry import carried
from lodestar.models.refresh.chain import Chain, State, load_state, save_state
from lodestar.models.refresh.choice import REMEASURE_AFTER, Trial, choose
from lodestar.models.refresh.due import due
from lodestar.models.refresh.leaf_refit import refit_leaves
from lodestar.models.refresh.score import scored
from lodestar.models.refresh.strategies import STRATEGIES, refreshed, require_strategy
from lodestar.models.refresh.update import Options, Step, advance
from lodestar.models.registry.current import Trained
from lodestar.models.rows import Rows
from lodestar.models.textmodel import parse_trees
from lodestar.models.uncertainty.calibrate import calibrate, settled
from lodestar.models.uncertainty.conformal import Conformal

SMALL = Parameters(rounds=20, min_data_in_leaf=20)
CONTINUE, WINDOW, REFIT, AUTO = (Options(name, 250, 0) for name in ("continue", "window", "refit", "auto"))
MakeRows, DataOf = Callable[..., Rows], Callable[[Rows], TrainingData]


def after(rows: Rows, before: int) -> Rows:
    """The rows as they come after so many others."""
    later_s = before * 0.25
    return replace(
        rows,
        request_index=rows.request_index + before,
        arrived_at_s=rows.arrived_at_s + later_s,
        finished_at_s=rows.finished_at_s + later_s,
        requests=rows.requests + before,
    )


@pytest.fixture(name="chain", scope="module")
def _chain(make_rows: MakeRows) -> Chain:
    """A model of 400 rows that is in use."""
    rows = make_rows(400)
    data = TrainingData("made", "f" * 64, [str(i) for i in range(400)], {"ttft_ms": rows}, {}, {})
    trained = full_fit(data, "ttft_ms", SMALL, 0, None, "").trained
    assert trained is not None
    return begun(trained, rows, is_champion=True)


def scaled_by_two(model: LatencyModel) -> LatencyModel:
    twice = {term: 2.0 * ms for term, ms in model.baseline.coefficients_ms.items()}
    return replace(
        model, baseline=replace(model.baseline, coefficients_ms=twice, floor_ms=2.0 * model.baseline.floor_ms)
    )


def step_of(chain: Chain, new: Rows, options: Options, champion: Trained | None = None) -> Step:
    data = TrainingData("made", "f" * 64, [], {"ttft_ms": new}, {}, {})
    return advance(data, new, chain, champion or chain.trained, options)


def test_continuing_keeps_the_old_trees_and_adds_its_own(make_rows: MakeRows, chain: Chain) -> None:
    step = step_of(chain, after(make_rows(300, seed=1, slower=1.5), 400), CONTINUE)
    model = step.chain.trained.model
    assert (step.outcome.mode, step.outcome.promoted, model.trees) == ("extended", True, 40)
    assert parse_trees(model.booster)[:20] == parse_trees(chain.trained.model.booster)


def test_a_leaf_refit_keeps_every_split_and_every_quantile_head(make_rows: MakeRows, chain: Chain) -> None:
    old = chain.trained.model
    step = step_of(chain, after(make_rows(300, seed=1, slower=1.5), 400), REFIT)
    model = step.chain.trained.model
    assert (step.outcome.mode, model.trees) == ("refitted", 20)
    for before, now in zip(parse_trees(old.booster), parse_trees(model.booster), strict=True):
        assert np.array_equal(before.feature, now.feature)
        assert np.array_equal(before.threshold, now.threshold)
    assert model.text() != old.text()
    assert {name: text for name, text in model.texts().items() if name} == {
        name: text for name, text in old.texts().items() if name
    }


def test_a_leaf_refit_to_the_same_law_does_not_ruin_the_model(make_rows: MakeRows, chain: Chain) -> None:
    fresh, unseen = make_rows(2000, seed=5), make_rows(500, seed=6)
    errors = [
        np.abs(np.log(model.predict(unseen.features) / unseen.latency_ms)).mean()
        for model in (chain.trained.model, refit_leaves(chain.trained.model, fresh, SMALL, 0))
    ]
    assert errors[1] < 1.02 * errors[0]


def test_a_window_begins_the_record_anew(make_rows: MakeRows, chain: Chain) -> None:
    new = after(make_rows(300, seed=1, slower=1.5), 400)
    records = [step_of(chain, new, options).chain.trained.record for options in (CONTINUE, WINDOW)]
    assert [[part["rows"] for part in record["window"]["parts"]] for record in records] == [[400, 300], [700]]
    assert [record["requests_seen"] for record in records] == [700, 700]


def test_few_rows_are_scored_and_calibrated_but_not_learned_from(make_rows: MakeRows, chain: Chain) -> None:
    step = step_of(chain, after(make_rows(60, seed=1), 400), CONTINUE)
    assert (step.outcome.mode, step.outcome.trained) == ("scored", None)
    assert step.outcome.reason.startswith("60 new rows are too few")
    assert step.losses.challenger.rows == 60
    assert step.chain.trained.model.text() == chain.trained.model.text()
    assert step.chain.trained.model.conformal.to_dict() != chain.trained.model.conformal.to_dict()


def test_rows_that_came_in_parts_are_learned_from_together(make_rows: MakeRows, chain: Chain) -> None:
    new = after(make_rows(300, seed=1, slower=1.2), 400)
    for part in (new.only(new.request_index < 550), new.only(new.request_index >= 550)):
        step = step_of(chain, part, CONTINUE)
        chain = step.chain
    assert step.outcome.mode == "extended"
    assert step.outcome.trained is not None
    assert step.outcome.trained.record["window"]["parts"][-1]["rows"] == 300
    assert not len(step.chain.recent.pending)


def test_beyond_the_tree_limit_the_window_is_fitted_anew(make_rows: MakeRows, chain: Chain) -> None:
    wide = replace(SMALL, update_rounds=MAX_TREES)
    record = chain.trained.record | {"parameters": wide.to_dict()}
    chain = replace(chain, trained=replace(chain.trained, record=record))
    step = step_of(chain, after(make_rows(300, seed=1), 400), CONTINUE)
    assert step.outcome.mode == "windowed"
    assert f"20 trees and {MAX_TREES} more would exceed {MAX_TREES}" in step.outcome.reason


def test_every_strategy_predicts_the_new_rows_better_after_a_change(make_rows: MakeRows, chain: Chain) -> None:
    new, later = after(make_rows(300, seed=1, slower=2.0), 400), make_rows(300, seed=2, slower=2.0)
    window = chain.recent.rows.last(100)
    window = replace(
        new,
        **{
            name: np.concatenate([getattr(window, name), getattr(new, name)])
            for name in ("request_index", "features", "latency_ms", "censored", "propensity")
        },
        arrived_at_s=np.arange(400.0),
        finished_at_s=np.arange(400.0),
    )
    old = chain.trained.model
    stale_ms = np.abs(old.predict(later.features) - later.latency_ms).mean()
    for strategy in STRATEGIES:
        model = refreshed(strategy, old, window, new, SMALL, 0)
        assert np.abs(model.predict(later.features) - later.latency_ms).mean() < 0.6 * stale_ms


def test_a_choice_is_measured_once_and_remembered_for_a_while(make_rows: MakeRows, chain: Chain) -> None:
    measured = []
    for update in range(REMEASURE_AFTER + 1):
        step = step_of(chain, after(make_rows(260, seed=update), 400 + 260 * update), AUTO)
        chain = step.chain
        assert chain.choice is not None
        measured.append(chain.choice.update)
    assert measured == [0] * REMEASURE_AFTER + [REMEASURE_AFTER]
    assert chain.choice is not None
    assert set(chain.choice.measured) == set(STRATEGIES)


def test_of_strategies_that_are_as_good_the_cheapest_is_chosen(make_rows: MakeRows, chain: Chain) -> None:
    newest, good = make_rows(200, seed=3), chain.trained.model
    bad = replace(good, mean_ratio=2.0 * good.mean_ratio)
    mae_ms = {
        name: float(np.abs(model.predict(newest.features) - newest.latency_ms).mean())
        for name, model in (("good", good), ("bad", bad))
    }
    trials = [
        Trial("window", good, 9.0, mae_ms["good"]),
        Trial("continue", good, 2.0, mae_ms["good"]),
        Trial("refit", bad, 1.0, mae_ms["bad"]),
    ]
    assert choose(trials, newest, 0).strategy == "continue"
    assert choose([trials[0], trials[2]], newest, 0).strategy == "window"


def test_a_drift_makes_an_update_due_before_its_time(make_rows: MakeRows, chain: Chain) -> None:
    patient = replace(CONTINUE, every=5000)
    steady = step_of(chain, after(make_rows(400, seed=1), 400), patient)
    assert steady.outcome.mode == "scored"
    step = step_of(steady.chain, after(make_rows(200, seed=2, slower=2.0), 800), patient)
    assert step.outcome.mode == "windowed"
    assert "errors drifted" in step.outcome.reason
    assert step.chain.listens_from >= 700
    calm = step_of(step.chain, after(make_rows(200, seed=3, slower=2.0), 1000), patient)
    assert calm.outcome.mode == "scored"


def test_errors_that_shrink_are_no_drift(make_rows: MakeRows, chain: Chain) -> None:
    off = scored(chain, after(make_rows(400, seed=1, slower=2.0), 400))
    off = replace(off, recent=off.recent.all_learned())
    assert not due(scored(off, after(make_rows(200, seed=2), 800)).recent, 5000, 400).drifted


def test_a_request_decided_before_the_newest_model_was_known_is_predicted_by_the_one_before(
    make_rows: MakeRows, chain: Chain
) -> None:
    new = after(make_rows(100, seed=1), 400)
    before = replace(chain.trained.model, mean_ratio=7.0)
    known_from_s = float(new.arrived_at_s[40])
    older = replace(chain.trained.model, mean_ratio=5.0)
    models = ((-np.inf, older), (float(new.arrived_at_s[10]), before))
    said = scored(replace(chain, before=models, known_from_s=known_from_s), new).recent.last(100).challenger_ms
    assert np.array_equal(said[:10], older.predict(new.features[:10]))
    assert np.array_equal(said[10:40], before.predict(new.features[10:40]))
    assert np.array_equal(said[40:], chain.trained.model.predict(new.features[40:]))


def late_labels(make_rows: MakeRows, n: int = 1200) -> Rows:
    """Rows four a second that take ever longer, each known 60 s after its arrival, so that 240 are in flight."""
    rows = after(make_rows(n, seed=7), 400)
    slower = np.exp(np.linspace(0.0, 1.5, n))
    return replace(
        rows,
        latency_ms=rows.latency_ms * slower,
        arrived_at_s=rows.arrived_at_s + 2.0,  # when all that the chain has learned from was known
        finished_at_s=rows.arrived_at_s + 62.0,
    )


def stated_in_batches(chain: Chain, rows: Rows, batch: int) -> tuple[np.ndarray, Chain]:
    stated = []
    for part in by_requests(rows, batch):
        chain = scored(chain, part)
        stated.append(chain.recent.last(len(part)).quantiles_ms)
    return np.concatenate(stated), chain


@pytest.mark.parametrize("batch", [10, 60, 240])
def test_what_is_stated_does_not_depend_on_how_rows_are_cut_into_batches(
    make_rows: MakeRows, chain: Chain, batch: int
) -> None:
    rows, learned = late_labels(make_rows), chain.trained.model.conformal.rows[-1]
    at_once, _ = calibrate(chain.trained.model, rows)
    cut, later = stated_in_batches(chain, rows, batch)
    np.testing.assert_allclose(cut, at_once, rtol=1e-9)
    assert len(later.in_flight) == (rows.finished_at_s > rows.arrived_at_s[-1]).sum() == 240
    assert later.trained.model.conformal.rows[-1] == min(350, learned + 1200 - 240)


def test_outcomes_after_an_arrival_change_nothing_that_was_stated_then(make_rows: MakeRows, chain: Chain) -> None:
    rows = late_labels(make_rows)
    known = rows.finished_at_s <= rows.arrived_at_s[900]
    other = replace(rows, latency_ms=np.where(known, rows.latency_ms, 9e9))
    one, another = (stated_in_batches(chain, of, 60)[0] for of in (rows, other))
    np.testing.assert_array_equal(one[:901], another[:901])
    assert not np.array_equal(one, another)


def test_rows_that_an_older_model_stated_are_learned_once_they_finish(make_rows: MakeRows, chain: Chain) -> None:
    rows = late_labels(make_rows, 600)
    empty = replace(chain.trained.model, conformal=Conformal.fresh(window_rows=1000))
    trained = replace(chain.trained, model=empty)
    waiting = replace(chain, trained=trained, known_from_s=float(rows.arrived_at_s[300]))
    stated, later = stated_in_batches(waiting, rows, 60)
    twin = chain.before[0][1]
    np.testing.assert_allclose(stated[:300], twin.predict_quantiles(rows.features[:300]))
    assert later.trained.model.conformal.rows[-1] == 600 - 240
    whole, nothing = settled(later.trained.model, later.in_flight, np.inf)
    assert (whole.conformal.rows[-1], len(nothing)) == (600, 0)
    learned = np.log(rows.latency_ms[:, None]) - whole.raw_log_quantiles(rows.features)
    np.testing.assert_allclose(whole.conformal.scores[-1, :600], learned, atol=1e-6)


def test_a_miss_stays_a_miss_when_heads_of_another_scale_learn_from_it(make_rows: MakeRows, chain: Chain) -> None:
    _, later = stated_in_batches(chain, late_labels(make_rows), 240)
    model, scaled = later.trained.model, scaled_by_two(later.trained.model)
    scaled = replace(scaled, conformal=carried(model, scaled, later.recent.rows))
    one, another = (settled(of, later.in_flight, np.inf)[0].conformal for of in (model, scaled))
    np.testing.assert_allclose(one.miscount, another.miscount, atol=1e-9)
    np.testing.assert_allclose(one.scores, another.scores + np.log(2.0), atol=2e-6)


def test_a_refit_leaves_nothing_in_flight_and_reports_what_was_stated(make_rows: MakeRows, chain: Chain) -> None:
    rows = late_labels(make_rows, 300)
    rows = replace(rows, finished_at_s=np.minimum(rows.finished_at_s, rows.arrived_at_s + 5.0))
    stated = scored(chain, rows).recent.last(len(rows))
    step = step_of(chain, rows, WINDOW)
    assert (step.outcome.mode, len(step.chain.in_flight)) == ("windowed", 0)
    assert step.outcome.metrics is not None
    held_out = step.outcome.metrics["rows_held_out"]
    covered = rows.latency_ms[-held_out:] <= stated.quantiles_ms[-held_out:, 1]
    assert step.outcome.metrics["quantiles"]["p90"]["coverage"] == covered.mean()


def test_what_is_in_flight_is_remembered(workspace: Workspace, make_rows: MakeRows, chain: Chain) -> None:
    rows = late_labels(make_rows, 600)
    first, rest = rows.only(rows.request_index < 700), rows.only(rows.request_index >= 700)
    _, here = stated_in_batches(chain, first, 100)
    save_state(workspace, "made", State({}, (), {"ttft_ms": here}))
    state = load_state(workspace, "made")
    assert state is not None
    np.testing.assert_array_equal(
        stated_in_batches(state.chains["ttft_ms"], rest, 100)[0], stated_in_batches(here, rest, 100)[0]
    )


def test_rows_that_were_cut_off_do_not_shift_where_a_drift_began(make_rows: MakeRows, chain: Chain) -> None:
    first = scored(chain, after(make_rows(400, seed=1), 400))
    first = replace(first, recent=first.recent.all_learned())
    slow = after(make_rows(200, seed=2, slower=2.0), 800)
    plain = due(scored(first, slow).recent, 5000, 400).drifted
    both = after(make_rows(400, seed=3), 800)
    censored, of = np.arange(400) % 2 == 1, np.arange(400) // 2
    latency_ms = np.where(censored, 1.0, slow.latency_ms[of])
    both = replace(both, features=slow.features[of], latency_ms=latency_ms, censored=censored)
    drifted = due(scored(first, both).recent, 5000, 400).drifted
    assert 100 < plain < 250
    assert abs(drifted - (plain + min(plain, 200))) <= 1  # two rows for each of the new ones


def test_models_are_kept_until_no_later_request_can_have_been_decided_by_them(
    make_rows: MakeRows, chain: Chain
) -> None:
    first, second = (after(make_rows(300, seed=k), 100 + 300 * k) for k in (1, 2))
    slowest = first.request_index == 500
    first = replace(first, finished_at_s=np.where(slowest, first.arrived_at_s + 500.0, first.finished_at_s))
    one = step_of(chain, first, REFIT).chain
    two = step_of(one, second, REFIT).chain
    assert [model.text() for _, model in one.before] == [chain.trained.model.text()]
    assert [from_s for from_s, _ in two.before] == [chain.known_from_s, one.known_from_s]
    said = scored(two, after(make_rows(50, seed=3), 1000)).recent.last(50)
    np.testing.assert_array_equal(said.challenger_ms, chain.trained.model.predict(said.rows.features))


def test_after_a_refusal_the_newest_model_goes_on_learning(make_rows: MakeRows, chain: Chain) -> None:
    champion = chain.trained
    misleading, usual_again = make_rows(210, seed=1, slower=20.0), after(make_rows(90, seed=2), 210)
    columns = ("request_index", "features", "latency_ms", "censored", "propensity", "arrived_at_s", "finished_at_s")
    new = replace(
        usual_again,
        **{name: np.concatenate([getattr(misleading, name), getattr(usual_again, name)]) for name in columns},
    )
    refused = step_of(chain, after(new, 400), CONTINUE, champion)
    assert not refused.outcome.promoted
    assert refused.outcome.verdict is not None
    assert "champion" in refused.outcome.verdict.reason
    assert refused.chain.trained.model.trees == 40
    assert not refused.chain.is_champion
    again = step_of(refused.chain, after(make_rows(300, seed=3), 700), CONTINUE, champion)
    assert again.chain.trained.model.trees == 60
    assert again.outcome.verdict is not None
    assert again.outcome.verdict.rows == 90 + 300  # all that a model of its own has predicted


def test_the_gate_judges_rows_that_the_challenger_had_not_seen(make_rows: MakeRows, chain: Chain) -> None:
    new = after(make_rows(300, seed=1), 400)
    step = step_of(chain, new, CONTINUE)
    assert step.outcome.verdict is not None
    assert step.outcome.trained is not None
    assert step.outcome.verdict.rows == 90
    assert step.outcome.verdict.mae_ms is not None
    twin, newest = step.outcome.trained.held_out, new.newer_than(610)
    assert step.outcome.verdict.mae_ms["challenger"] == pytest.approx(
        np.abs(twin.predict(newest.features) - newest.latency_ms).mean()
    )


def test_beside_another_champion_the_chain_goes_on_or_begins_anew(make_rows: MakeRows, chain: Chain) -> None:
    grown = step_of(chain, after(make_rows(300, seed=1), 400), CONTINUE).chain
    rolled_back = with_champion(grown, chain.trained)
    assert rolled_back is not None
    assert not rolled_back.is_champion
    newer = Trained(chain.trained.model, chain.trained.held_out, chain.trained.record | {"requests_seen": 900})
    assert with_champion(grown, newer) is None
    itself = with_champion(grown, grown.trained)
    assert itself is not None
    assert itself.is_champion


def test_what_the_window_leaves_out_is_counted(make_rows: MakeRows, chain: Chain) -> None:
    new = replace(after(make_rows(300, seed=1), 400), excluded={"no decision": np.array([450, 460, 990])})
    outcome = step_of(chain, new, CONTINUE).outcome
    assert outcome.trained is not None
    assert outcome.trained.record["window"]["excluded"] == {"no decision": 2}


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(ConfigError, match="strategy 'contnue' is not known"):
        require_strategy("contnue")


def test_the_correction_of_the_quantiles_is_carried_over_to_heads_of_another_scale(
    make_rows: MakeRows, chain: Chain
) -> None:
    rows = after(make_rows(300, seed=1), 400)
    model = scored(chain, rows).trained.model
    scaled = scaled_by_two(model)
    same = replace(scaled, conformal=carried(model, scaled, rows))
    assert same.predict_quantiles(rows.features) == pytest.approx(model.predict_quantiles(rows.features))
