"""Statistics of replayed against measured latencies of the same requests."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp, spearmanr, wasserstein_distance

__all__ = ["mean_error", "quantile_error", "ttft_statistics"]

Floats = NDArray[np.float64]

_TTFT_GATES: Final = (
    "forced_ttft_ks",
    "forced_ttft_wasserstein_over_mean",
    "forced_ttft_mean_error",
    "forced_ttft_p50_error",
    "forced_ttft_p99_error",
    "forced_ttft_rank_correlation",
)


def ttft_statistics(replayed: Floats, truth: Floats) -> dict[str, float]:
    """Return the value of each gate on TTFT, over the requests that have one on both sides.

    Kolmogorov-Smirnov distance, Wasserstein distance over the mean, relative errors of mean, P50 and P99, and
    Spearman's rank correlation, request by request.
    """
    a, b = _both(replayed, truth)
    if not len(a):
        return dict.fromkeys(_TTFT_GATES, float("nan"))
    values = (
        float(ks_2samp(a, b, method="asymp").statistic),
        float(wasserstein_distance(a, b) / b.mean()),
        mean_error(a, b),
        quantile_error(a, b, 0.5),
        quantile_error(a, b, 0.99),
        _rank_correlation(a, b),
    )
    return dict(zip(_TTFT_GATES, values, strict=True))


def mean_error(replayed: Floats, truth: Floats) -> float:
    """Return the relative error of the mean, over the requests that have a value on both sides.

    >>> round(mean_error(np.array([1.1, 2.2, np.nan]), np.array([1.0, 2.0, 3.0])), 6)
    0.1
    """
    a, b = _both(replayed, truth)
    return float(a.mean() / b.mean() - 1) if len(a) and b.mean() > 0 else float("nan")


def quantile_error(replayed: Floats, truth: Floats, level: float) -> float:
    """Return the relative error of a quantile, over the requests that have a value on both sides.

    >>> round(quantile_error(np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0]), 0.5), 6)
    1.0
    """
    a, b = _both(replayed, truth)
    return float(np.quantile(a, level) / np.quantile(b, level) - 1) if len(a) and b.min() > 0 else float("nan")


def _both(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    there = np.isfinite(a) & np.isfinite(b)
    return a[there], b[there]


def _rank_correlation(replayed: Floats, truth: Floats) -> float:
    """Return Spearman's coefficient; NaN where one side never varies."""
    if np.ptp(replayed) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(spearmanr(replayed, truth).statistic)
