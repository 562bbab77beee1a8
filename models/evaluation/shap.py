"""How each feature moves the trees' answer: exact SHAP values (Lundberg et al. 2020), as LightGBM computes them.

They are in units of log(latency / baseline) and tell of the trees alone: the baseline, which carries much of the
prediction, is no tree and has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.evaluation.spearman import spearman
from lodestar.models.latency import LatencyModel

__all__ = ["ShapPoints", "shap_points", "shap_table"]

Floats = NDArray[np.float64]

MOST_ROWS: Final = 1000  # evenly spaced


@dataclass(frozen=True, slots=True)
class ShapPoints:
    """Contributions of features to the trees' answer for some rows.

    Attributes:
        names: of the trees' inputs, length k.
        values: of the features, shape (n, k).
        contributions: to log(latency / baseline), shape (n, k).
    """

    names: tuple[str, ...]
    values: Floats
    contributions: Floats


def shap_points(model: LatencyModel, features: Floats) -> ShapPoints:
    """Return the contributions for evenly spaced rows of `features` (n, len(FEATURE_NAMES))."""
    at = np.linspace(0, len(features) - 1, min(len(features), MOST_ROWS)).astype(np.int64)
    inputs = features[at][:, [FEATURE_NAMES.index(name) for name in model.features]]
    found = np.asarray(model.booster.predict(inputs, pred_contrib=True, num_threads=1))
    return ShapPoints(model.features, inputs, found[:, :-1])  # the last column is the mean answer


def shap_table(points: ShapPoints) -> list[dict[str, Any]]:
    """Return the mean absolute contribution of each feature and its direction, the largest first.

    'direction' is the rank correlation of value and contribution: 1 where more of it means slower.
    """
    table = []
    for name, values, parts in zip(points.names, points.values.T, points.contributions.T, strict=True):
        known = ~np.isnan(values)
        direction = spearman(values[known], parts[known])
        table.append(
            {
                "feature": name,
                "mean_abs": float(np.abs(parts).mean()),
                "direction": direction if np.isfinite(direction) else None,
            }
        )
    return sorted(table, key=lambda each: -each["mean_abs"])
