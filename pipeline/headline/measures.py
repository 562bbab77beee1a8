"""What a learning curve says: when it has converged, what learning has cost, how soon a change is behind it."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError

__all__ = ["TOLERANCE", "WINDOW", "Regret", "first_s", "regret", "sliding_means", "steady_ms", "window_ends_s"]

Floats = NDArray[np.float64]

#: Requests of the sliding window: the paper's.
WINDOW: Final = 500
#: A curve is steady once it is at most this far above its own end: the paper's.
TOLERANCE: Final = 0.1


class Regret(NamedTuple):
    """What was lost against another policy, in seconds of waiting, summed over requests; below 0 it was gained.

    Attributes:
        final_s: over the whole run.
        peak_s: the most it ever was.
        peak_at_s: when, from the first arrival.
    """

    final_s: float
    peak_s: float
    peak_at_s: float


def sliding_means(values: Floats, window: int = WINDOW) -> Floats:
    """Return the mean of every run of `window` consecutive values, shape (n - window + 1,).

    >>> sliding_means(np.array([1.0, 3.0, 5.0, 1.0]), window=2)
    array([2., 4., 3.])
    """
    if not 1 <= window <= len(values):
        raise DataError(f"a window of {window} requests; expected 1 to {len(values)}, as many as there are")
    sums = np.cumsum(np.concatenate([[0.0], values]))
    return np.asarray((sums[window:] - sums[:-window]) / window)


def window_ends_s(arrived_at_s: Floats, window: int = WINDOW) -> Floats:
    """Return when the last request of every window arrived, as `sliding_means` has them."""
    return arrived_at_s[window - 1 :]


def first_s(reached: NDArray[np.bool_], at_s: Floats) -> float:
    """Return the first time at which something holds; infinite where it never does.

    >>> first_s(np.array([False, True, False]), np.array([1.0, 2.0, 3.0])), first_s(np.array([False]), np.array([1.0]))
    (2.0, inf)
    """
    return float(at_s[reached.argmax()]) if reached.any() else float("inf")


def steady_ms(ttft_ms: Floats) -> float:
    """Return the mean of the last quarter.

    >>> steady_ms(np.array([9.0, 9.0, 9.0, 1.0]))
    1.0
    """
    return float(ttft_ms[len(ttft_ms) - len(ttft_ms) // 4 :].mean())


def regret(ttft_ms: Floats, other_ms: Floats, arrived_at_s: Floats) -> Regret:
    """Compare two policies on the same requests, one after the other.

    >>> regret(np.array([3000.0, 3000.0, 0.0]), np.array([1000.0, 1000.0, 5000.0]), np.array([0.0, 1.0, 2.0]))
    Regret(final_s=-1.0, peak_s=4.0, peak_at_s=1.0)
    """
    lost_s = np.cumsum(ttft_ms - other_ms) / 1e3
    peak = int(lost_s.argmax())
    return Regret(float(lost_s[-1]), max(0.0, float(lost_s[peak])), float(arrived_at_s[peak]))
