from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.replay.intervals import block_bootstrap_mean, paired_difference

Floats = NDArray[np.float64]


def autoregressive(n: int, phi: float, random: np.random.Generator) -> Floats:
    """A stationary AR(1) series of mean 0 and variance 1: each value remembers `phi` of the last."""
    noise = random.normal(0, np.sqrt(1 - phi**2), n)
    series = np.empty(n)
    series[0] = random.normal()
    for i in range(1, n):
        series[i] = phi * series[i - 1] + noise[i]
    return series


def replays_of_one_workload(random: np.random.Generator, seeds: int, n: int) -> Floats:
    """What every seed shares (the requests) and what each adds (a seed's level and noise)."""
    shared = 10 + autoregressive(n, 0.9, random)
    return shared + random.normal(0, 0.1, (seeds, 1)) + random.normal(0, 0.5, (seeds, n))


def covers(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def test_blocks_cover_correlated_requests_where_single_requests_do_not() -> None:
    random = np.random.default_rng(1)
    series = [autoregressive(2000, 0.9, random)[None, :] for _ in range(200)]
    by_block = np.mean([covers(block_bootstrap_mean(s, block=100, draws=300), 0) for s in series])
    by_request = np.mean([covers(block_bootstrap_mean(s, block=1, draws=300), 0) for s in series])
    assert by_block >= 0.88
    assert by_request <= 0.60


def test_many_seeds_of_one_workload_do_not_count_as_many_workloads() -> None:
    random = np.random.default_rng(2)
    replays = [replays_of_one_workload(random, seeds=10, n=1500) for _ in range(200)]
    covered = np.mean([covers(block_bootstrap_mean(r, block=75, draws=300), 10) for r in replays])
    assert 0.88 <= covered <= 0.99


def test_the_spread_between_seeds_widens_the_interval() -> None:
    random = np.random.default_rng(3)
    steady = random.normal(0, 1, (20, 1000))
    bistable = steady + np.repeat([[0.0], [5.0]], 10, axis=0)
    low, high = block_bootstrap_mean(bistable, block=50)
    assert high - low > 10 * np.ptp(block_bootstrap_mean(steady, block=50))


def test_pairing_cancels_what_both_policies_share() -> None:
    random = np.random.default_rng(4)
    a = replays_of_one_workload(random, seeds=20, n=1500)
    b = a - 0.3 + random.normal(0, 0.1, a.shape)
    paired = paired_difference(a, b, block=75)
    assert paired.mean == pytest.approx(0.3, abs=0.01)
    assert covers(paired.ci95, 0.3)
    assert np.ptp(paired.ci95) < np.ptp(block_bootstrap_mean(a, block=75)) / 10


def test_paired_differences_cover_the_truth() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        a = replays_of_one_workload(random, seeds=10, n=1000)
        b = a - 0.2 * autoregressive(1000, 0.9, random) - 0.3
        covered += covers(paired_difference(a, b, block=50, draws=300).ci95, 0.3)
    assert covered / 200 >= 0.88


def test_one_draw_is_the_mean_of_the_blocks_it_took() -> None:
    values = np.random.default_rng(6).normal(size=(3, 10))
    random = np.random.default_rng(7)
    taken = random.integers(0, 3, (1, 3))[0]
    starts = random.integers(0, 10, (1, 3))[0]
    places = np.concatenate(
        [np.arange(start, start + length) % 10 for start, length in zip(starts, (4, 4, 2), strict=True)]
    )
    expected = values[np.ix_(taken, places)].mean()
    assert block_bootstrap_mean(values, block=4, draws=1, seed=7) == pytest.approx((expected, expected))


@given(st.integers(1, 4), st.integers(1, 30), st.data())
def test_a_constant_has_an_interval_of_no_width(seeds: int, requests: int, data: st.DataObject) -> None:
    block = data.draw(st.integers(1, requests))
    interval = block_bootstrap_mean(np.full((seeds, requests), 3.5), block, draws=20)
    assert interval == pytest.approx((3.5, 3.5))


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(8).lognormal(size=(5, 400))
    assert block_bootstrap_mean(values, 20, seed=3) == block_bootstrap_mean(values, 20, seed=3)
    assert block_bootstrap_mean(values, 20, seed=3) != block_bootstrap_mean(values, 20, seed=4)


@pytest.mark.parametrize("block", [0, 11])
def test_a_block_that_does_not_fit_is_named(block: int) -> None:
    with pytest.raises(ConfigError, match=f"block {block} does not fit; expected 1 to 10"):
        block_bootstrap_mean(np.ones((2, 10)), block)


def test_a_request_without_a_latency_is_refused() -> None:
    values = np.ones((2, 10))
    values[1, 3] = np.nan
    with pytest.raises(DataError, match="1 values are not finite"):
        block_bootstrap_mean(values, 2)


def test_pairs_of_different_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(2, 10\) and \(2, 9\)"):
        paired_difference(np.ones((2, 10)), np.ones((2, 9)), 2)
