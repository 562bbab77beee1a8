"""Two models side by side on the same rows: every metric, and its difference with a paired interval."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.models.evaluation.parts import covered_parts, estimate, pinball_parts, point_parts
from lodestar.models.evaluation.ranking import Choices, rank_parts
from lodestar.models.latency import QUANTILES
from lodestar.models.rows import Rows

__all__ = ["differences"]

Floats = NDArray[np.float64]
#: Metrics of which more is better; those of neither list (bias, coverage) are best at a value of their own.
MORE = ("r2", "r2_log", "rank_correlation", "cost_correlation")
LESS = ("mae_ms", "mape", "snips")


def differences(
    rows: Rows,
    predicted_ms: tuple[Floats, Floats],
    stated_ms: tuple[Floats | None, Floats | None],
    choices: Choices,
    candidates_ms: tuple[Floats, Floats],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return each metric of both models on the complete rows, and first minus second with its 95 % interval.

    A metric that the rows do not tell of both models is left out.

    Args:
        rows: in time order.
        predicted_ms: by each model, shape (n,).
        stated_ms: quantiles by each model, shape (n, 3); None where a model has none.
        choices: the decisions of these rows.
        candidates_ms: predicted by each model for every candidate, shape (decisions, m).
        seed: of the intervals.
    """
    complete = ~rows.censored
    measured_ms = rows.latency_ms[complete]
    point = [point_parts(measured_ms, each[complete]) for each in predicted_ms]
    first, second = (_quantile_parts(measured_ms, each, complete) for each in stated_ms)
    ranked = [rank_parts(choices, each) for each in candidates_ms]
    pairs = [
        *((name, point[0][name], point[1][name]) for name in point[0]),
        *((name, first[name], second[name]) for name in first if name in second),
        *((name, ranked[0][name], ranked[1][name]) for name in ranked[0]),
    ]
    found = [_difference(name, ours, theirs, seed) for name, ours, theirs in pairs]
    return [line for line in found if line["difference"]["value"] is not None]


def _quantile_parts(measured_ms: Floats, stated_ms: Floats | None, complete: NDArray[np.bool_]) -> dict[str, Floats]:
    if stated_ms is None:
        return {}
    found = {}
    for column, (name, share) in enumerate(QUANTILES.items()):
        stated = stated_ms[complete, column]
        found[f"{name}.pinball_ms"] = pinball_parts(measured_ms, stated, share)
        found[f"{name}.coverage"] = covered_parts(measured_ms, stated)
    return found


def _difference(name: str, first: Floats, second: Floats, seed: int) -> dict[str, Any]:
    difference = estimate(first - second, seed)
    return {
        "metric": name,
        "model": float(first.mean()),
        "against": float(second.mean()),
        "difference": difference,
        "better": _better(name, difference["low"], difference["high"]),
    }


def _better(name: str, low: float | None, high: float | None) -> str | None:
    """Return 'model' or 'against' where the interval leaves no doubt, 'neither' where it does; None without a sense."""
    if name.endswith("pinball_ms") or name in LESS:
        sense = -1.0
    elif name in MORE:
        sense = 1.0
    else:
        return None
    if low is None or high is None or low <= 0.0 <= high:
        return "neither"
    return "model" if sense * low > 0 else "against"
