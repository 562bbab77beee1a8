from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import f

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.intervals.bounds import Bounds
from lodestar.pipeline.estimation.intervals.cressie_read import cressie_read
from lodestar.pipeline.estimation.intervals.interval import ALONG_PATH

Floats = NDArray[np.float64]


def log(n: int = 30, largest: float = 4.0) -> tuple[Floats, Floats]:
    random = np.random.default_rng(11)
    return random.random(n), random.choice([0.0, 0.5, largest], n, p=[0.45, 0.4, 0.15])


@pytest.mark.parametrize("sign", [1, -1], ids=["lower", "upper"])
def test_the_bounds_are_the_best_that_a_reweighting_near_enough_can_give(sign: int) -> None:
    """Solved as the quadratic programme that the closed form stands for, with the unseen decision at either weight."""
    cost, weight = log()
    found = cressie_read(cost, weight, Bounds(0.0, 1.0), largest_weight=8.0)
    extreme = min(solved(cost, weight, unseen, sign) for unseen in (0.0, 8.0))
    assert (found.lower if sign > 0 else found.upper) == pytest.approx(sign * extreme, abs=1e-5)


def solved(cost: Floats, weight: Floats, unseen: float, sign: int) -> float:
    n = len(cost)
    w, r = np.append(weight, unseen), np.append(cost, 0.0 if sign > 0 else 1.0)
    best = least_divergence(np.append(weight, 8.0 if weight.sum() < n else 0.0))
    most = best + f.isf(0.05, 1, n)
    even = 1 / (n + 1)
    limits = [
        {"type": "eq", "fun": lambda q: np.sum(q) - 1, "jac": lambda _: np.ones_like(w)},
        {"type": "eq", "fun": lambda q: np.sum(q * w) - 1, "jac": lambda _: w},
        {
            "type": "ineq",
            "fun": lambda q: most / (n + 1) ** 2 - np.sum((q - even) ** 2),
            "jac": lambda q: -2 * (q - even),
        },
    ]
    start = np.full(n + 1, even)
    result = minimize(
        lambda q: sign * np.sum(q * w * r), start, jac=lambda q: sign * w * r, constraints=limits, method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )  # fmt: skip
    return float(result.fun)


def least_divergence(w: Floats) -> float:
    """(n + 1)² Σ (q − 1/(n + 1))² of the nearest reweighting with Σ q = Σ q w = 1."""
    both = np.stack([np.ones_like(w), w])
    off = np.ones(2) - both.mean(axis=1)
    return float(len(w) ** 2 * off @ np.linalg.solve(both @ both.T, off))


def test_where_weights_average_1_the_estimate_is_the_weighted_mean() -> None:
    weight, cost = np.tile([0.5, 1.5], 50), np.linspace(0.0, 1.0, 100)
    found = cressie_read(cost, weight, Bounds(0.0, 1.0), largest_weight=2.0)
    assert found.value == pytest.approx(np.mean(weight * cost), abs=1e-4)
    assert found.estimand == ALONG_PATH


def test_an_interval_scales_with_its_unit() -> None:
    cost, weight = log()
    ratio, ms = cressie_read(cost, weight, Bounds(0, 1)), cressie_read(200 + 800 * cost, weight, Bounds(200, 1000))
    for name in ("value", "lower", "upper"):
        assert getattr(ms, name) == pytest.approx(200 + 800 * getattr(ratio, name))


def test_a_log_that_says_nothing_gives_all_of_the_bounds() -> None:
    """vw-estimators gives an upper bound of the least cost here, which would flatter any policy."""
    found = cressie_read(np.array([0.5]), np.array([1.0]), Bounds(0.25, 1.0), largest_weight=1.0 + 1e-9)
    assert found.lower < 0.5 < found.upper
    nothing = cressie_read(np.full(4, 0.5), np.zeros(4), Bounds(0.25, 1.0))
    assert (nothing.lower, nothing.upper) == (0.25, 1.0)


@pytest.mark.parametrize("kinds", [(0.0, 0.5, 2.0, 8.0), (1 - 1e-12,)], ids=["uneven weights", "weights of nearly 1"])
def test_costs_that_are_all_alike_lie_in_their_interval_in_any_unit(kinds: tuple[float, ...]) -> None:
    """The variance of what is left is 0 then; rounded, it was 1e-17 to either side, and bounds changed places."""
    random = np.random.default_rng(1)
    for _ in range(500):
        n, largest = int(random.integers(2, 60)), float(random.choice([9.0, np.inf]))
        cost, weight = np.full(n, random.random()), random.choice(kinds, n)
        ratio = cressie_read(cost, weight, Bounds(0.0, 1.0), largest)
        ms = cressie_read(60_000 * cost, weight, Bounds(0.0, 60_000.0), largest)
        assert ratio.lower <= cost[0] + 1e-8
        assert ratio.upper >= cost[0] - 1e-8
        assert (ms.lower / 60_000, ms.upper / 60_000) == pytest.approx((ratio.lower, ratio.upper), abs=1e-5)


def test_weights_that_are_all_as_large_as_any_could_be_are_no_division_by_0() -> None:
    found = cressie_read(np.linspace(0.0, 1.0, 24), np.full(24, 1 - 1e-12), Bounds(0.0, 1.0), 1 + 1e-9)
    assert found.lower <= 0.5 <= found.upper


def test_costs_beyond_the_bounds_are_refused_not_clipped() -> None:
    cost, weight = log()
    with pytest.raises(DataError, match=r"1 costs lie outside the bounds 0 to 1, such as 7; .* timeout"):
        cressie_read(np.append(cost, 7.0), np.append(weight, 1.0), Bounds(0.0, 1.0))
    with pytest.raises(ConfigError, match="largest weight 2"):
        cressie_read(cost, weight, Bounds(0.0, 1.0), largest_weight=2.0)
    with pytest.raises(ConfigError, match="bounds"):
        Bounds(1.0, math.inf)
    for wrong in (-weight, np.full(len(weight), np.inf)):
        with pytest.raises(DataError, match="all finite and none below 0"):
            cressie_read(cost, wrong, Bounds(0.0, 1.0))
