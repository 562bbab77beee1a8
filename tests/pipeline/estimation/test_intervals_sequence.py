from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.intervals.boundary import crossing, log_wealth, running_lower
from lodestar.pipeline.estimation.intervals.bounds import Bounds
from lodestar.pipeline.estimation.intervals.confidence_sequence import (
    RUNNING_AVERAGE,
    ConfidenceSequence,
    Foretold,
    confidence_sequence,
    difference_sequence,
)
from lodestar.pipeline.estimation.intervals.gate import decides

Floats = NDArray[np.float64]

UNIT = Bounds(0.0, 1.0)
LARGEST = 5.0


def dependent_logs(logs: int, n: int, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Costs of a load that remembers, met by a logging policy that changes as it goes.

    Of two candidates the policy takes the first. Returns the cost, the weight, the running average of the policy's
    conditional costs and that of the logging policy's, shape (logs, n) each.
    """
    random = np.random.default_rng(seed)
    load = np.zeros((logs, n))
    for i in range(1, n):
        load[:, i] = 0.97 * load[:, i - 1] + 0.03 * (random.random(logs) < 0.5) * 2
    first, second = 0.15 + 0.5 * load * 0.7, 0.3 + 0.5 * load * 0.7
    propensity = np.clip(0.5 + 0.6 * (load - 0.5), 1 / LARGEST, 1 - 1 / LARGEST)
    taken = random.random((logs, n)) < propensity
    cost = ((random.random((logs, n))) < np.where(taken, first, second)).astype(float)
    steps = np.arange(1, n + 1)
    logged = propensity * first + (1 - propensity) * second
    return cost, np.where(taken, 1 / propensity, 0.0), first.cumsum(1) / steps, logged.cumsum(1) / steps


def ever_missed(sequence: ConfidenceSequence, truth: Floats) -> float:
    """Share of logs in which some bound, after any number of decisions, misses the truth of that time."""
    return float(((truth < sequence.lower) | (truth > sequence.upper)).any(axis=1).mean())


def earlier(cost: Floats, weight: Floats) -> Foretold:
    """Foretell every decision as half of what went before it."""
    before = np.cumsum(cost, axis=-1) - cost
    guess = (before + 0.5) / np.arange(1, cost.shape[-1] + 1)
    return Foretold(guess, guess, LARGEST)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("foretold", [False, True])
def test_it_holds_at_every_time_at_once_for_a_series_that_remembers(foretold: bool, level: float) -> None:
    cost, weight, value, logged = dependent_logs(300, 300, seed=4)
    known = earlier(cost, weight) if foretold else None
    missed = ever_missed(confidence_sequence(cost, weight, UNIT, known, level), value)
    assert missed <= 1 - level
    none = Foretold(np.zeros_like(cost), known.chosen, LARGEST) if known else None
    apart = difference_sequence(cost, weight, np.ones_like(weight), UNIT, none, level)
    assert ever_missed(apart, value - logged) <= 1 - level


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_either_end_of_a_sequence_may_err_half_as_often_as_both(level: float) -> None:
    """As a two-sided interval of 95 % takes the 97.5 % quantile: with all of the error at either end it holds less."""
    cost, weight, *_ = dependent_logs(3, 200, seed=5)
    n, error, largest = np.arange(1, 201), (1 - level) / 2, 1 + LARGEST
    bounds, ms = Bounds(100.0, 300.0), 100.0 + 200.0 * cost
    alone = confidence_sequence(ms, weight, bounds, level=level)
    assert (alone.lower - 100) / 200 == pytest.approx(np.maximum(running_lower(weight * cost, 1.0, error), 0.0))
    assert (300 - alone.upper) / 200 == pytest.approx(np.maximum(running_lower(weight * (1 - cost), 1.0, error), 0.0))
    apart = difference_sequence(ms, weight, np.ones_like(weight), bounds, level=level)
    least = running_lower(weight * cost + (1 - cost), 1.0, error) - 1
    assert apart.lower / 200 == pytest.approx(np.maximum(least, -1.0))
    guess = np.broadcast_to(0.5 / n, cost.shape)
    known = Foretold(100.0 + 200.0 * guess, 100.0 + 200.0 * guess, LARGEST)
    told = confidence_sequence(ms, weight, bounds, known, level)
    expected = running_lower(guess + weight * (cost - guess), largest, error)
    assert (told.lower - 100) / 200 == pytest.approx(np.maximum(expected, 0.0))
    told_apart = difference_sequence(
        ms, weight, np.ones_like(weight), bounds, Foretold(40.0 * guess, known.chosen, LARGEST), level
    )
    expected = running_lower(1 + 0.2 * guess + (weight - 1) * (cost - guess), largest, error) - 1
    assert told_apart.lower / 200 == pytest.approx(np.maximum(expected, -1.0))


@pytest.mark.parametrize("foretold", [False, True])
def test_a_policy_and_its_baseline_change_places_as_the_difference_changes_its_sign(foretold: bool) -> None:
    cost, weight, *_ = dependent_logs(3, 200, seed=6)
    other = np.where(weight > 0, 0.25, 1.75) * 1.0
    known = [Foretold(sign * 0.2 * cost, np.full_like(cost, 0.5), LARGEST) if foretold else None for sign in (1, -1)]
    one, back = (
        difference_sequence(cost, *pair, UNIT, each)
        for pair, each in zip(((weight, other), (other, weight)), known, strict=True)
    )
    assert one.lower == pytest.approx(-back.upper)
    assert one.upper == pytest.approx(-back.lower)
    assert (one.lower[:, -1] > -1).any()


def test_looking_at_a_fixed_interval_after_every_decision_would_not_hold() -> None:
    cost, weight, value, _ = dependent_logs(300, 300, seed=4)
    n = np.arange(1, 301)
    mean = np.cumsum(weight * cost, 1) / n
    half = 1.96 * np.sqrt((np.cumsum((weight * cost) ** 2, 1) / n - mean**2) / n)
    fixed = ConfidenceSequence(mean - half, mean + half, 0.95, "")
    assert ever_missed(ConfidenceSequence(fixed.lower[:, 20:], fixed.upper[:, 20:], 0.95, ""), value[:, 20:]) > 0.15


def test_the_running_average_is_what_moves() -> None:
    """Where the costs rise in the middle, the bounds follow the average so far."""
    cost = np.repeat([0.2, 0.8], 5000)
    found = confidence_sequence(cost, np.ones(10_000), UNIT)
    assert found.lower[4999] < 0.2 < found.upper[4999] < 0.5 < found.upper[-1]
    assert found.lower[-1] < 0.5
    assert found.estimand == RUNNING_AVERAGE


@pytest.mark.parametrize("squares", [0.0, 0.3, 4.0, 250.0, 3e5])
def test_the_boundary_is_where_the_wealth_is_1_over_the_error(squares: float) -> None:
    goal = -np.log(0.025)
    root = brentq(lambda s: float(log_wealth(np.array(s), np.array(squares))) - goal, 0, 20 + 10 * np.sqrt(squares))
    assert crossing(np.array([squares, 1e6]), 0.025)[0] == pytest.approx(root, rel=1e-8)


def test_the_wealth_is_no_more_than_fair() -> None:
    """Its mean over all paths of eight fair deviations of −0.1 or +0.1."""
    total = 0.0
    for wins in range(9):
        wealth = np.exp(log_wealth(np.array(0.1 * (2 * wins - 8)), np.array(8 * 0.1**2)))
        total += math.comb(8, wins) / 2**8 * float(wealth)
    assert 0.95 < total <= 1.0


def test_a_guess_above_1_is_cut_where_vw_estimators_lets_it_grow() -> None:
    values = np.array([8.0, 0.0, 8.0])
    guess = np.array([0.5, 1.0, 1.0])
    squares = np.cumsum((values - guess) ** 2)
    expected = (np.cumsum(values) - crossing(squares, 0.025)) / np.arange(1, 4)
    assert running_lower(values, 1.0, 0.025) == pytest.approx(expected)


def test_deviations_count_in_units_of_the_scale() -> None:
    """Of values down to −3 the deviations reach −1 in units of 4, as the boundary allows for."""
    values, guess = np.array([-3.0, 1.0, -1.0]), np.array([0.5, -2.5 / 2, -1.5 / 3])
    squares = np.cumsum(((values - guess) / 4.0) ** 2)
    expected = (np.cumsum(values) - 4.0 * crossing(squares, 0.1)) / np.arange(1, 4)
    assert running_lower(values, 4.0, 0.1) == pytest.approx(expected)


def test_foretold_costs_narrow_the_upper_bound_of_costs_far_below_their_bound() -> None:
    random, n = np.random.default_rng(0), 20_000
    cost, weight, bounds = random.gamma(4.0, 50.0, n), random.choice([0.0, 2.0], n), Bounds(0.0, 60_000.0)
    guess = np.full(n, 200.0)
    alone = confidence_sequence(cost, weight, bounds)
    better = confidence_sequence(cost, weight, bounds, Foretold(guess, guess, 2.0))
    assert better.upper[-1] - 200 < 0.1 * (alone.upper[-1] - 200)
    assert better.lower[-1] < 200 < better.upper[-1]


def test_a_gate_says_when_a_better_policy_was_found_better() -> None:
    random, n = np.random.default_rng(1), 20_000
    first = random.random(n) < 0.5
    cost, weight = np.where(first, 0.3, 0.5) + random.uniform(-0.1, 0.1, n), np.where(first, 2.0, 0.0)
    found = decides(difference_sequence(cost, weight, np.ones(n), UNIT))
    assert found.verdict == "below"
    assert found.decisions is not None
    assert 100 < found.decisions < n
    other = decides(difference_sequence(cost, np.where(first, 0.0, 2.0), np.ones(n), UNIT))
    assert other.verdict == "above"
    assert decides(difference_sequence(cost, np.ones(n), np.ones(n), UNIT)).verdict == "open"
    assert "less the baseline's" in found.estimand


def test_a_gate_against_a_limit_takes_the_first_crossing() -> None:
    sequence = ConfidenceSequence(np.array([0.0, 6.0, 0.0]), np.array([9.0, 9.0, 4.0]), 0.95, "x")
    assert (decides(sequence, 5.0).verdict, decides(sequence, 5.0).decisions) == ("above", 2)
    assert decides(sequence, 9.5).verdict == "below"


def test_what_would_break_the_promise_is_refused() -> None:
    cost, weight = np.full(3, 0.5), np.array([0.0, 2.0, 2.0])
    with pytest.raises(DataError, match="outside the bounds"):
        confidence_sequence(cost, weight, Bounds(0.0, 0.4))
    with pytest.raises(DataError, match=r"3 costs lie outside the bounds 0\.6 to 1, such as 0\.5"):
        confidence_sequence(cost, weight, Bounds(0.6, 1.0))
    with pytest.raises(ConfigError, match=r"a weight lies outside 0 to 1\.5"):
        confidence_sequence(cost, weight, UNIT, Foretold(cost, cost, 1.5))
    with pytest.raises(ConfigError, match=r"a weight lies outside 0 to 1\.5"):
        difference_sequence(cost, weight * 0, weight, UNIT, Foretold(cost * 0, cost, 1.5))
    with pytest.raises(DataError, match="foretold value leaves the bounds"):
        confidence_sequence(cost, weight, UNIT, Foretold(cost + 1, cost, 2.0))
    with pytest.raises(DataError, match="foretold difference"):
        difference_sequence(cost, weight, weight, UNIT, Foretold(cost + 1, cost, 2.0))
    with pytest.raises(DataError, match="that of one log"):
        decides(confidence_sequence(np.full((2, 3), 0.5), np.ones((2, 3)), UNIT))
