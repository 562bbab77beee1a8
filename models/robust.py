"""Stalls: rows whose latency nothing explains, and how far they may pull a fit of the mean."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["STALL", "mean_ratio", "stalls", "within_reach"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Robust standard deviations of the log error from its median, beyond which a row counts as a stall (or its reverse).
STALL: Final = 4.0


def stalls(log_errors: Floats) -> Bools:
    """Say which rows lie further from the median than `STALL` robust standard deviations, shape (n,).

    An engine that compiles a kernel or restarts answers after seconds, whatever its queue. A dozen such rows in 1200
    raised the mean of one real log by 40 %, and with it every prediction, for hours in which it did not happen again.

    >>> stalls(np.array([0.0, 0.1, -0.1, 0.05, 4.0])).tolist()
    [False, False, False, False, True]
    """
    low, high = _reach(log_errors)
    return np.asarray((log_errors < low) | (log_errors > high))


def within_reach(log_errors: Floats) -> Floats:
    """Return the log errors, those of stalls moved to the limit: they count, but no more than a very bad ordinary row.

    >>> within_reach(np.array([0.0, 0.1, -0.1, 0.05, 4.0])).round(2).tolist()
    [0.0, 0.1, -0.1, 0.05, 0.35]
    """
    return np.asarray(np.clip(log_errors, *_reach(log_errors)))


def mean_ratio(latency_ms: Floats, predicted_ms: Floats) -> float:
    """Return what to multiply predictions by so that they are right in the mean of all but stalls.

    It is Duan's smearing factor (1983), weighed by the prediction, of the errors within reach: without stalls,
    ``sum(latency) / sum(predicted)``.

    >>> predicted_ms = np.full(8, 100.0)
    >>> ordinary_ms = np.array([90.0, 95.0, 100.0, 105.0, 110.0, 115.0, 120.0, 125.0])
    >>> mean_ratio(ordinary_ms, predicted_ms)
    1.075
    >>> stalled_ms = np.append(ordinary_ms[:-1], 9000.0)
    >>> round(mean_ratio(stalled_ms, predicted_ms), 3), round(float(stalled_ms.mean()) / 100, 3)
    (1.149, 12.169)
    """
    ratio = np.exp(within_reach(np.log(latency_ms / predicted_ms)))
    return float((predicted_ms * ratio).sum() / predicted_ms.sum())


def _reach(log_errors: Floats) -> tuple[float, float]:
    middle = float(np.median(log_errors))
    spread = 1.4826 * float(np.median(np.abs(log_errors - middle)))
    if spread == 0.0:  # half of the rows are alike: that tells nothing of the others
        return -np.inf, np.inf
    return middle - STALL * spread, middle + STALL * spread
