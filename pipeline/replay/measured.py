"""Predictions beside what another arm of the same traffic measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.summary import distribution

__all__ = ["measured_rows"]


def measured_rows(
    log: RequestLog, other: RequestLog, cluster: Cluster, outcomes: dict[str, list[Outcome]], seeds: range
) -> list[dict[str, Any]]:
    """Compare every replayed policy, and the other arm's own choices replayed, with the other arm's TTFT.

    Only the policy that ran in the other arm should agree; the log does not name it, so all are shown.
    Errors are relative: predicted / measured - 1.
    """
    known = other.ttft_ms > 0
    if not known.any():
        raise DataError(f"--measured {other.dataset}: no TTFT in it; expected a dataset with outcomes")
    measured = distribution(other.ttft_ms[known])
    predicted = {name: np.concatenate([run.ttft_ms for run in runs]) for name, runs in outcomes.items()}
    forced = _choices_of(log, other)
    if forced is not None and len(other.instances) == len(cluster.engines):
        replayed = [cluster.replay(forced=forced, seed=seed).ttft_ms for seed in seeds]
        predicted[f"choices of {other.dataset}"] = np.concatenate(replayed)
    rows = []
    for name, values in predicted.items():
        summary = distribution(values)
        rows.append(
            {
                "policy": name,
                "measured_dataset": other.dataset,
                "ttft_ms": measured,
                "predicted_ttft_ms": summary,
                "error_mean": summary["mean"] / measured["mean"] - 1,
                "error_p99": summary["p99"] / measured["p99"] - 1,
            }
        )
    return rows


def _choices_of(log: RequestLog, other: RequestLog) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """Return the other arm's choice for each request of this one, joined by request id; None if few are there."""
    choice = dict(zip(other.request_id, other.chosen.tolist(), strict=True))
    forced = np.array([choice.get(request, -1) for request in log.request_id], dtype=np.int64)
    missing = forced < 0
    if missing.mean() > 0.05:
        return None
    # The few that the other arm lacks go where this arm sent them.
    return np.where(missing, log.chosen, forced)
