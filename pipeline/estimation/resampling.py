"""Bootstrap draws of a replay: seeds, and blocks of consecutive requests, the same for all policies.

One draw takes as many seeds as there are, with replacement, then blocks of requests until it has as many requests as
there are. All seeds it took get the same blocks: they replay the same requests, and drawing blocks for each seed apart
would count one workload as many. On a known truth (20 seeds whose requests share half of their noise) intervals of 95 %
then cover 0.41 of the time; with blocks in common, 0.95.

The price of a common block: what is left to a single request under a single seed counts up to three times, so that
intervals are a little too wide where that outweighs seeds and traffic.

Reference: Künsch 1989 (moving blocks), Politis and Romano 1992 (circular), Owen 2007 (two crossed factors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError

__all__ = ["Resamples", "resampled_means", "resampled_quantiles", "resamples"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = NDArray[np.int32]

_NUMBERS_AT_ONCE: Final = 4_000_000  # of a temporary array: 32 MB


@dataclass(frozen=True, slots=True)
class Resamples:
    """What each draw takes.

    Attributes:
        seeds: places of the seeds, shape (draws, seeds).
        starts: first request of each block, which goes on around the end, shape (draws, blocks).
        block: requests of a block; the last one of a draw is cut so that the draw has all its requests.
        requests: of one seed.
    """

    seeds: Ints
    starts: Ints
    block: int
    requests: int

    @property
    def lengths(self) -> Ints:
        """Requests of each block of a draw, the same for all draws."""
        blocks = self.starts.shape[1]
        return np.array([self.block] * (blocks - 1) + [self.requests - (blocks - 1) * self.block], dtype=np.int64)


def resamples(seeds: int, requests: int, block: int, draws: int = 1000, seed: int = 0) -> Resamples:
    """Draw seeds and blocks; they depend on nothing but these numbers.

    >>> drawn = resamples(seeds=2, requests=10, block=4, draws=1)
    >>> drawn.seeds.shape, drawn.starts.shape, drawn.lengths.tolist()
    ((1, 2), (1, 3), [4, 4, 2])
    """
    if not 1 <= block <= requests:
        raise ConfigError(f"block {block} does not fit; expected 1 to {requests} requests. Choose a shorter one")
    if draws < 1:
        raise ConfigError(f"draws {draws} is not usable; expected at least 1")
    random = np.random.default_rng(seed)
    taken = random.integers(0, seeds, (draws, seeds))
    return Resamples(taken, random.integers(0, requests, (draws, -(-requests // block))), block, requests)


def resampled_means(values: Floats, drawn: Resamples) -> Floats:
    """Return the mean of every draw over the values that are there; NaN for a draw that has none.

    Args:
        values: one row a seed, one column a request, NaN where there is none, shape (seeds, requests).
        drawn: what each draw takes.

    >>> resampled_means(np.array([[1.0, 3.0, np.nan]]), resamples(seeds=1, requests=3, block=3, draws=2))
    array([2., 2.])
    """
    _check(values, drawn)
    missing = np.isnan(values)
    sums = _drawn_sums(np.where(missing, 0.0, values) if missing.any() else values, drawn)
    counts = _drawn_counts(missing, drawn)
    return np.asarray(np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0))


def resampled_quantiles(values: Sequence[Floats], level: float, drawn: Resamples) -> Floats:
    """Return a quantile of every draw, all its seeds pooled: the least value with `level` of the draw at or below it.

    Values are gone through from the largest down, and no further than any draw needs, so that P99 is cheap.

    Args:
        values: one array a policy, each as in `resampled_means`.
        level: of the quantile, 0 to 1.
        drawn: what each draw takes.

    Returns:
        One row a policy, one column a draw.

    >>> values = np.arange(100.0)[None, :]
    >>> resampled_quantiles([values], 0.99, resamples(seeds=1, requests=100, block=100, draws=2))
    array([[98., 98.]])
    """
    for each in values:
        _check(each, drawn)
    descending = [_descending(each) for each in values]
    above = [(1 - level) * _drawn_counts(np.isnan(each), drawn) for each in values]
    found = np.full((len(values), len(drawn.starts)), np.nan)
    at_once = max(1, _NUMBERS_AT_ONCE // drawn.requests)
    for first in range(0, len(drawn.starts), at_once):
        rows = slice(first, first + at_once)
        weights = _weights(drawn, rows)
        for k, ranked in enumerate(descending):
            found[k, rows] = _from_the_top(ranked, weights, above[k][rows], int(1.5 * (1 - level) * len(ranked.value)))
    return found


def _check(values: Floats, drawn: Resamples) -> None:
    expected = (drawn.seeds.shape[1], drawn.requests)
    if values.shape != expected:
        raise DataError(f"values have shape {values.shape}; expected (seeds, requests) {expected}")
    if np.isinf(values).any():
        raise DataError(f"{np.isinf(values).sum()} values are infinite; expected latencies, or NaN where there is none")


def _drawn_sums(values: Floats, drawn: Resamples) -> Floats:
    """Return the sum of every draw, from running sums around the end of the requests."""
    around = np.concatenate([values, values[:, : drawn.block]], axis=1).T
    running = np.concatenate([np.zeros((1, len(values))), np.cumsum(around, axis=0)])
    sums = np.empty(len(drawn.starts))
    step = max(1, _NUMBERS_AT_ONCE // (drawn.starts.shape[1] * len(values)))
    for first in range(0, len(sums), step):
        rows = slice(first, first + step)
        starts = drawn.starts[rows]
        by_seed = (running[starts + drawn.lengths] - running[starts]).sum(axis=1)
        sums[rows] = np.take_along_axis(by_seed, drawn.seeds[rows], axis=1).sum(axis=1)
    return sums


def _drawn_counts(missing: NDArray[np.bool_], drawn: Resamples) -> Floats:
    """Return how many values every draw has."""
    if not missing.any():
        return np.full(len(drawn.starts), float(missing.size))
    return _drawn_sums((~missing).astype(np.float64), drawn)


class _Descending(NamedTuple):
    """The values that are there, from the largest down, and where they stand."""

    value: Floats
    seed: Counts
    request: Counts


def _descending(values: Floats) -> _Descending:
    seed, request = (place.astype(np.int32) for place in np.nonzero(~np.isnan(values)))
    flat = values[seed, request]
    order = np.argsort(-flat)
    return _Descending(flat[order], seed[order], request[order])


def _weights(drawn: Resamples, rows: slice) -> tuple[Counts, Counts]:
    """Return how often each draw takes each seed, shape (seeds, draws), and each request, shape (requests, draws)."""
    seeds, starts, n = drawn.seeds[rows], drawn.starts[rows], drawn.requests
    of_seed = (seeds[None] == np.arange(seeds.shape[1])[:, None, None]).sum(axis=2, dtype=np.int32)
    ends, draw = starts + drawn.lengths, np.arange(len(starts))[:, None]
    edges = np.zeros((n, len(starts)), dtype=np.int32)
    np.add.at(edges, (starts, draw), 1)
    np.add.at(edges, (ends % n, draw), -1)
    edges[0] += (ends >= n).sum(axis=1, dtype=np.int32)  # these go on around the end
    return of_seed, np.cumsum(edges, axis=0, dtype=np.int32)


def _from_the_top(values: _Descending, weights: tuple[Counts, Counts], above: Floats, step: int) -> Floats:
    """Return, for each draw, the first of the descending values that has more than `above` of its weight behind it."""
    of_seed, of_request = weights
    found, passed, left = np.full(len(above), np.nan), np.zeros(len(above)), np.arange(len(above))
    step = max(100, step)
    for first in range(0, len(values.value), step):
        part = slice(first, first + step)
        weight = of_seed[values.seed[part]] * of_request[values.request[part]]
        behind = passed + np.cumsum(weight, axis=0, dtype=np.int64)
        beyond = behind > above + 1e-6  # weights are whole numbers, `above` is rounded
        done = beyond[-1]
        found[left[done]] = values.value[part][beyond[:, done].argmax(axis=0)]
        if done.all():
            break
        left, passed, above = left[~done], behind[-1, ~done], above[~done]
        of_seed, of_request = of_seed[:, ~done], of_request[:, ~done]
    return found
