"""Quantiles where many requests share one cost: told where nothing beyond can move them, refused where it can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.tails import TailEstimate, tail_measures
from lodestar.pipeline.estimation.tails.cdf import tied_costs

Floats = NDArray[np.float64]


def even(cost: Floats) -> OneStepInput:
    """Return a log of two candidates, either with chance 1/2 for log and policy, foretold to cost 50."""
    n = len(cost)
    chosen = 2 * np.arange(n) + np.random.default_rng(0).integers(0, 2, n)
    half = np.full(2 * n, 0.5)
    log = LoggedDecisions(cost, 2 * np.arange(n + 1), chosen, half[chosen], half)
    return OneStepInput(log, half, np.full(2 * n, 50.0))


def told(rows: OneStepInput, levels: tuple[float, ...] = (0.5, 0.9, 0.99)) -> dict[tuple[str, str], TailEstimate]:
    found = tail_measures(rows, -(-rows.log.decisions // 12), levels=levels)
    return {(each.measure, each.estimator): each for each in found}


def floor(share: float, n: int = 4000, seed: int = 0) -> Floats:
    """Return costs of which that share is exactly 50, the others 80 to 90."""
    random = np.random.default_rng(seed)
    return random.permutation(np.where(np.arange(n) < round(share * n), 50.0, random.uniform(80, 90, n)))


@pytest.mark.parametrize("estimator", ["snipw", "dr"])
@pytest.mark.parametrize("measure", ["p50", "p90"])
def test_a_quantile_among_many_equal_costs_is_known(measure: str, estimator: str) -> None:
    found = told(even(floor(0.995)))[measure, estimator]
    assert (found.value, found.low, found.high) == (50.0, 50.0, 50.0)
    assert found.tail_ess == 20  # beyond it, which does not matter


@pytest.mark.parametrize("estimator", ["snipw", "dr"])
def test_what_the_requests_beyond_could_move_is_still_refused(estimator: str) -> None:
    found = told(even(floor(0.995)), levels=(0.9, 0.994, 0.999))
    for measure in ("p99.4", "p99.9", "cvar90", "cvar99.9"):
        assert found[measure, estimator].value is None, measure
        assert "(tail ESS), fewer than 30" in str(found[measure, estimator].refused)
    near = told(even(floor(0.905, n=300)), levels=(0.9,))["p90", estimator]
    assert near.tail_ess == 28
    assert "(tail ESS), fewer than 30" in str(near.refused)


def test_equal_costs_all_over_are_told_for_every_level_that_so_many_requests_carry() -> None:
    found = told(even(np.full(600, 50.0)))
    for estimator in ("snipw", "dr"):
        assert found["p90", estimator].value == 50.0
        assert (found["p99", estimator].value is None) == (0.025 ** (1 / 600) < 0.99)  # Clopper and Pearson
    assert found["p50", "dm"].value == 50.0


def test_in_a_long_log_one_request_in_a_hundred_makes_a_tie() -> None:
    assert tied_costs(np.repeat([1.0, 2.0, 3.0], [99, 100, 9801])).tolist() == [2.0, 3.0]


def test_one_heavy_request_is_no_tie() -> None:
    cost = np.random.default_rng(0).permutation(np.concatenate([np.linspace(1, 2, 500), [3.0], np.linspace(4, 5, 20)]))
    n = len(cost)
    propensity = np.where(cost == 3.0, 1 / 30, 1.0)  # so that 3 carries 5.5 % of the weight, and P91.5 lies there
    log = LoggedDecisions(cost, np.arange(n + 1), np.arange(n), propensity)
    found = told(OneStepInput(log, np.ones(n)), levels=(0.915,))["p91.5", "snipw"]
    assert found.tail_ess == 20
    assert found.value is None


def test_choices_that_the_log_never_made_may_lie_beyond_a_tie() -> None:
    rows = even(floor(0.995))
    assert rows.log.logging is not None
    other = np.arange(2 * 4000) // 2 % 25 == 0  # in 4 % of the decisions the policy may go where the log never does
    logging = np.where(other, 0.0, 0.5)
    logging[rows.log.chosen] = np.where(other[rows.log.chosen], 1.0, 0.5)
    log = replace(rows.log, logging=logging, propensity=logging[rows.log.chosen])
    unseen = told(replace(rows, log=log), levels=(0.9, 0.985))
    assert unseen["p90", "snipw"].value == 50.0
    assert unseen["p98.5", "snipw"].value is None
    assert told(rows, levels=(0.985,))["p98.5", "snipw"].value == 50.0


def test_the_lower_end_knows_how_unsure_the_share_below_a_tie_is() -> None:
    cost = np.repeat([10.0, 50.0, 90.0], [980, 1018, 2])
    cost = np.random.default_rng(1).permutation(cost)  # 49 % lie below 50: is it the median?
    for estimator in ("snipw", "dr"):
        found = told(even(cost))["p50", estimator]
        assert found.value == 50.0
        assert found.low is not None
        assert found.low == pytest.approx(10.0)
        assert found.high == pytest.approx(50.0)


def test_costs_in_whole_steps_are_found_where_they_are() -> None:
    random = np.random.default_rng(2)
    cost = 20.0 * np.ceil(random.lognormal(3.5, 0.5, 4000) / 20)
    for estimator in ("snipw", "dr"):
        found = told(even(cost))
        for level in (0.5, 0.9):
            exact = np.quantile(cost, level, method="inverted_cdf")
            assert found[f"p{100 * level:g}", estimator].value == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(("n", "residuals"), [(2, 1), (20, 14)])
def test_too_few_residuals_are_counted_and_no_level_is_below_0(n: int, residuals: int) -> None:
    found = told(even(np.linspace(40, 60, n)))
    for measure in ("p50", "p90"):
        refused = str(found[measure, "dm"].refused)
        assert f"the model has {residuals} residuals of other times" in refused
        assert "expected more than 30: log more requests" in refused
        assert "fewer than 100" in str(found[measure, "dr"].refused)
    assert not any("-" in str(each.refused) for each in found.values())
