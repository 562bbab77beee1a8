"""The features of every decision of a log."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit
from lodestar.data.log import RequestLog
from lodestar.data.schema import SNAPSHOT_FIELDS
from lodestar.features.definitions import FEATURES, candidate_features

__all__ = ["chosen_features", "decision_features"]

Floats = NDArray[np.float64]


@jit
def _fill(prompt_tokens: Floats, snapshots: Floats, out: Floats) -> None:
    for i in range(snapshots.shape[0]):
        candidate_features(prompt_tokens[i], snapshots[i], out[i])


def decision_features(log: RequestLog, snapshot: dict[str, Floats]) -> Floats:
    """Return the features of every candidate of every request, shape (n, m, len(FEATURES)).

    The snapshot of an instance that was not a candidate counts as missing, and so does a prompt length of 0.
    """
    stacked = np.stack([snapshot[name] for name in SNAPSHOT_FIELDS], axis=-1)
    stacked[~log.candidate] = np.nan
    prompt_tokens = np.where(log.prompt_tokens > 0, log.prompt_tokens, np.nan).astype(np.float64)
    out = np.empty((*stacked.shape[:2], len(FEATURES)))
    _fill(prompt_tokens, np.ascontiguousarray(stacked, dtype=np.float64), out)
    return out


def chosen_features(log: RequestLog, features: Floats) -> Floats:
    """Return the feature row of the chosen candidate, shape (n, k); NaN where the log has no decision."""
    if not log.instances:
        return np.full((len(log), features.shape[2]), np.nan)
    rows = features[np.arange(len(log)), log.chosen]
    rows[log.chosen < 0] = np.nan
    return rows
