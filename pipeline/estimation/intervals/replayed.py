"""How sure a replayed number is, by how many seeds were replayed: one tells nothing of what the next would give.

Draws of `resamples` take seeds anew as well as blocks of requests. Of one seed there is only itself to draw: where
whole runs differ, as they do near saturation, an interval by the blocks of one run holds in a few of ten cases, where
it claims 95 %. So it has none. Of a few seeds, draws of seeds spread too little by √((k − 1) / k), and what they say of
the spread is itself a guess of k − 1 degrees of freedom. Intervals of fewer than `ENOUGH_SEEDS` are widened for both;
those of more stay as they are. How often they hold: `python tests/bench/seeds.py`.

References: Satterthwaite 1946 (degrees of freedom of a sum of variances); Owen 2007 (two crossed factors).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lodestar.pipeline.estimation.intervals.block_bootstrap import expanded_interval, simultaneous_intervals
from lodestar.pipeline.estimation.resampling import Resamples

__all__ = ["ENOUGH_SEEDS", "level_of_each", "replayed_interval", "replayed_intervals"]

Floats = NDArray[np.float64]
Interval = tuple[float, float]

ENOUGH_SEEDS: Final = 10


def level_of_each(together: int) -> float:
    """Return the level of each end of so many 95 % intervals that are to hold all at once (Šidák).

    >>> round(level_of_each(1), 4), round(level_of_each(4), 4)
    (0.975, 0.9936)
    """
    return float(0.5 + 0.5 * 0.95 ** (1 / max(1, together)))


def replayed_interval(in_draws: Floats, drawn: Resamples, least: float = -math.inf) -> Interval | None:
    """Return the 95 % interval of one number; None of a single seed.

    Args:
        in_draws: the number in each draw; draws without it (NaN) are left out.
        drawn: what each draw takes.
        least: that the number can be, such as 0 of a latency; widened ends go no further.

    >>> drawn = Resamples(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.zeros((4, 20), int), 1, 20)
    >>> low, high = replayed_interval(np.array([1.0, 2.0, 2.0, 3.0]), drawn)  # whole runs differ, blocks do not
    >>> print(f"{low:.1f} to {high:.1f}")
    -6.2 to 10.2
    """
    if drawn.seeds.shape[1] < 2:
        return None
    low, high = expanded_interval(in_draws, drawn.starts.shape[1])
    middle, wider = float(np.nanmean(in_draws)), _widened(in_draws, drawn, level_of_each(1))
    return max(least, middle - wider * (middle - low)), middle + wider * (high - middle)


def replayed_intervals(estimates: Floats, in_draws: Floats, drawn: Resamples) -> list[Interval | None]:
    """Return intervals that hold all at once with 95 %, as `simultaneous_intervals` does; None of a single seed.

    The more there are, the more a few seeds widen each, as ends of a higher level are wanted. Of two seeds they hold
    too seldom all the same: there is but one degree of freedom for the luck of each.

    Args:
        estimates: one a row, shape (k,).
        in_draws: the same in each draw, drawn together, shape (k, draws).
        drawn: what each draw takes.
    """
    if drawn.seeds.shape[1] < 2:
        return [None] * len(estimates)
    found: list[Interval | None] = []
    narrow = simultaneous_intervals(estimates, in_draws, drawn.starts.shape[1])
    for value, (low, high), each in zip(estimates.tolist(), narrow, in_draws, strict=True):
        wider = _widened(each, drawn, level_of_each(len(estimates)))
        found.append((value - wider * (value - low), value + wider * (high - value)))
    return found


def _widened(in_draws: Floats, drawn: Resamples, level: float) -> float:
    """Return how many times as wide an interval must be for so few seeds.

    Of the variance of the draws, what the counts of the seeds in each explain by least squares is that of the seeds. It
    is taken k / (k − 1) times, and t's degrees of freedom are (a + b)² / (a² / (k − 1) + b² / (blocks − 1)), with a and
    b the variances of seeds and blocks.
    """
    seeds, blocks = drawn.seeds.shape[1], drawn.starts.shape[1]
    there = ~np.isnan(in_draws)
    off = in_draws[there] - in_draws[there].mean()
    whole = float(np.sum(off**2))
    if seeds >= ENOUGH_SEEDS or whole == 0 or blocks < 2:
        return 1.0
    counts = (drawn.seeds[there, :, None] == np.arange(seeds)).sum(axis=1) - 1.0
    told = counts @ np.linalg.lstsq(counts, off, rcond=None)[0]
    of_seeds = float(np.sum(told**2)) / whole
    a, b = of_seeds * seeds / (seeds - 1), 1 - of_seeds
    degrees = (a + b) ** 2 / (a**2 / (seeds - 1) + b**2 / (blocks - 1))
    return float(np.sqrt(a + b) * max(1.0, stdtrit(degrees, level) / stdtrit(blocks - 1, level)))
