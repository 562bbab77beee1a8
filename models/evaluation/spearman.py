"""Spearman's rank correlation, and how much each row has to do with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["midranks", "spearman", "spearman_parts"]

Floats = NDArray[np.float64]


def midranks(values: Floats) -> Floats:
    """Return the share of values below each value, plus half the share of those equal to it: their mean is 1/2.

    >>> midranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist()
    [0.5, 0.125, 0.5, 0.875]
    """
    ordered = np.sort(values)
    below, through = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((below + through) / (2.0 * len(values)))


def spearman(x: Floats, y: Floats) -> float:
    """Return the correlation of the midranks, ties included; NaN where either never varies.

    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0])), 9)
    0.5
    """
    return float(spearman_parts(x, y).mean()) if len(x) else float("nan")


def spearman_parts(x: Floats, y: Floats) -> Floats:
    """Return one number a row whose mean is the correlation, and whose spread is that of its estimate (see `parts`).

    With midranks u and v, the correlation is cov(u, v) / (sd(u) sd(v)). A row counts in each moment E[u v] three times:
    by its own product, and by being below or above other rows, which moves their u and v.
    """
    (on_xy, xy), (on_xx, xx), (on_yy, yy) = _covariance(x, y), _covariance(x, x), _covariance(y, y)
    if min(xx, yy) <= 1e-12:
        return np.full(len(x), np.nan)
    scale = float(np.sqrt(xx * yy))
    value = xy / scale
    return np.asarray(value + on_xy / scale - 0.5 * value * (on_xx / xx + on_yy / yy))


def _covariance(x: Floats, y: Floats) -> tuple[Floats, float]:
    """Return the influence of each row on the covariance of the midranks, and that covariance."""
    u, v = midranks(x), midranks(y)
    moment = float((u * v).mean())
    influence = u * v + _mean_at_or_above(x, v) + _mean_at_or_above(y, u) - 3.0 * moment
    return influence, moment - 0.25


def _mean_at_or_above(values: Floats, weight: Floats) -> Floats:
    """Return for each row the mean over all rows of `weight` where their value is above its own, half where equal."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    total = np.concatenate([[0.0], np.cumsum(weight[order])])
    below, through = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((total[-1] - 0.5 * (total[below] + total[through])) / len(values))
