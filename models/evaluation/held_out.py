"""A model on rows that it has not seen, beside a constant and linear regression: the short version, for every fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.models.evaluation.censored import kaplan_meier_coverage
from lodestar.models.evaluation.parts import POINT_METRICS
from lodestar.models.latency import QUANTILES, LatencyModel
from lodestar.models.metrics import accuracy, by_load, coverage, pinball_ms
from lodestar.models.rivals import constant_rival, linear_rival
from lodestar.models.rows import Rows
from lodestar.models.slices import queue_of

__all__ = ["evaluate"]

Floats = NDArray[np.float64]


def evaluate(model: LatencyModel, training: Rows, held_out: Rows, stated_ms: Floats | None = None) -> dict[str, Any]:
    """Measure on `held_out`, ready for JSON; the rivals learn from `training`, which the model learned from too.

    Requests that were cut off count in the coverage (Kaplan-Meier) and not in the errors. Where all were, the errors
    are None.

    Args:
        model: to measure.
        training: what it learned from.
        held_out: what it did not, in time order.
        stated_ms: quantiles as they were stated at each decision, shape (n, 3); None for those of the model as it is.
    """
    if stated_ms is None and model.heads:
        stated_ms = model.predict_quantiles(held_out.features)
    complete = held_out.only(~held_out.censored)
    predictions = {
        "model": model.predict(complete.features),
        "constant": constant_rival(training, complete.features),
        "linear": linear_rival(training, complete.features),
    }
    report = {
        "rows_trained": len(training),
        "rows_held_out": len(held_out),
        "rows_censored": len(held_out) - len(complete),
        **{name: _accuracy(complete.latency_ms, predicted_ms) for name, predicted_ms in predictions.items()},
        "quantiles": {} if stated_ms is None else _quantiles(held_out, stated_ms),
        "by_load": by_load(complete.latency_ms, predictions, queue_of(complete.features)),
    }
    ready: dict[str, Any] = _for_json(report)
    return ready


def _accuracy(measured_ms: Floats, predicted_ms: Floats) -> dict[str, float | None]:
    if not len(measured_ms):
        return dict.fromkeys(POINT_METRICS)
    return {**accuracy(measured_ms, predicted_ms)}


def _quantiles(rows: Rows, stated_ms: Floats) -> dict[str, dict[str, float | None]]:
    complete = ~rows.censored
    found: dict[str, dict[str, float | None]] = {}
    for (name, share), column_ms in zip(QUANTILES.items(), stated_ms.T, strict=True):
        covered = coverage(rows.latency_ms, column_ms)
        if rows.censored.any():
            covered = kaplan_meier_coverage(rows.latency_ms, column_ms, rows.censored)
        loss_ms = pinball_ms(rows.latency_ms[complete], column_ms[complete], share) if complete.any() else None
        found[name] = {"pinball_ms": loss_ms, "coverage": covered}
    return found


def _for_json(value: Any) -> Any:
    """Replace what JSON lacks by None: NaN, as R² where nothing varies, and the loss of a quantile without bound."""
    if isinstance(value, dict):
        return {name: _for_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_for_json(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
