"""The DuckDB file of a workspace: canonical tables in, arrays out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import numpy as np
import polars as pl

from lodestar.data import schema as s
from lodestar.data.errors import ConfigError, unknown
from lodestar.data.log import Floats, Ints, RequestLog
from lodestar.data.workspace import Workspace

__all__ = ["dataset_fingerprint", "dataset_names", "load_log", "open_store"]


@contextmanager
def open_store(workspace: Workspace) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the database of a workspace, with every canonical table in it.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with open_store(Workspace.open(Path(tempfile.mkdtemp()))) as con:
    ...     dataset_names(con)
    []
    """
    con = _connect(workspace)
    try:
        for table, columns in s.TABLES.items():
            declared = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
            con.execute(f"CREATE TABLE IF NOT EXISTS {table} ({declared})")
        yield con
    finally:
        con.close()


def dataset_names(con: duckdb.DuckDBPyConnection) -> list[str]:
    """List the datasets by name."""
    return [name for (name,) in con.execute("SELECT dataset FROM datasets ORDER BY dataset").fetchall()]


def dataset_fingerprint(con: duckdb.DuckDBPyConnection, dataset: str) -> str:
    """Name the content of a dataset: SHA-256 over the hashes of its sources, whatever their order."""
    _require(con, dataset)
    rows = con.execute("SELECT sha256 FROM sources WHERE dataset = ? ORDER BY sha256", [dataset]).fetchall()
    return hashlib.sha256("\n".join(sha for (sha,) in rows).encode()).hexdigest()


def load_log(con: duckdb.DuckDBPyConnection, dataset: str) -> RequestLog:
    """Read a dataset into arrays, in dispatch order; NaN (or -1 for whole numbers) where the log does not say.

    Latencies of requests that failed or were cancelled are NaN: they do not tell how fast an instance is.
    """
    _require(con, dataset)
    requests = _frame(con, _REQUESTS, dataset)
    instances = _frame(con, "SELECT instance FROM instances WHERE dataset = ? ORDER BY instance_index", dataset)
    n, names = len(requests), instances["instance"].to_list()
    candidates = _frame(con, "SELECT * FROM candidates WHERE dataset = ?", dataset)
    cell = candidates[s.REQUEST_INDEX].to_numpy(), candidates[s.INSTANCE_INDEX].to_numpy()
    present = np.zeros((n, len(names)), dtype=np.bool_)
    present[cell] = True
    block_ids, block_offsets = _blocks(con, dataset, n)
    (block_tokens,) = con.execute("SELECT block_tokens FROM datasets WHERE dataset = ?", [dataset]).fetchall()[0]
    return RequestLog(
        dataset=dataset,
        instances=names,
        request_id=requests[s.REQUEST_ID].to_list(),
        arrived_at_s=_floats(requests, s.ARRIVED_AT_S),
        prompt_tokens=requests[s.PROMPT_TOKENS].to_numpy().astype(np.int64),
        output_tokens=requests[s.OUTPUT_TOKENS].fill_null(-1).to_numpy().astype(np.int64),
        chosen=requests[s.INSTANCE_INDEX].fill_null(-1).to_numpy().astype(np.int64),
        propensity=_floats(requests, s.PROPENSITY),
        policy=_one_policy(requests),
        candidate=present,
        snapshot={name: _grid(candidates, name, cell, present.shape) for name in s.SNAPSHOT_FIELDS},
        probability=_grid(candidates, s.PROBABILITY, cell, present.shape),
        ttft_ms=_floats(requests, s.TTFT_MS),
        tpot_ms=_floats(requests, s.TPOT_MS),
        e2e_ms=_floats(requests, s.E2E_MS),
        block_ids=block_ids,
        block_offsets=block_offsets,
        block_tokens=block_tokens,
    )


_REQUESTS = """
    SELECT r.request_id, r.arrived_at_s, r.prompt_tokens, r.output_tokens, d.instance_index, d.propensity, d.policy,
        o.ttft_ms, o.tpot_ms, o.e2e_ms
    FROM requests r
    LEFT JOIN decisions d USING (dataset, request_index)
    LEFT JOIN (FROM outcomes WHERE coalesce(status, 'ok') = 'ok') o USING (dataset, request_index)
    WHERE r.dataset = ? ORDER BY r.request_index
"""


def _connect(workspace: Workspace) -> duckdb.DuckDBPyConnection:
    path = workspace.database
    try:
        return duckdb.connect(str(path))
    except duckdb.Error as error:
        if "lock" in str(error):
            raise ConfigError(
                f"{path} is open in another process; expected to be its only user. "
                "Wait until that process ends, or name another --home"
            ) from error
        first = str(error).splitlines()[0]
        raise ConfigError(f"{path} cannot be opened ({first}); expected a DuckDB file. Name another --home") from error


def _require(con: duckdb.DuckDBPyConnection, dataset: str) -> None:
    names = dataset_names(con)
    if dataset not in names:
        raise unknown("dataset", dataset, names)


def _frame(con: duckdb.DuckDBPyConnection, query: str, dataset: str) -> pl.DataFrame:
    frame: pl.DataFrame = con.sql(query, params=[dataset]).pl()
    return frame


def _floats(frame: pl.DataFrame, column: str) -> Floats:
    return frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy().copy()


def _grid(candidates: pl.DataFrame, column: str, cell: tuple[Ints, Ints], shape: tuple[int, ...]) -> Floats:
    grid = np.full(shape, np.nan)
    grid[cell] = _floats(candidates, column)
    return grid


def _one_policy(requests: pl.DataFrame) -> str | None:
    names = requests.filter(pl.col(s.INSTANCE_INDEX).is_not_null())[s.POLICY].unique().to_list()
    return names[0] if len(names) == 1 else None


def _blocks(con: duckdb.DuckDBPyConnection, dataset: str, n: int) -> tuple[Ints, Ints]:
    blocks = _frame(
        con, "SELECT request_index, block_ids FROM blocks WHERE dataset = ? ORDER BY request_index", dataset
    )
    lengths = np.zeros(n, dtype=np.int64)
    lengths[blocks[s.REQUEST_INDEX].to_numpy()] = blocks[s.BLOCK_IDS].list.len().to_numpy()
    ids = blocks[s.BLOCK_IDS].explode(empty_as_null=False).to_numpy().astype(np.int64)
    return ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
