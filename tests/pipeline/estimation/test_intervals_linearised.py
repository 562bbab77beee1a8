from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.intervals.bounds import Bounds
from lodestar.pipeline.estimation.intervals.cressie_read import cressie_read
from lodestar.pipeline.estimation.intervals.empirical_bernstein import empirical_bernstein
from lodestar.pipeline.estimation.intervals.interval import ALONG_PATH, OVER_TRAFFIC, Interval
from lodestar.pipeline.estimation.intervals.linearised import linearised_interval
from lodestar.pipeline.estimation.intervals.ratio_bootstrap import ratio_bootstrap

Floats = NDArray[np.float64]

VALUES = np.random.default_rng(0).gamma(2.0, 100.0, 600)


def lean(values: Floats, t: float) -> float:
    """Johnson's shift of the end that values are skewed to: μ₃ (1 + 2 t²) / (6 s² n)."""
    third = float(np.mean((values - values.mean()) ** 3))
    unbiased = np.sqrt(len(values) / (len(values) - 1))
    return third * (1 + 2 * t**2) / (6 * values.var() * len(values)) * float(unbiased)


def test_one_by_one_it_is_the_two_sided_t_interval_of_scipy_but_for_the_end_that_values_are_skewed_to() -> None:
    found = linearised_interval(float(VALUES.mean()), VALUES, block=1)
    oracle = stats.ttest_1samp(VALUES, 0.0).confidence_interval(0.95)
    skewed = oracle.high + lean(VALUES, stats.t.ppf(0.975, 599))
    assert (found.lower, found.upper) == pytest.approx((oracle.low, skewed), rel=1e-12)


def test_by_blocks_it_is_the_two_sided_t_interval_of_the_block_means() -> None:
    found = linearised_interval(float(VALUES.mean()), VALUES, block=50)
    means = VALUES.reshape(12, 50).mean(axis=1)
    oracle = stats.ttest_1samp(means, 0.0).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx(
        (oracle.low, oracle.high + lean(means, stats.t.ppf(0.975, 11))), rel=1e-12
    )


def test_a_level_goes_to_both_sides() -> None:
    found = linearised_interval(0.0, VALUES, block=1, level=0.9)
    assert found.lower == pytest.approx(-stats.t.ppf(0.95, 599) * VALUES.std(ddof=1) / np.sqrt(600))
    assert found.upper == pytest.approx(-found.lower + lean(VALUES, stats.t.ppf(0.95, 599)))


def test_only_the_end_that_blocks_are_skewed_to_moves() -> None:
    burst = np.repeat([0.0] * 11 + [6.0], 10)
    up, down = (linearised_interval(0.0, values, block=10) for values in (burst, -burst))
    assert -up.lower == pytest.approx(down.upper)
    assert (up.upper, down.upper) == pytest.approx((-down.lower, -up.lower))
    assert up.upper > 1.5 * -up.lower
    assert linearised_interval(0.0, np.zeros(24), block=2).width == 0


@pytest.mark.parametrize("shape", [0.3, 1.0])
def test_skewed_blocks_are_held_as_often_as_said(shape: float) -> None:
    """Where t alone misses the truth from below: of 12 gamma blocks of shape 0.3, 84 % of its intervals hold it."""
    random = np.random.default_rng(0)
    logs = random.gamma(shape, 1.0, (2000, 12))
    held = np.mean([linearised_interval(float(log.mean()), log, block=1).holds(shape) for log in logs])
    by_t = stats.ttest_1samp(logs, shape, axis=1).pvalue > 0.05
    assert held > by_t.mean() + 0.015


def test_every_interval_names_its_estimand() -> None:
    assert linearised_interval(0.0, VALUES, block=1).estimand == ALONG_PATH == "value along this logged path"
    assert linearised_interval(0.0, VALUES).estimand == OVER_TRAFFIC == "value over traffic like the logged one"
    assert linearised_interval(0.0, VALUES).to_dict()["estimand"] == OVER_TRAFFIC


@pytest.mark.parametrize("seed", range(3))
def test_half_widths_shrink_as_the_log_grows(seed: int) -> None:
    """As scope-rl's Hoeffding interval does not, which grows with √n."""
    few, many = (widths(seed, n) for n in (1_000, 100_000))
    assert set(few) == {"linearised", "bootstrap", "cressie-read", "bernstein"}
    for name, wide in few.items():
        assert many[name] < 0.2 * wide, name


def widths(seed: int, n: int) -> dict[str, float]:
    random = np.random.default_rng(seed)
    weight, cost, bounds = random.choice([0.0, 2.0], n), random.random(n), Bounds(0.0, 1.0)
    intervals: dict[str, Interval] = {
        "linearised": linearised_interval(0.0, weight * cost, block=1),
        "bootstrap": ratio_bootstrap(weight * cost, weight, draws=200, seed=seed),
        "cressie-read": cressie_read(cost, weight, bounds),
        "bernstein": empirical_bernstein(cost, weight, bounds, 2.0),
    }
    return {name: each.width for name, each in intervals.items()}


def test_what_gives_no_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="level 95"):
        linearised_interval(0.0, VALUES, level=95)
    with pytest.raises(ConfigError, match="at least two blocks"):
        linearised_interval(0.0, VALUES, block=600)
    with pytest.raises(DataError, match="finite"):
        linearised_interval(0.0, np.array([1.0, np.nan]), block=1)


def test_empirical_bernstein_is_the_bound_of_maurer_and_pontil_for_the_range_of_weighted_costs() -> None:
    random = np.random.default_rng(4)
    weight, cost = random.choice([0.0, 2.0], 2000), random.uniform(1.0, 2.0, 2000)
    found = empirical_bernstein(cost, weight, Bounds(1.0, 2.0), 2.0, level=0.9)
    values, log_2_over_delta = weight * cost, np.log(2 / 0.05)
    reach = 2.0 * 2.0  # from 0, the least w y, not from 1, the least y
    half = np.sqrt(2 * values.var(ddof=1) * log_2_over_delta / 2000) + 7 * reach * log_2_over_delta / (3 * 1999)
    assert (found.lower, found.upper) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-12)
    few = empirical_bernstein(cost[:20], weight[:20], Bounds(1.0, 2.0), 2.0)
    assert (few.lower, few.upper) == (1.0, 2.0)
    below = empirical_bernstein(-cost, weight, Bounds(-2.0, -1.0), 2.0, level=0.9)
    assert (below.lower, below.upper) == pytest.approx((-found.upper, -found.lower), rel=1e-12)
    with pytest.raises(DataError, match=r"from 0 to 1\.5"):
        empirical_bernstein(cost, weight, Bounds(1.0, 2.0), 1.5)
