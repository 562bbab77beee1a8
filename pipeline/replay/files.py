"""What a replay leaves in the workspace: one document, and the frames that a report draws."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lodestar.data import schema
from lodestar.data.log import Floats, Workload
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.cluster import Outcome
from lodestar.pipeline.replay.sweep import sweep_frame

__all__ = ["write_replay"]


def write_replay(
    workspace: Workspace,
    document: dict[str, Any],
    workload: Workload,
    outcomes: dict[str, list[Outcome]],
    recorded: range,
    calibration: pl.DataFrame | None,
) -> Path:
    """Write a directory named by time and dataset; the first seed of each policy goes into the frames.

    `recorded` are the requests that the router's view was recorded for.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    directory = workspace.replays / f"{stamp}-{document['dataset']}"
    directory.mkdir(parents=True)
    requests = [_request_rows(name, runs[0], workload) for name, runs in outcomes.items()]
    pl.concat(requests).write_parquet(directory / "requests.parquet")
    queues = [_queue_rows(name, runs[0], workload.arrived_at_s[recorded]) for name, runs in outcomes.items()]
    pl.concat(queues).write_parquet(directory / "queue.parquet")
    if "sweep" in document:
        sweep_frame(document["sweep"]).write_parquet(directory / "sweep.parquet")
    if "tuning" in document:
        sweep_frame(document["tuning"]).write_parquet(directory / "tuning.parquet")
    if calibration is not None:
        calibration.write_parquet(directory / "calibration.parquet")
    # Last, so that a directory with a document is complete.
    (directory / "result.json").write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return directory


def _request_rows(policy: str, outcome: Outcome, workload: Workload) -> pl.DataFrame:
    return pl.DataFrame(
        {
            schema.POLICY: policy,
            schema.REQUEST_INDEX: np.arange(len(workload)),
            schema.ARRIVED_AT_S: workload.arrived_at_s,
            schema.INSTANCE_INDEX: outcome.instance,
            schema.PROMPT_TOKENS: workload.prompt_tokens,
            "cached_tokens": outcome.cached_tokens,
            schema.TTFT_MS: outcome.ttft_ms,
            schema.TPOT_MS: outcome.tpot_ms,
            schema.E2E_MS: outcome.e2e_ms,
        }
    )


def _queue_rows(policy: str, outcome: Outcome, arrived_at_s: Floats) -> pl.DataFrame:
    n, m, _ = outcome.snapshots.shape
    waiting = outcome.snapshots[:, :, schema.SNAPSHOT_FIELDS.index(schema.WAITING_REQUESTS)]
    running = outcome.snapshots[:, :, schema.SNAPSHOT_FIELDS.index(schema.RUNNING_REQUESTS)]
    return pl.DataFrame(
        {
            schema.POLICY: policy,
            "time_s": np.repeat(arrived_at_s, m),
            schema.INSTANCE_INDEX: np.tile(np.arange(m), n),
            schema.WAITING_REQUESTS: waiting.ravel(),
            schema.RUNNING_REQUESTS: running.ravel(),
        }
    )
