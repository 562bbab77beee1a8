"""Predictions beside what another arm of the same traffic measured."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.pipeline.replay.calibrate import known_choices
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.summary import distribution

__all__ = ["measured_rows"]

#: Less than this in common is other traffic.
FEWEST_COMMON: Final = 0.5


def measured_rows(
    log: RequestLog, other: RequestLog, cluster: Cluster, outcomes: dict[str, list[Outcome]], seeds: range
) -> list[dict[str, Any]]:
    """Compare every replayed policy, and the other arm's own choices replayed, with the other arm's TTFT.

    Both sides are the requests, joined by request id, whose TTFT the other arm measured. Only the policy that ran in
    the other arm should agree; the log does not name it, so all are shown. Errors are predicted / measured - 1.
    """
    row = _rows_in(log, other)
    known = (row >= 0) & (other.ttft_ms[row] > 0)
    if known.mean() < FEWEST_COMMON:
        raise DataError(
            f"--measured {other.dataset}: {known.sum()} of the {len(log)} requests of {log.dataset} have a TTFT in it; "
            f"expected at least {FEWEST_COMMON:.0%}, joined by request id. Name a log of the same traffic"
        )
    measured = distribution(other.ttft_ms[row][known])
    predicted = {name: [run.ttft_ms[known] for run in runs] for name, runs in outcomes.items()}
    if len(other.instances) == len(cluster.engines):
        # A request that the other arm lacks, or did not decide, goes where this log sent it.
        chosen = np.where(row >= 0, other.chosen[row], -1)
        forced = np.where(chosen >= 0, chosen, known_choices(log))
        replayed = [cluster.replay(forced=forced, seed=seed).ttft_ms[known] for seed in seeds]
        predicted[f"choices of {other.dataset}"] = replayed
    return [_row(name, other.dataset, distribution(np.concatenate(runs)), measured) for name, runs in predicted.items()]


def _row(policy: str, dataset: str, predicted: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    return {
        "policy": policy,
        "measured_dataset": dataset,
        "ttft_ms": measured,
        "predicted_ttft_ms": predicted,
        "error_mean": predicted["mean"] / measured["mean"] - 1,
        "error_p99": predicted["p99"] / measured["p99"] - 1,
    }


def _rows_in(log: RequestLog, other: RequestLog) -> NDArray[np.int64]:
    """Return, for each request of `log`, its row in `other`, or -1."""
    place = {request: row for row, request in enumerate(other.request_id)}
    return np.array([place.get(request, -1) for request in log.request_id], dtype=np.int64)
