"""How sure a difference between two models is: an interval for its mean over rows in time order.

Errors of neighbouring requests rise and fall together, so rows are drawn in blocks of consecutive ones. The series is
closed to a circle: every row is in as many blocks as any other (Politis and Romano 1992). Blocks have the length that
minimises the mean square error of the bootstrap's variance, by the rule of Politis and White 2004 as corrected by
Patton, Politis and White 2009: long where rows depend on each other for long; but never less than the cube root of the
number of rows, the order of the best length for any dependence, which costs little where there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from lodestar.data.errors import DataError

__all__ = ["Interval", "block_rows", "paired_interval"]

Floats = NDArray[np.float64]

MIN_ROWS: Final = 10
_CHUNK: Final = 4_000_000  # block sums drawn at a time, to bound the memory


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and what it lies between with the share asked for, in the unit of the differences."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign of the mean is sure."""
        return self.low > 0.0 or self.high < 0.0


def paired_interval(difference: Floats, seed: int = 0, share: float = 0.95, draws: int = 2000) -> Interval:
    """Return the mean of `difference` (n,), in time order, and its interval.

    A bootstrap of few blocks is too narrow: the percentile interval is widened by what Student's t does for a mean of
    as many blocks (Hesterberg 2015, §5.3). Fewer than ten rows tell nothing: their interval is infinite.

    Args:
        difference: of two models' errors on the same row, all finite.
        seed: of the draws; the same seed gives the same interval.
        share: of the intervals that hold the mean of all traffic like this, between 0 and 1.
        draws: bootstrap samples.

    Raises:
        DataError: no rows, or one that is not finite.

    >>> worse_by_ms = np.random.default_rng(0).normal(1.0, 5.0, 1000)
    >>> found = paired_interval(worse_by_ms)
    >>> print(f"{found.mean:.2f}: {found.low:.2f} to {found.high:.2f}", found.excludes_zero)
    0.76: 0.47 to 1.07 True
    """
    if difference.ndim != 1 or not len(difference) or not np.isfinite(difference).all():
        unfit = int((~np.isfinite(difference)).sum())
        raise DataError(
            f"differences of shape {difference.shape}, {unfit} of them not finite; expected one finite number a row. "
            "Compare two models on the same rows"
        )
    n, mean = len(difference), float(difference.mean())
    if n < MIN_ROWS:
        return Interval(mean, -math.inf, math.inf)
    block = block_rows(difference)
    errors = _drawn_means(difference - mean, block, draws, np.random.default_rng(seed))
    low, high = np.quantile(errors, _expanded((1.0 - share) / 2.0, math.ceil(n / block)))
    return Interval(mean, mean + float(low), mean + float(high))


def block_rows(values: Floats) -> int:
    """Return how many consecutive rows to draw together, from the cube root of the rows to a third of them.

    >>> noise = np.random.default_rng(0).normal(size=10_000)
    >>> block_rows(noise), block_rows(np.convolve(noise, np.ones(20)))
    (22, 102)
    """
    n = len(values)
    least, most = math.ceil(math.cbrt(n)), max(n // 3, 1)
    centred = values - values.mean()
    variance = float(centred @ centred) / n
    if variance == 0.0 or least >= most:
        return min(least, most)
    lags = _significant_lags(centred, variance)
    lag = np.arange(-lags, lags + 1)
    covariance = np.array([float(centred[: n - abs(k)] @ centred[abs(k) :]) / n for k in lag])
    window = np.clip(2.0 * (1.0 - np.abs(lag) / lags), 0.0, 1.0)  # flat-top: 1 up to half of the lags, then down to 0
    slope, level = float((window * np.abs(lag) * covariance).sum()), float((window * covariance).sum())
    if level <= 0.0:
        return least
    return min(max(round(math.cbrt(1.5 * (slope / level) ** 2 * n)), least), most)


def _significant_lags(centred: Floats, variance: float) -> int:
    """Return twice the lag after which a run of autocorrelations is as small as noise makes them."""
    n = len(centred)
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    most = max(min(math.ceil(math.sqrt(n)) + run, n - 1), 1)
    small = 2.0 * math.sqrt(math.log10(n) / n)
    quiet = 0
    for k in range(1, most + 1):
        quiet = quiet + 1 if abs(float(centred[:-k] @ centred[k:])) / n < small * variance else 0
        if quiet == run:
            return max(2 * (k - run), 1)
    return most


def _drawn_means(values: Floats, block: int, draws: int, rng: np.random.Generator) -> Floats:
    """Return the mean of each bootstrap sample of blocks of `values`, by sums of blocks rather than rows."""
    n = len(values)
    total = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[:block]]))])
    full, rest = divmod(n, block)
    sums = total[block : block + n] - total[:n]
    at_once = max(_CHUNK // max(full, 1), 1)
    drawn = [
        sums[rng.integers(0, n, (min(at_once, draws - start), full))].sum(axis=1) for start in range(0, draws, at_once)
    ]
    ends = rng.integers(0, n, draws)
    means: Floats = (np.concatenate(drawn) + total[ends + rest] - total[ends]) / n
    return means


def _expanded(tail: float, blocks: int) -> Floats:
    """Return the two levels at which to read the bootstrap's distribution."""
    widen = math.sqrt(blocks / (blocks - 1)) * stdtrit(blocks - 1, tail)
    return np.array([ndtr(widen), ndtr(-widen)])
