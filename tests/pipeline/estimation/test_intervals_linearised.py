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


def test_one_by_one_it_is_the_two_sided_t_interval_of_scipy() -> None:
    found = linearised_interval(float(VALUES.mean()), VALUES, block=1)
    oracle = stats.ttest_1samp(VALUES, 0.0).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((oracle.low, oracle.high), rel=1e-12)


def test_by_blocks_it_is_the_two_sided_t_interval_of_the_block_means() -> None:
    found = linearised_interval(float(VALUES.mean()), VALUES, block=50)
    oracle = stats.ttest_1samp(VALUES.reshape(12, 50).mean(axis=1), 0.0).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((oracle.low, oracle.high), rel=1e-12)


def test_a_level_goes_to_both_sides() -> None:
    found = linearised_interval(0.0, VALUES, block=1, level=0.9)
    assert found.upper == pytest.approx(stats.t.ppf(0.95, 599) * VALUES.std(ddof=1) / np.sqrt(600))


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
