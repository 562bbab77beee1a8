"""How good predictions are: plain functions of measured and predicted milliseconds."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.slices import EDGES, SLICES

__all__ = ["LOAD_SLICES", "accuracy", "by_load", "coverage", "mae_ms", "mape", "pinball_ms", "r2", "r2_log"]

Floats = NDArray[np.float64]

#: Requests waiting at the chosen instance, from … to (exclusive); the slices of `lodestar.models.slices`.
LOAD_SLICES: Final = dict(zip(SLICES, zip((0.0, *EDGES), (*EDGES, np.inf), strict=True), strict=False))


def mae_ms(measured_ms: Floats, predicted_ms: Floats) -> float:
    """Mean absolute error.

    >>> mae_ms(np.array([100.0, 200.0]), np.array([110.0, 180.0]))
    15.0
    """
    return float(np.abs(measured_ms - predicted_ms).mean())


def mape(measured_ms: Floats, predicted_ms: Floats) -> float:
    """Mean absolute error as a share of the measured latency.

    >>> mape(np.array([100.0, 200.0]), np.array([110.0, 180.0]))
    0.1
    """
    return float((np.abs(measured_ms - predicted_ms) / measured_ms).mean())


def r2(measured_ms: Floats, predicted_ms: Floats) -> float:
    """Share of the variance explained; below 0 is worse than the mean. NaN where nothing varies.

    >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    0.5
    """
    spread = float(((measured_ms - measured_ms.mean()) ** 2).sum())
    return 1.0 - float(((measured_ms - predicted_ms) ** 2).sum()) / spread if spread > 0 else float("nan")


def r2_log(measured_ms: Floats, predicted_ms: Floats) -> float:
    """R² of the logarithms: short and long latencies count alike.

    >>> r2_log(np.array([1.0, 10.0, 100.0]), np.array([1.0, 10.0, 100.0]))
    1.0
    """
    return r2(np.log(measured_ms), np.log(predicted_ms))


def pinball_ms(measured_ms: Floats, predicted_ms: Floats, share: float) -> float:
    """Quantile loss: an underestimate costs `share`, an overestimate 1 - `share`, per ms.

    >>> round(pinball_ms(np.array([1.0]), np.array([2.0]), 0.9), 3)
    0.1
    """
    over = measured_ms - predicted_ms
    return float(np.maximum(share * over, (share - 1.0) * over).mean())


def coverage(measured_ms: Floats, predicted_ms: Floats) -> float:
    """Share of the measured latencies at or below the prediction: 0.9 for a perfect P90.

    >>> coverage(np.array([1.0, 2.0, 3.0, 4.0]), np.full(4, 3.0))
    0.75
    """
    return float((measured_ms <= predicted_ms).mean())


def accuracy(measured_ms: Floats, predicted_ms: Floats) -> dict[str, float]:
    """Collect the point metrics; 'bias_ms' is predicted minus measured.

    >>> accuracy(np.array([100.0, 200.0]), np.array([110.0, 180.0]))["bias_ms"]
    -5.0
    """
    return {
        "mae_ms": mae_ms(measured_ms, predicted_ms),
        "mape": mape(measured_ms, predicted_ms),
        "r2": r2(measured_ms, predicted_ms),
        "r2_log": r2_log(measured_ms, predicted_ms),
        "bias_ms": float((predicted_ms - measured_ms).mean()),
    }


def by_load(measured_ms: Floats, predictions: dict[str, Floats], waiting_requests: Floats) -> list[dict[str, Any]]:
    """Tabulate the point metrics of each predictor where 0, 1-2, 3-5 and 6 or more requests were waiting.

    Rows without a count (NaN) are in none of the slices; a slice without rows is left out.

    >>> table = by_load(np.array([100.0, 200.0]), {"model": np.array([110.0, 180.0])}, np.array([0.0, 4.0]))
    >>> [(line["waiting_requests"], line["rows"], line["mae_ms"]) for line in table]
    [('0', 1, 10.0), ('3-5', 1, 20.0)]
    """
    table: list[dict[str, Any]] = []
    for name, (low, high) in LOAD_SLICES.items():
        inside = (waiting_requests >= low) & (waiting_requests < high)
        for predictor, predicted_ms in predictions.items() if inside.any() else ():
            line = {"waiting_requests": name, "predictor": predictor, "rows": int(inside.sum())}
            table.append(line | accuracy(measured_ms[inside], predicted_ms[inside]))
    return table
