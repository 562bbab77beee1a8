"""How sure a replayed number is: 95 % intervals from bootstrap draws over seeds and blocks of consecutive requests.

Latencies of neighbouring requests go up and down together, so intervals that treat requests as independent are far too
narrow; see `resampling` for what is drawn. The estimand is the mean over traffic like this one and over the randomness
of the replay. Some twenty blocks are few, and a bootstrap of few is too narrow; all intervals are widened by what
Student's t does for a mean of as many. Where a queue remembers longer than a block, they stay too narrow.

An interval says nothing about how right the engine model is; the trust gates do.

Reference: Hesterberg 2015, What teachers should know about the bootstrap, §5.3 (expanded percentile interval);
Romano and Wolf 2005 (simultaneous intervals from the largest t).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.resampling import resampled_means, resamples

__all__ = ["block_bootstrap_mean", "expanded_interval", "simultaneous_intervals"]

Floats = NDArray[np.float64]
Interval = tuple[float, float]

_FARTHEST: Final = 6.0  # errors, beyond which a normal tail is too thin to look up; wider grows in proportion


def block_bootstrap_mean(values: Floats, block: int, draws: int = 1000, seed: int = 0) -> Interval:
    """Return the 95 % interval of a mean.

    Args:
        values: one row a seed, one column a request in order of arrival, NaN where there is none, shape (seeds, n).
        block: consecutive requests that are drawn together; the longer a queue remembers, the longer the block.
        draws: bootstrap samples.
        seed: of the draws; the same seed gives the same interval.

    >>> values = np.tile(np.arange(100.0), (5, 1))
    >>> low, high = block_bootstrap_mean(values, block=10)
    >>> print(f"{values.mean()} in {low:.1f} to {high:.1f}")
    49.5 in 29.8 to 67.8
    """
    if values.ndim != 2 or values.size == 0:
        raise DataError(f"values have shape {values.shape}; expected (seeds, requests), neither of them 0")
    drawn = resamples(len(values), values.shape[1], block, draws, seed)
    return expanded_interval(resampled_means(values, drawn), drawn.starts.shape[1])


def expanded_interval(drawn: Floats, blocks: int) -> Interval:
    """Return the 95 % percentile interval of one number, widened for few blocks.

    Args:
        drawn: the number in each draw; draws without it (NaN) are left out.
        blocks: that were drawn at a time.

    >>> low, high = expanded_interval(np.linspace(0.0, 1.0, 1001), blocks=20)
    >>> print(f"{low:.3f} to {high:.3f}")
    0.016 to 0.984
    """
    tail = ndtr(-_widened(1.959964, blocks))
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def simultaneous_intervals(estimates: Floats, drawn: Floats, blocks: int) -> list[Interval]:
    """Return intervals that hold all at once with 95 %: each as many of its standard errors wide as the largest needs.

    Formula: estimate ± c · se, with se the standard deviation over the draws and c the 95 % quantile of the largest
    |draw − estimate| / se of a draw. It depends on neither the order of the rows nor their units.

    Args:
        estimates: one a row, shape (k,).
        drawn: the same in each draw, drawn together, shape (k, draws).
        blocks: that were drawn at a time.

    >>> random = np.random.default_rng(2)
    >>> drawn = random.normal(0, 1, (4, 40_000))
    >>> for rows in (1, 4):
    ...     low, high = simultaneous_intervals(np.zeros(rows), drawn[:rows], blocks=1000)[0]
    ...     print(f"{rows}: {low:.1f} to {high:.1f}")
    1: -2.0 to 2.0
    4: -2.5 to 2.5
    """
    errors = np.nanstd(drawn, axis=1)
    off = np.abs(drawn - estimates[:, None])
    # A row that never differs has no error, and decides nothing.
    in_errors = np.divide(off, errors[:, None], out=np.zeros_like(off), where=errors[:, None] > 0)
    largest = np.nanmax(in_errors[:, ~np.isnan(off).all(axis=0)], axis=0)
    wide = _widened(float(np.quantile(largest, 0.95)), blocks) * errors
    return [(float(mean - half), float(mean + half)) for mean, half in zip(estimates, wide, strict=True)]


def _widened(errors: float, blocks: int) -> float:
    """Return how many bootstrap errors are as rare, with so few blocks, as `errors` are with many."""
    blocks, near = max(2, blocks), min(errors, _FARTHEST)
    if near == 0:
        return 0.0
    return math.sqrt(blocks / (blocks - 1)) * float(stdtrit(blocks - 1, ndtr(near))) * errors / near
