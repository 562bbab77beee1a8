"""A workload by name: a dataset of the workspace, or a file in any format that can be ingested."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from lodestar.data.errors import DataError, unknown
from lodestar.data.ingest import ingest
from lodestar.data.log import Ints, RequestLog, Workload
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.data.store import dataset_names, load_log, open_store
from lodestar.data.workspace import Workspace

__all__ = ["load_workload", "loader"]

REJECTED = "rejected"


def loader(workspace: Workspace, seed: int = 0) -> Callable[[str], Workload]:
    """Return the function that loads a source from a workspace."""
    return lambda source: load_workload(workspace, source, seed)


def load_workload(workspace: Workspace, source: str, seed: int = 0, own_ids: bool = False) -> Workload:
    """Load a dataset or a file as a workload; a dataset goes first where both are there.

    With `own_ids` the blocks keep the ids that the log gives them, so that two parts of one trace still match.
    """
    log, rejected = _log(workspace, source)
    workload = workload_of(log, seed)
    if rejected:
        note = f"{rejected} rows of {source} were refused and are not in it; `lodestar ingest` shows why"
        workload = replace(workload, inferred={**workload.inferred, REJECTED: note})
    if own_ids and log.block_tokens is not None:
        workload = replace(workload, block_ids=_logged_ids(log, workload.block_offsets))
    return workload


def _log(workspace: Workspace, source: str) -> tuple[RequestLog, int]:
    if workspace.database.exists():
        with open_store(workspace) as con:
            names = dataset_names(con)
            if source in names:
                return load_log(con, source), 0
    else:
        names = []
    path = Path(source)
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise DataError(f"{path}: no such file and no dataset; expected one of them. Check the path")
        raise unknown("dataset or file", source, names)
    with tempfile.TemporaryDirectory() as folder:
        aside = Workspace.open(Path(folder))
        rejected = ingest(aside, [path], "source").rows_rejected
        with open_store(aside) as con:
            return load_log(con, "source"), rejected


def _logged_ids(log: RequestLog, kept_offsets: Ints) -> Ints:
    """Return the ids of the blocks that the workload kept: the first ones of each request."""
    listed = np.diff(log.block_offsets)
    within = np.arange(len(log.block_ids)) - np.repeat(log.block_offsets[:-1], listed)
    return log.block_ids[within < np.repeat(np.diff(kept_offsets), listed)]
