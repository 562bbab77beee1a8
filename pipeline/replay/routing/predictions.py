"""TTFT and TPOT of a request on every candidate, as latency models predict them, before a policy decides."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit
from lodestar.features.definitions import FEATURES, candidate_features
from lodestar.models.scorer import Scorer, score

__all__ = ["predict"]

Floats = NDArray[np.float64]

_WIDTH: Final = len(FEATURES)


@jit
def predict(prompt_tokens: float, snapshot: Floats, ttft: Scorer, tpot: Scorer, out_ms: Floats) -> None:
    """Fill `out_ms` (m, 2) with TTFT and TPOT; NaN where there is no model for one of them.

    Features and scores come from the functions that train and check the models, so that nothing is skewed between
    training, replay and serving.
    """
    features = np.empty((snapshot.shape[0], _WIDTH))
    column = np.empty(snapshot.shape[0])
    candidate_features(prompt_tokens, snapshot, features)
    for k, scorer in enumerate((ttft, tpot)):
        if len(scorer.leaf_start) > 0:
            score(features, scorer, column)
            out_ms[:, k] = column
        else:
            out_ms[:, k] = np.nan
