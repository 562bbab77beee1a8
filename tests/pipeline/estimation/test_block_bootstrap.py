from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.intervals.block_bootstrap import (
    block_bootstrap_mean,
    expanded_interval,
    simultaneous_intervals,
)
from lodestar.pipeline.estimation.resampling import resamples
from lodestar.pipeline.replay.comparison import compared_means

Floats = NDArray[np.float64]


def autoregressive(n: int, phi: float, random: np.random.Generator) -> Floats:
    """A stationary AR(1) series of mean 0 and variance 1: each value remembers `phi` of the last."""
    noise = random.normal(0, np.sqrt(1 - phi**2), n)
    noise[0] = random.normal()
    return np.asarray(lfilter([1.0], [1.0, -phi], noise))


def replays_of_one_workload(random: np.random.Generator, seeds: int, n: int) -> Floats:
    """What every seed shares (the requests) and what each adds (a seed's level and noise)."""
    shared = 10 + autoregressive(n, 0.9, random)
    return shared + random.normal(0, 0.1, (seeds, 1)) + random.normal(0, 0.5, (seeds, n))


def covers(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def difference(a: Floats, b: Floats, block: int, draws: int = 300) -> tuple[float, float]:
    drawn = resamples(*a.shape, block, draws)
    low, high = compared_means({"a": a, "b": b}, "b", drawn)["a"]["ci95"]
    return low, high


def test_blocks_cover_correlated_requests_where_single_requests_do_not() -> None:
    random = np.random.default_rng(1)
    series = [autoregressive(2000, 0.9, random)[None, :] for _ in range(200)]
    by_block = np.mean([covers(block_bootstrap_mean(s, block=100, draws=300), 0) for s in series])
    by_request = np.mean([covers(block_bootstrap_mean(s, block=1, draws=300), 0) for s in series])
    assert by_block >= 0.91
    assert by_request <= 0.60


def test_many_seeds_of_one_workload_do_not_count_as_many_workloads() -> None:
    random = np.random.default_rng(2)
    replays = [replays_of_one_workload(random, seeds=10, n=1500) for _ in range(200)]
    covered = np.mean([covers(block_bootstrap_mean(r, block=75, draws=300), 10) for r in replays])
    assert 0.90 <= covered <= 0.99


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
    paired = difference(a, b, block=75)
    assert covers(paired, 0.3)
    assert np.ptp(paired) < np.ptp(block_bootstrap_mean(a, block=75)) / 10


def test_paired_differences_cover_the_truth() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        a = replays_of_one_workload(random, seeds=10, n=1000)
        b = a - 0.2 * autoregressive(1000, 0.9, random) - 0.3
        covered += covers(difference(a, b, block=50), 0.3)
    assert covered / 200 >= 0.91


def test_intervals_of_five_policies_hold_all_at_once_where_single_ones_do_not() -> None:
    random = np.random.default_rng(6)
    truth = {f"p{k}": 0.1 * k for k in range(5)}
    together, alone = 0, 0
    for _ in range(150):
        base = replays_of_one_workload(random, seeds=10, n=1000)
        noise = {name: 0.5 * autoregressive(1000, 0.8, random) for name in truth}
        values = {name: base + true + noise[name] for name, true in truth.items()} | {"base": base}
        found = compared_means(values, "base", resamples(10, 1000, 50, draws=300))
        together += all(covers(found[name]["ci95"], true) for name, true in truth.items())
        alone += all(covers(block_bootstrap_mean(values[name] - base, 50, 300), true) for name, true in truth.items())
    assert 0.88 <= together / 150 <= 1.0
    assert alone < together - 10


def test_simultaneous_intervals_do_not_depend_on_the_order_of_the_policies() -> None:
    values = {name: replays_of_one_workload(np.random.default_rng(i), 4, 300) for i, name in enumerate("abcde")}
    drawn = resamples(4, 300, 15)
    backwards = dict(reversed(values.items()))
    assert compared_means(values, "c", drawn) == compared_means(backwards, "c", drawn)


def test_a_policy_that_never_differs_has_an_interval_of_no_width_and_widens_no_other() -> None:
    draws = np.random.default_rng(7).normal(0, 1, (1, 500))
    alone = simultaneous_intervals(np.zeros(1), draws, 20)
    beside = simultaneous_intervals(np.zeros(2), np.vstack([draws, np.zeros((1, 500))]), 20)
    assert beside == [alone[0], (0.0, 0.0)]


def test_draws_further_off_than_any_table_of_a_normal_goes_widen_in_proportion() -> None:
    """What was replayed and what was drawn of it then differ by far more than luck, and no interval may hide it."""
    draws = np.random.default_rng(7).normal(0, 1, (1, 4000))
    near, far = (simultaneous_intervals(np.array([off]), draws, 100_000)[0] for off in (20.0, 200.0))
    assert 20 < (near[1] - near[0]) / 2 < 1.1 * 22
    assert 200 < (far[1] - far[0]) / 2 < 1.01 * 202
    assert simultaneous_intervals(np.array([200.0]), draws, 10)[0][1] > 2 * far[1]


def test_draws_without_the_number_are_left_out_of_its_interval() -> None:
    drawn = np.random.default_rng(9).normal(0, 1, 1000)
    assert expanded_interval(np.append(drawn, np.full(50, np.nan)), 20) == expanded_interval(drawn, 20)
    some = np.append(drawn, np.full(50, np.nan))[None]
    (low, high), whole = (
        simultaneous_intervals(np.zeros(1), some, 20)[0],
        simultaneous_intervals(np.zeros(1), drawn[None], 20)[0],
    )
    assert (low, high) == pytest.approx(whole)


def test_pairs_are_the_requests_with_a_value_under_both_policies() -> None:
    a, b = np.arange(40.0).reshape(2, 20), np.arange(40.0).reshape(2, 20) - 7.0
    a[0, 3], b[1, 5] = np.nan, np.nan
    found = compared_means({"a": a, "b": b}, "b", resamples(2, 20, 2))["a"]
    assert found["mean"] == 7.0
    assert found["ci95"] == pytest.approx([7.0, 7.0])


def test_policies_without_a_pair_have_no_difference() -> None:
    values = {"a": np.full((2, 20), np.nan), "b": np.ones((2, 20))}
    assert compared_means(values, "b", resamples(2, 20, 2)) == {"a": {"mean": None, "ci95": None}}


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


def test_an_infinite_latency_is_refused() -> None:
    values = np.ones((2, 10))
    values[1, 3] = np.inf
    with pytest.raises(DataError, match="1 values are infinite"):
        block_bootstrap_mean(values, 2)
