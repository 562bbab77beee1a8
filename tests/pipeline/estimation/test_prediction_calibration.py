"""Quantiles of the logged choices from residuals of other times, and when a predictor is called miscalibrated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.pipeline.estimation.diagnostics.diagnose import Diagnostics, diagnose
from lodestar.pipeline.estimation.diagnostics.prediction import Coverage, coverage, miscalibrated
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.tails.residuals import chosen_quantiles

Floats = NDArray[np.float64]
N, M, BLOCK = 2400, 4, 200
LEVELS = (0.1, 0.5, 0.9)


def log_of(seed: int, wider: float, bias: float = 0.0) -> tuple[OneStepInput, NDArray[np.int64]]:
    """Return a log and its loads, 0 to 3; residuals grow wider, and move, with the load, which the model ignores."""
    random = np.random.default_rng(seed)
    load = random.integers(0, 4, N)
    log_mean, chosen = 5 + random.normal(0, 0.8, N * M), M * np.arange(N) + random.integers(0, M, N)
    log_cost = log_mean[chosen] + (load - 1.5) * bias + (0.3 + wider * load) * random.normal(size=N)
    share = np.full(N * M, 1 / M)
    log = LoggedDecisions(np.exp(log_cost), M * np.arange(N + 1), chosen, share[chosen], share)
    return OneStepInput(log, share, np.exp(log_mean)), load


def diagnosed(rows: OneStepInput, load: NDArray[np.int64]) -> Diagnostics:
    return diagnose(rows, BLOCK, {"load": load}, None, chosen_quantiles(rows, BLOCK, LEVELS))


def test_foretold_quantiles_hold_as_often_as_they_say() -> None:
    rows, _ = log_of(0, 0.0)
    for level, foretold in chosen_quantiles(rows, BLOCK, LEVELS).items():
        assert np.mean(rows.log.cost <= foretold) == pytest.approx(level, abs=0.03)
        quantile = np.log(foretold) - np.log(rows.predicted[rows.log.chosen])  # type: ignore[index]
        assert quantile.mean() == pytest.approx(0.3 * {0.1: -1.2816, 0.5: 0.0, 0.9: 1.2816}[level], abs=0.02)


def test_no_residual_foretells_its_own_time() -> None:
    rows, _ = log_of(0, 0.0)
    cost = rows.log.cost.copy()
    cost[: 3 * BLOCK] *= 10  # the first of four folds
    before, after = (chosen_quantiles(replace(rows, log=replace(rows.log, cost=c)), BLOCK, (0.9,))[0.9]
                     for c in (rows.log.cost, cost))  # fmt: skip
    assert np.array_equal(before[: 3 * BLOCK], after[: 3 * BLOCK])
    assert (after[3 * BLOCK :] > before[3 * BLOCK :]).all()


def test_a_level_that_so_few_residuals_do_not_carry_is_left_out() -> None:
    rows, _ = log_of(0, 0.0)
    assert list(chosen_quantiles(rows, BLOCK, (0.9, 0.99))) == [0.9]  # 1800 residuals: 30 of them lie beyond 0.983


@pytest.mark.parametrize("seed", range(10))
def test_a_right_predictor_is_not_called_miscalibrated(seed: int) -> None:
    assert diagnosed(*log_of(seed, 0.0)).miscalibrated is None


@pytest.mark.parametrize(("wider", "bias"), [(0.15, 0.0), (0.0, 0.15)])
def test_one_that_ignores_the_load_is(wider: float, bias: float) -> None:
    for seed in range(5):
        found = diagnosed(*log_of(seed, wider, bias))
        assert "the predictor is miscalibrated: at load" in str(found.miscalibrated)
        assert found.to_dict()["miscalibrated"] == found.miscalibrated


def test_the_pinball_loss_is_by_its_definition_and_least_for_the_right_quantile() -> None:
    cost = np.array([1.0, 2.0, 6.0, 8.0])
    (found,) = coverage(cost, {0.9: np.full(4, 5.0)}, 2, {})
    assert found.pinball == pytest.approx(np.mean([0.1 * 4, 0.1 * 3, 0.9 * 1, 0.9 * 3]))
    drawn = np.random.default_rng(0).exponential(size=4000)
    losses = {
        q: coverage(drawn, {0.9: np.full(4000, np.quantile(drawn, q))}, 400, {})[0].pinball for q in (0.8, 0.9, 1)
    }
    assert min(losses, key=losses.__getitem__) == 0.9


def test_a_group_that_is_off_by_much_is_told_though_another_is_surer_to_be_off_by_little() -> None:
    every = Coverage("all decisions", 90_000, 0.9, covered_ratio=0.86, se=0.002, pinball=1.0)
    busy = Coverage("load 3", 2000, 0.9, covered_ratio=0.75, se=0.015, pinball=1.0)
    assert "at load 3 75 % of the costs" in str(miscalibrated([every, busy], 12))
    assert miscalibrated([every], 12) is None


def test_a_group_that_always_holds_has_no_error_of_0() -> None:
    always = Coverage("load 0", 900, 0.9, covered_ratio=1.0, se=0.0, pinball=1.0)
    assert "100 % of the costs are below their foretold P90, 10.0 standard errors" in str(miscalibrated([always], 12))
    few = replace(always, decisions=10)
    unknown = replace(always, se=float("nan"))
    assert miscalibrated([few], 12) is miscalibrated([unknown], 12) is miscalibrated([], 12) is None


def test_a_cost_that_is_just_what_was_foretold_is_covered() -> None:
    (found,) = coverage(np.array([1.0, 2.0, 3.0, 4.0]), {0.5: np.array([1.0, 2.0, 2.5, 3.5])}, 2, {})
    assert found.covered_ratio == 0.5


def test_the_more_groups_are_looked_at_the_more_has_to_be_luck() -> None:
    off = Coverage("load 3", 2000, 0.9, covered_ratio=0.82, se=0.02, pinball=1.0)  # 4 standard errors
    others = [Coverage(f"time {k}", 2000, 0.9, covered_ratio=0.9, se=0.02, pinball=1.0) for k in range(60)]
    assert "at load 3" in str(miscalibrated([off], 12))
    assert miscalibrated([off, *others], 12) is None
