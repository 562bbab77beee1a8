"""The two predictors that every model is shown beside: a constant, and linear regression.

A request that was cut off teaches them the time until then: it took at least that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar.models.rows import Rows

__all__ = ["constant_rival", "linear_rival"]

Floats = NDArray[np.float64]


def constant_rival(training: Rows, features: Floats) -> Floats:
    """Predict the median latency of the training rows: of all constants, the one with the least absolute error."""
    return np.full(len(features), float(np.median(training.latency_ms)))


def linear_rival(training: Rows, features: Floats) -> Floats:
    """Predict by ordinary least squares in ms on all features that the training rows have.

    It gets the same features as the model, and two kindnesses without which it would predict nonsense: a missing value
    counts as the feature's training mean, and no prediction is below the shortest training latency.
    """
    known = ~np.isnan(training.features).all(axis=0)
    means = np.nanmean(training.features[:, known], axis=0)
    coefficients = np.linalg.lstsq(_design(training.features[:, known], means), training.latency_ms, rcond=None)[0]
    predicted: Floats = _design(features[:, known], means) @ coefficients
    floored: Floats = np.maximum(predicted, training.latency_ms.min())
    return floored


def _design(features: Floats, means: Floats) -> Floats:
    filled = np.where(np.isnan(features), means, features)
    return np.column_stack([np.ones(len(filled)), filled])
