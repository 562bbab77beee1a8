from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from lodestar.data.errors import DataError
from lodestar.models.uncertainty.paired import block_rows, paired_interval


def _autoregressive(rng: np.random.Generator, n: int, keep: float) -> np.ndarray:
    noise = rng.normal(size=n + 200)
    return np.asarray(lfilter([1.0], [1.0, -keep], noise))[200:]


def _coverage(n: int, keep: float, repeats: int = 200) -> float:
    """Share of 95 % intervals that hold the true mean, 0."""
    held = 0
    for seed in range(repeats):
        found = paired_interval(_autoregressive(np.random.default_rng(seed), n, keep), seed, draws=400)
        held += found.low <= 0.0 <= found.high
    return held / repeats


@pytest.mark.parametrize(("n", "keep", "least"), [(40, 0.0, 0.90), (500, 0.0, 0.91), (1000, 0.8, 0.89)])
def test_intervals_hold_the_mean_as_often_as_they_say(n: int, keep: float, least: float) -> None:
    # 200 intervals: a standard error of 1.5 points. Dependence costs a few, as with every bootstrap.
    assert least <= _coverage(n, keep) <= 0.99


def test_dependent_rows_make_wider_intervals_than_shuffled_ones() -> None:
    rng = np.random.default_rng(0)
    values = _autoregressive(rng, 3000, 0.9)
    dependent, shuffled = paired_interval(values), paired_interval(rng.permutation(values))
    # The standard error of an AR(1) is sqrt((1 + a) / (1 - a)) = 4.4 times that of independent rows.
    ratio = (dependent.high - dependent.low) / (shuffled.high - shuffled.low)
    assert 3.0 < ratio < 5.5
    assert block_rows(values) > 2 * block_rows(rng.permutation(values))


def test_width_of_independent_rows_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 10_000)
    found = paired_interval(values)
    assert found.mean == values.mean()
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2.0 / 100, rel=0.08)
    assert found.excludes_zero


def test_a_seed_fixes_the_interval_and_a_sign_mirrors_it() -> None:
    values = np.random.default_rng(1).normal(0.1, 1.0, 500)
    assert paired_interval(values, seed=3) == paired_interval(values, seed=3)
    assert paired_interval(values, seed=3) != paired_interval(values, seed=4)
    mirrored, found = paired_interval(-values, seed=3), paired_interval(values, seed=3)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), rel=0.1, abs=0.02)


def test_few_rows_are_sure_of_nothing_and_equal_ones_of_all() -> None:
    assert not paired_interval(np.full(9, 5.0)).excludes_zero
    same = paired_interval(np.full(50, 5.0))
    assert (same.low, same.mean, same.high) == (5.0, 5.0, 5.0)
    assert not paired_interval(np.zeros(50)).excludes_zero


def test_a_wider_share_is_a_wider_interval() -> None:
    values = np.random.default_rng(2).normal(size=300)
    narrow, wide = paired_interval(values, share=0.8), paired_interval(values, share=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("values", [np.empty(0), np.array([1.0, np.nan]), np.zeros((3, 2))])
def test_rows_without_a_difference_are_refused(values: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected one finite number a row"):
        paired_interval(values)
