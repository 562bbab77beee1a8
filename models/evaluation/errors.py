"""How far predictions are off: over all rows, by slice, by decile of the prediction and near saturation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.evaluation.censored import coverage
from lodestar.models.evaluation.parts import estimate, pinball_parts, point_parts
from lodestar.models.evaluation.slicing import Slice
from lodestar.models.latency import QUANTILES
from lodestar.models.rows import Rows
from lodestar.models.slices import SLICES, load_slice, queue_of

__all__ = ["point_scores", "quantile_scores", "reliability", "saturation", "slice_scores"]

Floats = NDArray[np.float64]

DECILES: Final = 10
LONGEST_QUEUES: Final = 0.9  # quantile of the queue from which on rows count as the longest tenth


def point_scores(rows: Rows, predicted_ms: Floats, seed: int = 0) -> dict[str, Any]:
    """Return each point metric with its interval, on the rows that are complete."""
    complete = ~rows.censored
    parts = point_parts(rows.latency_ms[complete], predicted_ms[complete])
    return {name: estimate(part, seed) for name, part in parts.items()}


def quantile_scores(rows: Rows, stated_ms: Floats, frozen_ms: Floats | None, seed: int = 0) -> dict[str, Any]:
    """Return pinball loss (complete rows) and coverage (all rows) of each quantile.

    Args:
        rows: in time order.
        stated_ms: what the model states at each decision while it follows its own errors, shape (n, 3).
        frozen_ms: what it states without following them, shape (n, 3); None where that means nothing.
        seed: of the intervals.
    """
    complete = ~rows.censored
    found = {}
    for column, (name, share) in enumerate(QUANTILES.items()):
        stated, frozen = stated_ms[:, column], None if frozen_ms is None else frozen_ms[:, column]
        found[name] = {
            "share": share,
            "pinball_ms": estimate(pinball_parts(rows.latency_ms[complete], stated[complete], share), seed),
            "coverage": coverage(rows.latency_ms, stated, rows.censored, seed),
            "frozen_coverage": None if frozen is None else coverage(rows.latency_ms, frozen, rows.censored, seed),
        }
    return found


def slice_scores(
    rows: Rows, slices: Sequence[Slice], predicted_ms: Floats, p90_ms: Floats | None, seed: int = 0
) -> list[dict[str, Any]]:
    """Return rows, MAE, bias and P90 coverage of each slice."""
    table = []
    for each in slices:
        inside = rows.only(each.rows)
        complete, predicted = ~inside.censored, predicted_ms[each.rows]
        parts = point_parts(inside.latency_ms[complete], predicted[complete]) if complete.any() else {}
        covered = None if p90_ms is None else coverage(inside.latency_ms, p90_ms[each.rows], inside.censored, seed)
        table.append(
            {
                "by": each.by,
                "slice": each.name,
                "rows": len(inside),
                "censored": int(inside.censored.sum()),
                "mae_ms": estimate(parts.get("mae_ms", np.empty(0)), seed),
                "bias_ms": estimate(parts.get("bias_ms", np.empty(0)), seed),
                "p90_coverage": covered,
            }
        )
    return table


def reliability(rows: Rows, predicted_ms: Floats, seed: int = 0) -> list[dict[str, Any]]:
    """Return the mean prediction and the mean measured latency of each tenth of the rows by prediction."""
    complete = ~rows.censored
    measured, predicted = rows.latency_ms[complete], predicted_ms[complete]
    tenth = (np.argsort(np.argsort(predicted, kind="stable"), kind="stable") * DECILES) // max(len(predicted), 1)
    return [
        {
            "decile": number + 1,
            "rows": int((tenth == number).sum()),
            "predicted_ms": float(predicted[tenth == number].mean()),
            "measured_ms": estimate(measured[tenth == number], seed),
        }
        for number in range(DECILES)
        if (tenth == number).any()
    ]


def saturation(rows: Rows, predicted_ms: Floats, seed: int = 0) -> list[dict[str, Any]]:
    """Return the signed error where the load is high: below 0 the model is optimistic just where routing matters most.

    A request that was cut off counts here with the time until then, which can only make the model look less
    optimistic than it is; leaving the slowest requests out would flatter it more.
    """
    queue = queue_of(rows.features)
    known = ~np.isnan(queue)
    longest = known & (queue >= (np.quantile(queue[known], LONGEST_QUEUES) if known.any() else np.inf))
    most = SLICES.index("6+")
    places = {"6 or more waiting": load_slice(rows.features) == most, "longest tenth of queues": longest & (queue > 0)}
    found: list[dict[str, Any]] = []
    told: list[NDArray[np.bool_]] = []
    for name, inside in places.items():
        if not inside.any() or any(np.array_equal(inside, other) for other in told):
            continue
        told.append(inside)
        error_ms = predicted_ms[inside] - rows.latency_ms[inside]
        bias = estimate(error_ms, seed)
        measured_ms = float(rows.latency_ms[inside].mean())
        found.append(
            {
                "where": name,
                "from_requests": float(queue[inside].min()),
                "rows": int(inside.sum()),
                "censored": int(rows.censored[inside].sum()),
                "measured_ms": measured_ms,
                "bias_ms": bias,
                "bias_ratio": float(error_ms.mean()) / measured_ms,
            }
        )
    return found
