from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.replay.estimators import ESTIMAND, OneStepInput, estimators
from lodestar.pipeline.replay.estimators.dm import dm
from lodestar.pipeline.replay.estimators.dr import dr
from lodestar.pipeline.replay.estimators.snips import snips

Floats = NDArray[np.float64]


def three_decisions() -> OneStepInput:
    """Small enough to work by hand; the third request had one candidate only."""
    return OneStepInput(
        cost_ms=np.array([100.0, 300.0, 200.0]),
        chosen=np.array([0, 1, 0]),
        propensity=np.array([0.5, 0.25, 1.0]),
        target_probability=np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]),
        predicted_ms=np.array([[110.0, 210.0], [120.0, 280.0], [190.0, np.nan]]),
    )


def probabilities(preference: Floats, temperature: float) -> Floats:
    raised = np.exp(preference / temperature)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def world(seed: int, n: int = 800, m: int = 5) -> tuple[OneStepInput, float]:
    """A log whose true one-step value is known, with costs that drift together like a queue's."""
    random = np.random.default_rng(seed)
    load = np.repeat(random.gamma(2.0, 1.0, n // 20), 20)[:, None]
    expected_ms = 100 * (1 + load * np.linspace(0.5, 1.5, m))
    behaviour = probabilities(random.normal(size=(n, m)), 1.0)
    target = probabilities(-expected_ms, 60.0)
    chosen = (random.random((n, 1)) > behaviour.cumsum(axis=1)[:, :-1]).sum(axis=1)
    rows = np.arange(n)
    cost_ms = expected_ms[rows, chosen] + random.normal(0, 20, n)
    wrong_model = expected_ms * 1.2 - 30
    log = OneStepInput(cost_ms, chosen, behaviour[rows, chosen], target, wrong_model)
    return log, float(np.sum(target * expected_ms, axis=1).mean())


def population_value() -> float:
    return float(np.mean([world(seed)[1] for seed in range(10_000, 10_400)]))


def test_values_by_hand() -> None:
    rows = three_decisions()  # weights 2, 2, 1
    assert dm(rows, "p", 1).value_ms == pytest.approx((110 + 200 + 190) / 3)
    assert snips(rows, "p", 1).value_ms == pytest.approx((2 * 100 + 2 * 300 + 200) / 5)
    assert dr(rows, "p", 1).value_ms == pytest.approx((110 + 200 + 190 + 2 * -10 + 2 * 20 + 1 * 10) / 3)


def test_diagnostics_by_hand() -> None:
    found = snips(three_decisions(), "least-latency", 1)
    assert (found.ess, found.mean_weight, found.max_weight) == (pytest.approx(25 / 9), pytest.approx(5 / 3), 2.0)
    assert found.to_dict()["estimand"] == ESTIMAND == "one-step, logged states"


def test_standard_errors_by_hand() -> None:
    rows = three_decisions()
    rows_of_dr = np.array([110 - 20, 200 + 40, 190 + 10])
    assert dr(rows, "p", 1).se_ms == pytest.approx(rows_of_dr.std(ddof=1) / np.sqrt(3))
    influence = np.array([2 * (100 - 200), 2 * (300 - 200), 0.0]) / (5 / 3)
    assert snips(rows, "p", 1).se_ms == pytest.approx(influence.std(ddof=1) / np.sqrt(3))


@pytest.mark.parametrize("name", ["snips", "dr"])
def test_intervals_cover_the_known_truth(name: str) -> None:
    truth = population_value()
    found = [estimators()[name](world(seed, n=2000)[0], "p", 40) for seed in range(250)]
    covered = np.mean([abs(e.value_ms - truth) <= 1.96 * e.se_ms for e in found])
    assert 0.90 <= covered <= 0.99
    assert np.mean([e.value_ms for e in found]) == pytest.approx(truth, rel=0.01)


def test_requests_taken_as_independent_cover_too_little() -> None:
    truth = population_value()
    found = [dr(world(seed)[0], "p", 1) for seed in range(250)]
    assert np.mean([abs(e.value_ms - truth) <= 1.96 * e.se_ms for e in found]) < 0.7


def test_dm_is_as_wrong_as_its_model_and_dr_is_not() -> None:
    pairs = [world(seed) for seed in range(100)]
    error_of_dm = np.mean([dm(rows, "p", 40).value_ms - truth for rows, truth in pairs])
    error_of_dr = np.mean([dr(rows, "p", 40).value_ms - truth for rows, truth in pairs])
    assert error_of_dm > 5
    assert abs(error_of_dr) < 1


def test_no_weight_is_clipped() -> None:
    rows = replace(three_decisions(), propensity=np.array([1e-6, 0.25, 1.0]))
    assert snips(rows, "p", 1).max_weight == 1e6


@given(st.floats(0.05, 1.0), st.integers(0, 50))
def test_snips_does_not_change_with_the_scale_of_the_weights(scale: float, seed: int) -> None:
    rows, _ = world(seed, n=100)
    scaled = replace(rows, propensity=rows.propensity * scale)
    before, after = snips(rows, "p", 10), snips(scaled, "p", 10)
    assert after.value_ms == pytest.approx(before.value_ms)
    assert after.se_ms == pytest.approx(before.se_ms)
    assert after.ess == pytest.approx(before.ess)


@given(st.integers(0, 50))
def test_dr_equals_dm_where_the_model_is_exact(seed: int) -> None:
    rows, _ = world(seed, n=100)
    exact = np.take_along_axis(rows.predicted_ms, rows.chosen[:, None], axis=1)[:, 0]
    rows = replace(rows, cost_ms=exact)
    assert dr(rows, "p", 10).value_ms == pytest.approx(dm(rows, "p", 10).value_ms)


def test_the_logging_policy_itself_is_worth_the_plain_mean() -> None:
    rows, _ = world(7)
    behaviour = np.where(np.arange(5) == rows.chosen[:, None], rows.propensity[:, None], 0.0)
    behaviour[np.arange(800), (rows.chosen + 1) % 5] = 1 - rows.propensity
    found = snips(replace(rows, target_probability=behaviour), "logging", 40)
    assert found.value_ms == pytest.approx(rows.cost_ms.mean())
    assert (found.ess, found.mean_weight, found.max_weight) == (pytest.approx(800), pytest.approx(1), pytest.approx(1))


def test_padding_changes_nothing() -> None:
    rows, _ = world(3)
    padded = replace(
        rows,
        target_probability=np.pad(rows.target_probability, ((0, 0), (0, 3))),
        predicted_ms=np.pad(rows.predicted_ms, ((0, 0), (0, 3)), constant_values=np.nan),
    )
    for name, estimator in estimators().items():
        found, expected = estimator(padded, "p", 40), estimator(rows, "p", 40)
        assert found.value_ms == pytest.approx(expected.value_ms), name
        assert found.se_ms == pytest.approx(expected.se_ms), name


def test_snips_needs_no_model() -> None:
    rows, _ = world(3)
    blind = replace(rows, predicted_ms=np.full_like(rows.predicted_ms, np.nan))
    assert snips(blind, "p", 40) == snips(rows, "p", 40)
    with pytest.raises(DataError, match="predicted_ms is not finite"):
        dm(blind, "p", 40)
    with pytest.raises(DataError, match="predicted_ms is not finite"):
        dr(blind, "p", 40)


def test_a_policy_that_shares_no_decision_is_refused_by_snips_and_valued_by_dm() -> None:
    rows = replace(
        three_decisions(),
        chosen=np.array([1, 1, 1]),
        target_probability=np.array([[1.0, 0.0]] * 3),
    )
    with pytest.raises(DataError, match="'affinity' shares none of the 3 logged decisions"):
        snips(rows, "affinity", 1)
    assert dm(rows, "affinity", 1).ess == 0.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: replace(rows, propensity=np.array([0.5, 0.0, 1.0])), "propensity must lie above 0"),
        (lambda rows: replace(rows, propensity=np.array([0.5, np.nan, 1.0])), "propensity must lie above 0"),
        (lambda rows: replace(rows, chosen=np.array([0, -1, 0])), "chosen must be a column"),
        (lambda rows: replace(rows, chosen=np.array([0, 1])), r"chosen has shape \(2,\)"),
        (lambda rows: replace(rows, cost_ms=np.array([1.0, np.nan, 1.0])), "cost_ms is not finite"),
        (lambda rows: replace(rows, target_probability=rows.target_probability / 2), "sums to 0.5; expected 1"),
        (lambda rows: replace(rows, target_probability=-rows.target_probability), "must be 0 or more"),
        (lambda rows: replace(rows, predicted_ms=rows.predicted_ms[:, :1]), r"predicted_ms \(3, 1\)"),
    ],
)
def test_unusable_input_is_named(damage: Callable[[OneStepInput], OneStepInput], message: str) -> None:
    with pytest.raises(DataError, match=message):
        damage(three_decisions())


@pytest.mark.parametrize("block", [0, 3])
def test_a_block_that_leaves_no_spread_is_refused(block: int) -> None:
    with pytest.raises(ConfigError, match="expected at least two blocks in 3 requests"):
        snips(three_decisions(), "p", block)
