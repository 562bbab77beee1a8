"""A model on rows that it has not seen, beside a constant and linear regression."""

from __future__ import annotations

from typing import Any

from lodestar.data.schema import WAITING_REQUESTS
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.latency import QUANTILES, LatencyModel
from lodestar.models.metrics import accuracy, by_load, coverage, pinball_ms
from lodestar.models.rivals import constant_rival, linear_rival
from lodestar.models.rows import Rows

__all__ = ["evaluate"]


def evaluate(model: LatencyModel, training: Rows, held_out: Rows) -> dict[str, Any]:
    """Measure on `held_out`, ready for JSON; the rivals learn from `training`, which the model learned from too."""
    measured_ms = held_out.latency_ms
    predictions = {
        "model": model.predict(held_out.features),
        "constant": constant_rival(training, held_out.features),
        "linear": linear_rival(training, held_out.features),
    }
    waiting_requests = held_out.features[:, FEATURE_NAMES.index(WAITING_REQUESTS)]
    quantiles = {}
    for name, share in QUANTILES.items():
        predicted_ms = model.predict_quantile(held_out.features, name)
        quantiles[name] = {
            "pinball_ms": pinball_ms(measured_ms, predicted_ms, share),
            "coverage": coverage(measured_ms, predicted_ms),
        }
    report = {
        "rows_trained": len(training),
        "rows_held_out": len(held_out),
        **{name: accuracy(measured_ms, predicted_ms) for name, predicted_ms in predictions.items()},
        "quantiles": quantiles,
        "by_load": by_load(measured_ms, predictions, waiting_requests),
    }
    ready: dict[str, Any] = _without_nan(report)
    return ready


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON lacks, by None: R² of a slice where nothing varies."""
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if value != value else value
