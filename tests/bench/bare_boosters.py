"""The boosters of a fit by bare LightGBM: what nobody could do with less."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import fit_baseline
from lodestar.models.latency import QUANTILES
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.uncertainty.heads import HEADS, LEAF_TAIL_ROWS, ROUNDS, SHAPE

__all__ = ["bare", "matrix_of"]


def matrix_of(rows: Rows, parameters: Parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrix, labels and weights that the boosters of a fit are grown on."""
    physical = fit_baseline(rows.features, rows.latency_ms).predict(rows.features)
    columns = [FEATURE_NAMES.index(name) for name in parameters.features]
    return rows.features[:, columns], np.log(rows.latency_ms / physical), physical / physical.mean()


def bare(matrix: np.ndarray, label: np.ndarray, weight: np.ndarray, parameters: Parameters) -> None:
    """Grow the trees of the mean and each quantile head, on one binned data set."""
    data = lgb.Dataset(matrix, label, weight=weight, params={"feature_pre_filter": False})
    lgb.train(parameters.mean(0), data, parameters.rounds)
    for name in HEADS:
        share = QUANTILES[name]
        own = {
            **SHAPE,
            "objective": "quantile",
            "alpha": share,
            "min_data_in_leaf": round(LEAF_TAIL_ROWS / (1 - share)),
        }
        lgb.train({**parameters.lightgbm(0), **own}, data, ROUNDS)
