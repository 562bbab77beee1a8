"""What the same recipe comes to with another seed, and with labels that mean nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.baseline import COUNTS, WORKS
from lodestar.models.fit import fit
from lodestar.models.metrics import mae_ms, r2
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows

__all__ = ["refitted", "shuffled"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SLOPES: Final = len(WORKS) + len(COUNTS)


def refitted(training: Rows, rows: Rows, target: str, parameters: Parameters, seeds: list[int]) -> dict[str, Any]:
    """Fit the mean again with each seed; return the MAE of each on the complete rows, and their spread."""
    rows = rows.only(~rows.censored)
    errors = [mae_ms(rows.latency_ms, _predicted(training, rows, target, parameters, seed)) for seed in seeds]
    return {
        "seeds": seeds,
        "mae_ms": errors,
        "mean_ms": float(np.mean(errors)),
        "spread_ms": float(np.std(errors, ddof=1)) if len(errors) > 1 else None,
    }


def shuffled(training: Rows, rows: Rows, target: str, parameters: Parameters, seeds: list[int]) -> dict[str, Any]:
    """Fit to training labels in random order: what it then knows of the rows judged has another source than them.

    It is told by R² of log latency with the level left out, 1 - var(log error) / var(log latency): 0 for any constant,
    wherever the two parts of the log differ in level. Little is left to know: the baseline's slopes may not be
    negative, so what noise makes of them points the right way. Least squares finds about k / n of the variance in n
    labels without meaning by k slopes; if all of it pointed the right way, R² would rise by up to 2 sqrt(k / n). More
    than that is a leak.

    Returns the mean over `seeds` of R² and of the MAE, that limit, and whether it is exceeded.
    """
    rows = rows.only(~rows.censored)
    found, errors = [], []
    for seed in seeds:
        mixed = _relabelled(training, np.random.default_rng(seed).permutation(len(training)))
        predicted_ms = _predicted(mixed, rows, target, parameters, seed)
        found.append(_explained(np.log(rows.latency_ms), np.log(predicted_ms)))
        errors.append(mae_ms(rows.latency_ms, predicted_ms))
    mean, limit = float(np.mean(found)), 2.0 * math.sqrt(SLOPES / len(training))
    return {
        "seeds": seeds,
        "r2_log": mean if math.isfinite(mean) else None,
        "limit_r2_log": limit,
        "mae_ms": float(np.mean(errors)),
        "leaks": bool(mean > limit),
    }


def _explained(measured: Floats, predicted: Floats) -> float:
    """Return the share of the variance explained, the level left out."""
    return r2(measured, predicted + (measured - predicted).mean())


def _relabelled(training: Rows, order: Ints) -> Rows:
    """Give every row the outcome of another one; when it arrived, and what was known then, stays."""
    return replace(training, latency_ms=training.latency_ms[order], censored=training.censored[order])


def _predicted(training: Rows, rows: Rows, target: str, parameters: Parameters, seed: int) -> Floats:
    return fit(training, target, parameters, seed, heads=False)[0].predict(rows.features)
