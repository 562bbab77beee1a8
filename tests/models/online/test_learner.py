"""When an online learner is due, what it keeps, and that its models know each kind of instance apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data.schema import TTFT_MS
from lodestar.features.definitions import FEATURE_NAMES, FEATURES
from lodestar.models.online.brain import Brain
from lodestar.models.online.finished import Finished
from lodestar.models.online.learner import Learner, train_models
from lodestar.models.online.learner_settings import LearnerSettings

PROMPT, UNCACHED, AHEAD = (
    FEATURE_NAMES.index(n) for n in ("prompt_tokens", "uncached_prompt_tokens", "prefill_tokens")
)


def finished(count: int, kinds: tuple[str, ...] = ("",), seed: int = 0, token_ms: float = 0.1) -> Finished:
    """Return requests whose TTFT is the tokens' time, three times as long on a 'slow' instance."""
    rng = np.random.default_rng(seed)
    features = np.full((count, len(FEATURES)), np.nan)
    features[:, PROMPT] = features[:, UNCACHED] = rng.uniform(500, 8000, count)
    features[:, AHEAD] = rng.uniform(0, 8000, count)
    kind = np.array([kinds[i % len(kinds)] for i in range(count)])
    slower = np.where(kind == "slow", 3.0, 1.0)
    ttft_ms = slower * token_ms * (features[:, UNCACHED] + features[:, AHEAD]) + 20.0
    at_s = np.arange(count, dtype=np.float64)
    return Finished(features, kind, ttft_ms, np.full(count, np.nan), np.zeros(count, np.bool_), at_s, at_s + 1.0)


def test_the_first_model_waits_for_every_kind() -> None:
    learner = Learner(LearnerSettings(first_fit_requests=100), kinds=("fast", "slow"))
    learner.add(finished(400, ("fast",)))
    assert learner.due(400.0) is None
    learner.add(finished(60, ("slow",)))
    assert learner.due(460.0)


def test_a_kind_that_never_answers_does_not_stop_learning_for_ever() -> None:
    learner = Learner(LearnerSettings(first_fit_requests=100), kinds=("fast", "slow"))
    learner.add(finished(1000, ("fast",)))
    assert learner.due(1000.0)


def test_models_come_often_at_first_and_then_by_number_or_time() -> None:
    learner = Learner(LearnerSettings(first_fit_requests=100, refit_requests=300, refit_s=60.0))
    due_at = []
    for second in range(1, 1201):
        learner.add(finished(1, seed=second))
        if learner.due(float(second)):
            due_at.append(second)
            learner.training_rows(float(second))
    assert due_at[:2] == [100, 160]
    assert set(np.diff(due_at[1:])) == {60}
    rare = Learner(LearnerSettings(first_fit_requests=100, refit_requests=300, refit_s=0.0))
    rare.add(finished(100))
    rare.training_rows(0.0)
    rare.add(finished(99))
    assert rare.due(1e9) is None
    rare.add(finished(1))
    assert rare.due(0.0)


@given(st.lists(st.integers(0, 40), max_size=12))
def test_the_pools_hold_no_row_twice_and_no_more_than_they_may(sizes: list[int]) -> None:
    learner, seen = Learner(LearnerSettings(recent_requests=50, diverse_requests=20)), 0
    for size in sizes:
        part = finished(size)
        part.decided_at_s[:] = np.arange(seen, seen + size)
        learner.add(part)
        seen += size
    kept = learner.training_rows(0.0).decided_at_s
    assert len(set(kept.tolist())) == len(kept) <= 70
    assert kept[-min(seen, 50) :].tolist() == list(range(max(seen - 50, 0), seen))
    assert len(kept) == min(seen, 70)


def test_a_change_of_the_errors_is_learned_at_once_and_forgets_only_when_a_refit_did_not_help() -> None:
    learner = Learner(LearnerSettings(first_fit_requests=50, refit_requests=10_000, refit_s=0.0))
    rng = np.random.default_rng(0)

    def judged(count: int, factor: float) -> None:
        rows = finished(count)
        learner.add(rows, rows.ttft_ms / factor * np.exp(rng.normal(0.0, 0.05, count)))

    judged(1000, 1.0)
    learner.training_rows(0.0)
    judged(400, 1.0)
    assert learner.due(1.0) is None
    judged(200, 2.0)
    assert learner.due(2.0) == "the errors have changed"
    assert len(learner.training_rows(2.0)) == 1600
    judged(300, 1.0)
    judged(200, 2.0)
    assert learner.due(3.0) == "the errors have changed"
    assert len(learner.training_rows(3.0)) < 500


def test_each_kind_has_a_model_of_its_own_and_knows_its_speed() -> None:
    rows = finished(600, ("fast", "slow"))
    models = train_models(rows)
    assert set(models) == {"ttft_ms", "ttft_ms@fast", "ttft_ms@slow"}
    brain = Brain.of_models(models, rows, 600.0, "v")
    its = brain.predict_features(rows.features[:4], ["fast", "slow", "slow", "new"])
    truth = np.array([1.0, 3.0, 3.0]) * 0.1 * (rows.features[:3, UNCACHED] + rows.features[:3, AHEAD]) + 20.0
    assert its.ttft_ms[:3] == pytest.approx(truth, rel=0.1)
    assert np.isfinite(its.ttft_ms[3])  # of a kind that nobody has seen: the model of all
    assert np.isnan(its.tpot_ms).all()
    fast_ms, slow_ms = brain.token_ms(["fast", "slow"])
    assert slow_ms / fast_ms == pytest.approx(3.0, rel=0.1)
    assert not its.outside.any()
    beyond = rows.features[:1].copy()
    beyond[0, AHEAD] = 1e6
    assert brain.predict_features(beyond, ["fast"]).outside.all()


def test_lower_bounds_are_learned_from_and_too_few_rows_give_no_model() -> None:
    assert train_models(finished(49)) == {}
    rows = finished(400)
    cut = rows.ttft_ms > np.median(rows.ttft_ms)
    bounded = Finished(
        rows.features, rows.kind, np.where(cut, rows.ttft_ms * 0.5, rows.ttft_ms), rows.tpot_ms, cut,
        rows.decided_at_s, rows.finished_at_s,
    )  # fmt: skip
    dropped = train_models(rows.only(~cut))[TTFT_MS].predict(rows.features)
    learned = train_models(bounded)[TTFT_MS].predict(rows.features)
    error = [np.abs(np.log(ms[cut] / rows.ttft_ms[cut])).mean() for ms in (learned, dropped)]
    assert error[0] < 0.5
    assert learned[cut].mean() > 0.8 * rows.ttft_ms[cut].mean()
