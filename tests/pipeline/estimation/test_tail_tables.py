"""What the CDFs of tails are held in: steps, grids, bins and blocks, each against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.pipeline.estimation.blocks import block_se
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.tails.cdf import grid_cdf
from lodestar.pipeline.estimation.tails.conditional import Steps
from lodestar.pipeline.estimation.tails.heads import QuantileHeads, heads_cdf
from lodestar.pipeline.estimation.tails.residuals import chosen_quantiles, residual_cdf
from lodestar.pipeline.estimation.tails.weighted import weighted_cdf

Floats = NDArray[np.float64]


def alone(cost: Floats, predicted: Floats, propensity: float = 1.0) -> OneStepInput:
    """Return a log of one candidate a decision."""
    n = len(cost)
    log = LoggedDecisions(cost, np.arange(n + 1), np.arange(n), np.full(n, propensity))
    return OneStepInput(log, np.ones(n), predicted)


@pytest.mark.parametrize("propensity", [1.0, 0.7, 1 / 1.3])
def test_equal_weights_have_the_quantiles_of_the_costs_whatever_their_sums_are_rounded_to(propensity: float) -> None:
    for n in range(2, 40):
        rows = alone(np.arange(1.0, n + 1), np.ones(n), propensity)
        weighted = weighted_cdf(rows, block=1)
        assert [weighted.quantile(k / n) for k in range(1, n)] == list(range(1, n))


def test_the_error_of_a_cdf_is_that_of_its_indicators_also_where_the_last_block_is_short() -> None:
    cost = np.random.default_rng(0).exponential(1.0, 47)
    grid = np.array([0.2, 0.7, 1.5])
    within = (cost[:, None] <= grid).astype(np.float64)
    cdf = grid_cdf(grid, np.add.reduceat(within, np.arange(0, 47, 10), axis=0), decisions=47, block=10)
    for t, each in zip(grid, within.T, strict=True):
        assert cdf.share(t) == pytest.approx((each.mean(), block_se(each, 10)))


def test_the_error_of_a_tail_counts_from_where_it_begins_between_two_points() -> None:
    """Of 4 blocks that are off by c halfway: c times the area under a straight line from 5 to 10 and down to 20."""
    off = np.array([-0.3, 0.1, 0.4, -0.2])
    rising = np.array([0.0, 0.5, 1.0]) * 6
    cdf = grid_cdf(
        np.array([0.0, 10.0, 20.0]), rising + off[:, None] * np.array([0.0, 1.0, 0.0]), decisions=24, block=6
    )
    assert cdf.quantile(0.25) == pytest.approx(5.0)
    area = 5 * (0.5 + 1) / 2 + 10 / 2
    expected = np.sqrt(4 / 3 * np.sum((off * area / 0.75) ** 2)) / 24
    assert cdf.beyond(0.25) == pytest.approx((12.5, expected))


def test_a_huge_range_of_costs_has_no_more_than_so_many_steps() -> None:
    steps = Steps.over(-50.0, 50.0)
    assert steps.count == 20_000
    assert steps.place(np.array([-50.0, 0.0, 50.0])).tolist() == [0, 10_000, 19_999]
    assert steps.values[[0, -1]] == pytest.approx([-50.0, 50.0])


def test_what_stands_at_a_cost_lies_at_or_below_it_whatever_the_rounding() -> None:
    values = np.exp(np.log(20.0) + 0.002 * np.arange(400))
    model = heads_cdf(QuantileHeads(np.array([0.5, 0.9]), np.stack([values, values], axis=1)), 400, blocks=2)
    at = np.exp(model.steps.values)
    assert (model.table(0, at) == np.tri(len(at)).T).all()
    predicted = np.exp(np.log(100.0) + 0.5 * np.arange(4))[np.arange(400) % 4]
    rows = alone(2.0 * predicted, predicted)
    of_residuals = residual_cdf(rows, block=100)
    reached = of_residuals.table(0, 2.0 * np.unique(predicted))
    assert (reached == np.tri(4).T).all()


def test_residuals_are_kept_apart_by_what_was_predicted() -> None:
    random, n = np.random.default_rng(0), 4000
    predicted = np.where(np.arange(n) % 2 == 0, 10.0, 1000.0)
    cost = predicted * np.exp(random.choice([-1.0, 1.0], n) * np.where(predicted > 100, 1.0, 0.1))
    model = residual_cdf(alone(cost, predicted), block=100)
    calm, wild = model.table(0, np.array([10 * np.exp(0.5), 1000 * np.exp(0.5)]))
    assert calm.tolist() == [1.0, 1.0]
    assert wild == pytest.approx([0.0, 0.5], abs=0.05)


def test_a_quantile_of_residuals_is_the_least_that_so_many_do_not_exceed() -> None:
    cost = np.random.default_rng(0).lognormal(0.0, 1.0, 102)
    found = chosen_quantiles(alone(cost, np.full(102, 10.0)), block=51, levels=(0.1, 0.25, 0.4))
    for level, foretold in found.items():
        others = (
            np.quantile(cost[51:], level, method="inverted_cdf"),
            np.quantile(cost[:51], level, method="inverted_cdf"),
        )
        assert foretold[[0, 101]] == pytest.approx(others, rel=1e-6)
    assert list(found) == [0.1, 0.25, 0.4]
