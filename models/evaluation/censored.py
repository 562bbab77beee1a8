"""Coverage where some latencies are only lower bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.models.evaluation.parts import Estimate, covered_parts, estimate
from lodestar.models.uncertainty.censoring import kaplan_meier

__all__ = ["coverage", "coverage_bounds", "kaplan_meier_coverage"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def coverage(measured_ms: Floats, predicted_ms: Floats, censored: Bools, seed: int = 0) -> dict[str, Any]:
    """Return the share of latencies at or below the prediction with its interval.

    Without censored rows it is a plain share. With them it is the Kaplan-Meier estimate, which takes it that requests
    were cut off without regard to what they would have come to, in units of their prediction; 'least' and 'most' hold
    whatever they would have come to. The interval is that of the plain share on the complete rows, moved along.
    """
    plain = estimate(covered_parts(measured_ms[~censored], predicted_ms[~censored]), seed)
    if not censored.any():
        return plain
    if censored.all():
        return {**plain, "least": 0.0, "most": float((measured_ms <= predicted_ms).mean())}
    value = kaplan_meier_coverage(measured_ms, predicted_ms, censored)
    least, most = coverage_bounds(measured_ms, predicted_ms, censored)
    return {**_moved(plain, value), "least": least, "most": most}


def kaplan_meier_coverage(measured_ms: Floats, predicted_ms: Floats, censored: Bools) -> float:
    """Return 1 - S(1), with S the survival function of measured / predicted (Kaplan and Meier 1958).

    NaN where all were cut off.

    >>> measured, predicted = np.array([50.0, 80.0, 90.0, 150.0]), np.full(4, 100.0)
    >>> kaplan_meier_coverage(measured, predicted, np.array([False, True, False, False]))
    0.625
    """
    if censored.all():
        return float("nan")
    return float(1.0 - kaplan_meier(measured_ms / predicted_ms, censored).at(np.array([1.0]))[0])


def coverage_bounds(measured_ms: Floats, predicted_ms: Floats, censored: Bools) -> tuple[float, float]:
    """Return the coverage if no request that was cut off below its prediction had stayed below it, and if all had.

    >>> measured, predicted = np.array([50.0, 80.0, 90.0, 150.0]), np.full(4, 100.0)
    >>> coverage_bounds(measured, predicted, np.array([False, True, False, True]))
    (0.5, 0.75)
    """
    below = measured_ms <= predicted_ms
    return float((below & ~censored).mean()), float(below.mean())


def _moved(plain: Estimate, value: float) -> Estimate:
    """Move an estimate with its interval to another value, within 0 and 1."""
    old = plain["value"]
    ends = {name: plain[name] for name in ("low", "high")}
    by = 0.0 if old is None else value - old
    return {"value": value} | {
        name: None if end is None else float(np.clip(end + by, 0.0, 1.0)) for name, end in ends.items()
    }
