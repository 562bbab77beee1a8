"""TTFT and TPOT of a request on every candidate, as latency models predict them, before a policy decides."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit, jit_inner, jit_part
from lodestar.features.definitions import FEATURES, candidate_features
from lodestar.models.scorer import Scorer, score_in

__all__ = ["Desk", "predict", "predict_at"]

Floats = NDArray[np.float64]

_WIDTH: Final = len(FEATURES)


class Desk(NamedTuple):
    """Room to predict in, so that a decision allocates nothing.

    Attributes:
        features: of every instance, shape (m, len(FEATURES)).
        possible: leaves of each tree that are still possible, shape (trees,).
        column: one prediction an instance, shape (m,).
    """

    features: Floats
    possible: NDArray[np.uint64]
    column: Floats

    @classmethod
    def of(cls, instances: int, ttft: Scorer, tpot: Scorer) -> Desk:
        """Make it."""
        trees = max(len(ttft.leaf_start), len(tpot.leaf_start))
        return cls(np.empty((instances, _WIDTH)), np.empty(trees, dtype=np.uint64), np.empty(instances))


@jit_part
def predict_at(desk: Desk, prompt_tokens: float, snapshot: Floats, ttft: Scorer, tpot: Scorer, out_ms: Floats) -> None:
    """Fill `out_ms` (m, 2) with TTFT and TPOT; NaN where there is no model for one of them.

    Features and scores come from the functions that train and check the models, so that nothing is skewed between
    training, replay and serving.
    """
    candidate_features(prompt_tokens, snapshot, desk.features)
    _predict_one(desk, ttft, 0, out_ms)
    _predict_one(desk, tpot, 1, out_ms)


@jit_inner
def _predict_one(desk: Desk, scorer: Scorer, k: int, out_ms: Floats) -> None:
    there = len(scorer.leaf_start) > 0
    if there:
        score_in(desk.features, scorer, desk.possible, desk.column)
    for j in range(len(desk.column)):
        out_ms[j, k] = desk.column[j] if there else np.nan


@jit
def predict(desk: Desk, prompt_tokens: float, snapshot: Floats, ttft: Scorer, tpot: Scorer, out_ms: Floats) -> None:
    """Predict as `predict_at` does, called from Python."""
    predict_at(desk, prompt_tokens, snapshot, ttft, tpot, out_ms)
