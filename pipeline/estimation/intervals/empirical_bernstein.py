"""Empirical Bernstein intervals: they hold for any bounded cost and any n, and are wide."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.intervals.bounds import Bounds
from lodestar.pipeline.estimation.intervals.interval import ALONG_PATH, Interval, check_level

__all__ = ["empirical_bernstein"]

Floats = NDArray[np.float64]


def empirical_bernstein(
    cost: Floats, weight: Floats, bounds: Bounds, largest_weight: float, level: float = 0.95
) -> Interval:
    """Return mean(w y) ± [√(2 s² log(2/δ) / n) + 7 b log(2/δ) / (3 (n − 1))], cut at the bounds.

    s² is the variance of w y over the log and b its range, largest weight × the span of the bounds and 0;
    δ = (1 − level) / 2 a side. For comparison: of off-policy weights b is so large that it says next to nothing. It
    takes decisions as independent and claims the value along this logged path.

    Args:
        cost: of every decision, within the bounds, shape (n,), n ≥ 2.
        weight: importance weight of every decision, at most `largest_weight`, shape (n,).
        bounds: the least and the largest cost that any request could have.
        largest_weight: that any decision could have.
        level: how often it should hold.

    Reference: Maurer and Pontil 2009, Empirical Bernstein bounds, theorem 4.

    >>> y = np.tile([0.0, 1.0], 500)
    >>> found = empirical_bernstein(y, np.ones(1000), Bounds(0.0, 1.0), largest_weight=1.0)
    >>> print(f"{found.lower:.3f} to {found.upper:.3f}")
    0.443 to 0.557
    """
    check_level(level)
    bounds.check(cost)
    n = len(cost)
    if n < 2 or weight.shape != cost.shape or not ((weight >= 0) & (weight <= largest_weight)).all():
        raise DataError(f"weight has shape {weight.shape}; expected {cost.shape}, from 0 to {largest_weight:g}")
    values, log = weight * cost, math.log(4 / (1 - level))
    least, largest = min(0.0, bounds.least), max(0.0, bounds.largest)
    half = math.sqrt(2 * float(values.var(ddof=1)) * log / n) + 7 * largest_weight * (largest - least) * log / (
        3 * (n - 1)
    )
    value = float(values.mean())
    return Interval(
        value, bounds.clip(value - half), bounds.clip(value + half), level, ALONG_PATH, "empirical Bernstein"
    )
