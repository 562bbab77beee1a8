"""Predictions for every candidate by models that have not seen the request."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows

__all__ = ["cross_fit"]

Floats = NDArray[np.float64]

FOLDS: Final = 4


def cross_fit(rows: Rows, features: Floats, target: str, seed: int) -> Floats:
    """Return ms for every candidate of every request, shape (n, m), from `features` (n, m, k).

    The requests are cut into blocks of time with as many labelled rows each, never shuffled, and each block is
    predicted by a model of the others: neighbours in time share a queue, and a shuffled fold would tell a model what
    its neighbours went through.
    """
    n, m, k = features.shape
    cuts = rows.request_index[np.arange(1, FOLDS) * len(rows) // FOLDS]
    fold = np.searchsorted(cuts, np.arange(n), side="right")
    predicted = np.empty((n, m))
    for block in range(FOLDS):
        model, _ = fit(rows.only(fold[rows.request_index] != block), target, Parameters(), seed, heads=False)
        inside = fold == block
        predicted[inside] = model.predict(features[inside].reshape(-1, k)).reshape(-1, m)
    return predicted
