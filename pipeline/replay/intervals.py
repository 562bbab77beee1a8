"""How sure a replayed mean is: bootstrap over seeds and blocks of consecutive requests.

Latencies of neighbouring requests go up and down together, so intervals that treat requests as independent are far too
narrow. Every seed replays the same requests, so one draw takes the same blocks in every seed it takes: drawing blocks
for each seed apart would count one workload as many, and shrink the interval by up to the root of their number.

The estimand is the mean over traffic like this one and over the randomness of the replay. Two limits: with S seeds the
seeds' share of the spread comes out a factor √((S−1)/S) too small, and below about ten blocks the interval is too
narrow. An interval says nothing about how right the engine model is; the trust gates do.

Reference: Künsch 1989 (moving blocks), Politis and Romano 1992 (circular), Owen 2007 (two crossed factors).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError

__all__ = ["PairedDifference", "block_bootstrap_mean", "paired_difference"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DRAWS_AT_ONCE: Final = 4_000_000  # block sums gathered at a time: 32 MB


class PairedDifference(NamedTuple):
    """A mean difference and its 95 % interval, in the unit of the values."""

    mean: float
    ci95: tuple[float, float]


def block_bootstrap_mean(values: Floats, block: int, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean.

    Args:
        values: one row a seed, one column a request in order of arrival, shape (seeds, n).
        block: consecutive requests that are drawn together; the longer a queue remembers, the longer the block.
        draws: bootstrap samples.
        seed: of the draws; the same seed gives the same interval.

    >>> values = np.tile(np.arange(100.0), (5, 1))
    >>> low, high = block_bootstrap_mean(values, block=10)
    >>> print(f"{values.mean()} in {low:.1f} to {high:.1f}")
    49.5 in 33.3 to 65.4
    """
    _check(values, block, draws)
    random = np.random.default_rng(seed)
    seeds, requests = values.shape
    taken_seeds = random.integers(0, seeds, (draws, seeds))
    starts = random.integers(0, requests, (draws, -(-requests // block)))
    low, high = np.quantile(_drawn_means(values, block, taken_seeds, starts), [0.025, 0.975])
    return float(low), float(high)


def paired_difference(a: Floats, b: Floats, block: int, draws: int = 1000, seed: int = 0) -> PairedDifference:
    """Return the mean of ``a - b`` and its 95 % interval, on common random numbers.

    Row s, column i of both arrays must be the same request under the same seed: what both policies share then cancels,
    and the interval is much narrower than that of two independent means.

    >>> a = np.array([[11.0, 21.0, 31.0, 41.0]])
    >>> paired_difference(a, a - 1.0, block=2)
    PairedDifference(mean=1.0, ci95=(1.0, 1.0))
    """
    if a.shape != b.shape:
        raise DataError(f"paired values have shapes {a.shape} and {b.shape}; expected the same requests and seeds")
    difference = a - b
    return PairedDifference(float(difference.mean()), block_bootstrap_mean(difference, block, draws, seed))


def _check(values: Floats, block: int, draws: int) -> None:
    if values.ndim != 2 or values.size == 0:
        raise DataError(f"values have shape {values.shape}; expected (seeds, requests), neither of them 0")
    if not np.isfinite(values).all():
        raise DataError(f"{np.sum(~np.isfinite(values))} values are not finite; expected a latency for every request")
    if not 1 <= block <= values.shape[1]:
        raise ConfigError(f"block {block} does not fit; expected 1 to {values.shape[1]} requests. Choose a shorter one")
    if draws < 1:
        raise ConfigError(f"draws {draws} is not usable; expected at least 1")


def _drawn_means(values: Floats, block: int, taken_seeds: Ints, starts: Ints) -> Floats:
    """Return the mean of every draw; the last block of a draw is cut so that each draw has n requests."""
    requests = values.shape[1]
    blocks = starts.shape[1]
    whole = _circular_sums(values, block)
    rest = _circular_sums(values, requests - (blocks - 1) * block)
    means = np.empty(len(starts))
    step = max(1, _DRAWS_AT_ONCE // (blocks * len(values)))
    for first in range(0, len(starts), step):
        rows = slice(first, first + step)
        by_seed = whole[starts[rows, :-1]].sum(axis=1) + rest[starts[rows, -1]]
        means[rows] = np.take_along_axis(by_seed, taken_seeds[rows], axis=1).mean(axis=1) / requests
    return means


def _circular_sums(values: Floats, length: int) -> Floats:
    """Return the sum of `length` values from every start, around the end, shape (n, seeds)."""
    around = np.concatenate([values, values[:, : length - 1]], axis=1).T
    sums = np.concatenate([np.zeros((1, len(values))), np.cumsum(around, axis=0)])
    return np.ascontiguousarray(sums[length:] - sums[:-length])
