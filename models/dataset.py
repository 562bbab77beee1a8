"""What training reads from the store: labelled rows of each target, and the identity of what was read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lodestar.data.errors import DataError
from lodestar.data.log import Floats, RequestLog
from lodestar.data.reconstruction.latencies import has_no_times
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.store import dataset_fingerprint, load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.latency import TARGETS
from lodestar.models.rows import Rows, derived_notes, rows_of

__all__ = ["TrainingData", "continues", "ids_sha256", "load_training_data"]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A dataset as training sees it.

    Attributes:
        dataset: its name.
        fingerprint: of its sources.
        request_ids: of all requests, in dispatch order.
        rows: target → labelled rows, for the targets that have any.
        skipped: target → why it has none.
        notes: what was inferred, in words.
    """

    dataset: str
    fingerprint: str
    request_ids: list[str]
    rows: dict[str, Rows]
    skipped: dict[str, str]
    notes: dict[str, str]


def load_training_data(workspace: Workspace, dataset: str, targets: Sequence[str] = TARGETS) -> TrainingData:
    """Read a dataset and compute the features of its decisions; fails if no target has a labelled row."""
    with open_store(workspace) as con:
        log, fingerprint = load_log(con, dataset), dataset_fingerprint(con, dataset)
    snapshot, arrived_at_s, inferred = _completed(log)
    features = chosen_features(log, decision_features(log, snapshot))
    notes = {**inferred, **derived_notes(log)}
    rows: dict[str, Rows] = {}
    skipped: dict[str, str] = {}
    for target in targets:
        try:
            rows[target] = rows_of(log, features, arrived_at_s, target)
        except DataError as error:
            skipped[target] = str(error)
    if not rows:
        raise DataError(next(iter(skipped.values())))
    return TrainingData(dataset, fingerprint, log.request_id, rows, skipped, notes)


def _completed(log: RequestLog) -> tuple[dict[str, Floats], Floats, dict[str, str]]:
    """Return the snapshots, the arrivals, and what of them was inferred."""
    if has_no_times(log):
        told = (
            "neither they nor the times of finish are logged: each request counts as finished before the next one came"
        )
        return log.snapshot, np.arange(len(log), dtype=np.float64), {"arrivals": told}
    workload = workload_of(log)
    snapshot, completed = complete_snapshot(log, workload)
    return snapshot, workload.arrived_at_s, {**workload.inferred, **{k: str(found) for k, found in completed.items()}}


def continues(data: TrainingData, record: dict[str, Any]) -> bool:
    """Say whether the dataset begins with the very requests that the model of this record has seen."""
    return bool(ids_sha256(data.request_ids[: record["requests_seen"]]) == record["seen_sha256"])


def ids_sha256(request_ids: Sequence[str]) -> str:
    """Name a sequence of requests.

    >>> ids_sha256(["0", "1"])[:8]
    '1e9987e9'
    """
    return hashlib.sha256("\n".join(request_ids).encode()).hexdigest()
