"""Metrics as means of one number a row, so that one bootstrap of rows gives the interval of any of them.

A metric that is no mean of rows (R², a ratio, a correlation) is replaced by its first-order expansion: the metric plus
the row's influence on it, whose mean over the rows is the metric itself (the delta method; van der Vaart 1998, ch. 20).
The interval of a difference of two models on the same rows is that of the mean of the difference of their parts.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.uncertainty.paired import paired_interval

__all__ = ["POINT_METRICS", "Estimate", "covered_parts", "estimate", "pinball_parts", "point_parts", "r2_parts"]

Floats = NDArray[np.float64]
#: 'value', 'low' and 'high' of a metric and its 95 % interval, ready for JSON: None where it is not known.
Estimate = dict[str, float | None]

#: Metrics of the predicted mean. R² and R² of the logarithms are better when higher, errors when lower.
POINT_METRICS: Final = ("mae_ms", "mape", "bias_ms", "r2", "r2_log")


def estimate(parts: Floats, seed: int = 0) -> Estimate:
    """Return the mean of `parts` (n,), in time order, with its 95 % interval; all None without rows or with NaN.

    >>> found = estimate(np.random.default_rng(0).exponential(100.0, 1000))
    >>> {name: round(end) for name, end in found.items()}
    {'value': 102, 'low': 96, 'high': 109}
    """
    if not len(parts) or not np.isfinite(parts).all():
        return {"value": None, "low": None, "high": None}
    found = paired_interval(parts, seed)
    ends = {"low": found.low, "high": found.high}
    return {"value": found.mean, **{name: end if math.isfinite(end) else None for name, end in ends.items()}}


def point_parts(measured_ms: Floats, predicted_ms: Floats) -> dict[str, Floats]:
    """Return the parts (n,) of each of `POINT_METRICS`.

    >>> parts = point_parts(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    >>> {name: round(float(part.mean()), 3) for name, part in parts.items()}
    {'mae_ms': 0.333, 'mape': 0.111, 'bias_ms': 0.333, 'r2': 0.5, 'r2_log': 0.866}
    """
    error = predicted_ms - measured_ms
    return {
        "mae_ms": np.abs(error),
        "mape": np.abs(error) / measured_ms,
        "bias_ms": error,
        "r2": r2_parts(measured_ms, predicted_ms),
        "r2_log": r2_parts(np.log(measured_ms), np.log(predicted_ms)),
    }


def r2_parts(measured: Floats, predicted: Floats) -> Floats:
    """Return the parts of R² = 1 - A / B, with A the mean of squared errors and B the variance; NaN where B is 0.

    The influence of a row is -(e² - (A / B) (y - mean y)²) / B.
    """
    squared_error, squared_spread = (measured - predicted) ** 2, (measured - measured.mean()) ** 2
    variance = float(squared_spread.mean())
    if variance == 0.0:
        return np.full(len(measured), np.nan)
    unexplained = float(squared_error.mean()) / variance
    return np.asarray(1.0 - unexplained - (squared_error - unexplained * squared_spread) / variance)


def pinball_parts(measured_ms: Floats, predicted_ms: Floats, share: float) -> Floats:
    """Return the quantile loss of every row: an underestimate costs `share`, an overestimate 1 - `share`, per ms.

    >>> pinball_parts(np.array([1.0, 3.0]), np.array([2.0, 2.0]), 0.75).tolist()
    [0.25, 0.75]
    """
    over = measured_ms - predicted_ms
    return np.asarray(np.maximum(share * over, (share - 1.0) * over))


def covered_parts(measured_ms: Floats, predicted_ms: Floats) -> Floats:
    """Return 1 where the measured latency is at or below the prediction, else 0."""
    return np.asarray((measured_ms <= predicted_ms).astype(np.float64))
