"""What trees are grown on: log(latency / baseline) of each row, with lower bounds made into expectations."""

from __future__ import annotations

from dataclasses import replace

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import Baseline
from lodestar.models.latency import LatencyModel
from lodestar.models.objectives import row_weights
from lodestar.models.parameters import Parameters
from lodestar.models.robust import mean_ratio
from lodestar.models.rows import Rows
from lodestar.models.slices import load_slice
from lodestar.models.uncertainty.censoring import Imputed, impute

__all__ = ["inputs", "labelled", "right_in_the_mean", "seen_by"]

Floats = NDArray[np.float64]


def labelled(rows: Rows, log_latency: Floats, baseline: Baseline, parameters: Parameters) -> lgb.Dataset:
    """Return the rows as LightGBM takes them.

    The baseline is in the label, not in `init_score`: `init_model` would override that.
    """
    physical = baseline.predict(rows.features)
    return lgb.Dataset(
        inputs(rows.features, parameters.features),
        log_latency - np.log(physical),
        weight=row_weights(parameters.objective, rows, physical),
        feature_name=list(parameters.features),
        params={"feature_pre_filter": False},  # the heads want larger leaves than the mean, of the same data
    )


def inputs(features: Floats, names: tuple[str, ...]) -> Floats:
    """Return the columns of `features` (n, len(FEATURE_NAMES)) that trees see, shape (n, len(names))."""
    chosen: Floats = features[:, [FEATURE_NAMES.index(name) for name in names]]
    return chosen


def seen_by(model: LatencyModel, rows: Rows, seed: int) -> Imputed:
    """Return log(latency) of rows that are new to a model; what it predicts tells what lies beyond a lower bound."""
    predicted = np.log(model.predict(rows.features))
    return impute(np.log(rows.latency_ms), rows.censored, load_slice(rows.features), lambda _: predicted, seed, steps=1)


def right_in_the_mean(model: LatencyModel, features: Floats, labels: Imputed) -> LatencyModel:
    """Return the model with the `mean_ratio` that makes it right in the mean of these rows, all but stalls."""
    plain = replace(model, mean_ratio=1.0)
    return replace(model, mean_ratio=mean_ratio(np.exp(labels.drawn), plain.predict(features)))
