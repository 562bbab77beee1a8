"""How policies would have made a dataset's logged decisions: what `lodestar policies score` does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError, DataError
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.arms import arms_of
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.record_files import SUFFIXES, write_records
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.calibration.files import calibrated_engines
from lodestar.pipeline.replay.decisions import Scored, score_decisions
from lodestar.pipeline.replay.policy_names import find_policy
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.trained import known_models

__all__ = ["score_dataset"]

_CSV: Final = ".csv"
_CELLS_AT_ONCE: Final = 400_000


def score_dataset(
    workspace: Workspace, dataset: str, policies: Sequence[str], to: Path | None = None
) -> dict[str, Any]:
    """Score every logged decision of a dataset by each policy; write all probabilities to a file if one is named.

    Args:
        workspace: that holds the dataset.
        dataset: its name.
        policies: names, or FILE.py:CLASS, with settings.
        to: a file for the probabilities, one row a candidate: ``.parquet``, ``.jsonl`` or ``.csv``.
    """
    if len(set(policies)) < len(policies):
        raise ConfigError(f"--policy {', '.join(policies)}: a policy is named twice; expected each once")
    if to is not None and not to.name.endswith((*SUFFIXES, _CSV)):
        raise ConfigError(f"--to {to}: suffix is not known; expected one of {', '.join((*SUFFIXES, _CSV))}")
    with open_store(workspace) as con:
        log = load_log(con, dataset)
        arms = arms_of(con, log)
    models = known_models(workspace, dataset)
    found = {text: find_policy(text, models) for text in policies}
    if not (log.chosen >= 0).any():
        raise DataError(f"dataset {dataset!r} has no decisions to score; expected some. Ingest a log that has them")
    workload = workload_of(log, arms=arms)
    snapshot, completed = complete_snapshot(log, workload)
    fleet = Fleet(log.instances, calibrated_engines(workspace, log))
    scored = {text: score_decisions(policy, log, workload, snapshot, fleet) for text, policy in found.items()}
    if to is not None:
        _write(to, log, scored)
    return {
        "dataset": dataset,
        "requests": len(log),
        "decisions": int((log.chosen >= 0).sum()),
        "policies": [{"policy": text, **_agreement(log, each)} for text, each in scored.items()],
        "inferred": {**workload.inferred, **{name: str(how) for name, how in completed.items()}},
        "to": None if to is None else str(to),
    }


def _agreement(log: RequestLog, scored: Scored) -> dict[str, Any]:
    """Say how often a policy agrees with the log, where it could be asked."""
    rows = np.flatnonzero(~np.isnan(scored.probability).any(axis=1))
    logged = scored.probability[rows, log.chosen[rows]]
    return {
        "scored": len(rows),
        "mean_probability": float(logged.mean()) if len(rows) else None,
        "possible_ratio": float((logged > 0).mean()) if len(rows) else None,
        "not_scored": scored.not_scored,
        "notes": list(scored.notes),
    }


def _write(path: Path, log: RequestLog, scored: dict[str, Scored]) -> None:
    frames = (frame for text, each in scored.items() for frame in _frames(log, text, each.probability))
    if path.name.endswith(_CSV):
        _write_csv(path, frames)
    else:
        write_records(path, frames)


def _frames(log: RequestLog, policy: str, probability: NDArray[np.float64]) -> Iterator[pl.DataFrame]:
    """Make one row a candidate of every scored decision, a part at a time; at least one part, if without rows."""
    instances, names = pl.Series(log.instances, dtype=pl.String), pl.Series(log.request_id, dtype=pl.String)
    size = max(1, _CELLS_AT_ONCE // max(1, len(log.instances)))
    for first in range(0, max(1, len(log)), size):
        part = probability[first : first + size]
        row, j = np.nonzero(log.candidate[first : first + size] & ~np.isnan(part))
        yield pl.DataFrame(
            {
                schema.POLICY: pl.Series([policy], dtype=pl.String).new_from_index(0, len(row)),
                schema.REQUEST_INDEX: first + row,
                schema.REQUEST_ID: names.gather(first + row),
                schema.INSTANCE: instances.gather(j),
                "chosen": log.chosen[first + row] == j,
                schema.PROBABILITY: part[row, j],
            }
        )


def _write_csv(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """Write frames one after the other, whole or not at all."""
    half_written = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with half_written.open("wb") as out:
            for number, frame in enumerate(frames):
                frame.write_csv(out, include_header=number == 0)
        half_written.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; expected a place that can be written. Name another one"
        ) from error
    finally:
        with suppress(OSError):
            half_written.unlink(missing_ok=True)
