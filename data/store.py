"""The DuckDB file of a workspace: canonical tables in, arrays out."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import polars as pl

from lodestar.data import schema as s
from lodestar.data.conversations import session_numbers
from lodestar.data.errors import ConfigError, unknown
from lodestar.data.log import Floats, Ints, RequestLog
from lodestar.data.workspace import Workspace

__all__ = ["dataset_fingerprint", "dataset_names", "load_log", "open_store"]

POLL_S: Final = 0.2


@contextmanager
def open_store(
    workspace: Workspace, wait_s: float = 0.0, say: Callable[[str], None] = lambda _: None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the database of a workspace, with every canonical table in it.

    Where another process holds it, wait up to `wait_s`, and `say` who that is.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with open_store(Workspace.open(Path(tempfile.mkdtemp()))) as con:
    ...     dataset_names(con)
    []
    """
    con = _connect(workspace, wait_s, say)
    try:
        _ensure_tables(con, workspace)
        yield con
    finally:
        con.close()


def _ensure_tables(con: duckdb.DuckDBPyConnection, workspace: Workspace) -> None:
    rows = con.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
    for table, columns in s.TABLES.items():
        found = [name for of, name in rows if of == table]
        if found and found != list(columns):
            raise ConfigError(
                f"{workspace.database}: table {table!r} has columns {', '.join(found)[:200]}, as another version of "
                "Lodestar wrote it; expected this version's. Name another --home and ingest the logs again"
            )
        if not found:
            declared = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
            con.execute(f"CREATE TABLE IF NOT EXISTS {table} ({declared})")


def dataset_names(con: duckdb.DuckDBPyConnection) -> list[str]:
    """List the datasets by name."""
    return [name for (name,) in con.execute("SELECT dataset FROM datasets ORDER BY dataset").fetchall()]


def dataset_fingerprint(con: duckdb.DuckDBPyConnection, dataset: str) -> str:
    """Name the content of a dataset: SHA-256 over the hashes of its sources, whatever their order."""
    require_dataset(con, dataset)
    rows = con.execute("SELECT sha256 FROM sources WHERE dataset = ? ORDER BY sha256", [dataset]).fetchall()
    return hashlib.sha256("\n".join(sha for (sha,) in rows).encode()).hexdigest()


def load_log(con: duckdb.DuckDBPyConnection, dataset: str, only: Ints | None = None) -> RequestLog:
    """Read a dataset into arrays, in dispatch order; NaN (or -1 for whole numbers) where the log does not say.

    With `only`, the requests of these numbers (``request_index``) alone, and of instances those that they tell of.

    Latencies of requests that failed are NaN: they do not tell how fast an instance is. Those of requests that were
    cancelled or timed out are NaN too, and what they tell is in ``cut_off``.
    """
    require_dataset(con, dataset)
    own = _choose(con, only)
    requests = _frame(con, _REQUESTS.format(own=own), dataset)
    instances = _frame(con, _INSTANCES.format(own=own), dataset)
    n, names = len(requests), instances[s.INSTANCE].to_list()
    # The store numbers what it is given as it comes; here requests are in dispatch order, instances in that of names.
    row_of, column_of = _Places(requests[s.REQUEST_INDEX]), _Places(instances[s.INSTANCE_INDEX])
    candidates = _frame(con, f"SELECT * FROM candidates WHERE request_index IN ({own})", dataset)
    cell = row_of(candidates[s.REQUEST_INDEX]), column_of(candidates[s.INSTANCE_INDEX])
    present = np.zeros((n, len(names)), dtype=np.bool_)
    present[cell] = True
    block_ids, block_offsets = _blocks(con, dataset, own, row_of, n)
    loggers, logger = _loggers(requests)
    (block_tokens,) = con.execute("SELECT block_tokens FROM datasets WHERE dataset = ?", [dataset]).fetchall()[0]
    return RequestLog(
        dataset=dataset,
        instances=names,
        request_id=requests[s.REQUEST_ID].to_list(),
        arrived_at_s=_floats(requests, s.ARRIVED_AT_S),
        prompt_tokens=requests[s.PROMPT_TOKENS].to_numpy().astype(np.int64),
        output_tokens=requests[s.OUTPUT_TOKENS].fill_null(-1).to_numpy().astype(np.int64),
        chosen=_chosen(requests[s.INSTANCE_INDEX], column_of),
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
        phases=_phases(requests),
        session=session_numbers(requests[s.SESSION_ID]),
        cut_off=_cut_off(requests),
        loggers=loggers,
        logger=logger,
    )


# With a clock, arrivals order the requests, whatever the order in which the sources came. Without, the sources follow
# each other as they came. A request that its log does not name gets the name of its line.
_REQUESTS = """
    SELECT r.request_index, coalesce(r.request_id, sources.sha256[:8] || ':' || r.line) AS request_id,
        r.arrived_at_s, r.prompt_tokens, r.output_tokens, d.instance_index, d.propensity, d.policy,
        o.ttft_ms, o.tpot_ms, o.e2e_ms, cut.ttft_ms AS cut_ttft_ms, cut.tpot_ms AS cut_tpot_ms,
        cut.e2e_ms AS cut_e2e_ms, phases.queue_ms, phases.prefill_ms, phases.decode_ms, sessions.session_id
    FROM requests r
    JOIN sources ON sources.dataset = r.dataset
        AND r.request_index BETWEEN sources.first_request_index AND sources.last_request_index
    LEFT JOIN dispatches USING (request_index)
    LEFT JOIN decisions d USING (request_index)
    LEFT JOIN (FROM outcomes WHERE coalesce(status, 'ok') = 'ok') o USING (request_index)
    LEFT JOIN (FROM outcomes WHERE status IN ('cancelled', 'timeout')) cut USING (request_index)
    LEFT JOIN phases USING (request_index)
    LEFT JOIN sessions USING (request_index)
    WHERE r.dataset = $1 AND r.request_index IN ({own}) ORDER BY r.arrived_at_s,
        CASE WHEN r.arrived_at_s IS NULL THEN sources.number END, sources.source_id, dispatches.dispatch_number, r.line
"""
_INSTANCES = """
    SELECT instance, instance_index FROM instances WHERE dataset = $1 AND instance_index IN (
        SELECT instance_index FROM decisions WHERE request_index IN ({own})
        UNION SELECT instance_index FROM candidates WHERE request_index IN ({own}))
    ORDER BY instance
"""
#: Which requests to read: all of the dataset, or those that were asked for.
_ALL = "SELECT request_index FROM requests WHERE dataset = $1"
_ONLY = "SELECT request_index FROM wanted WHERE $1 IS NOT NULL"


def _choose(con: duckdb.DuckDBPyConnection, only: Ints | None) -> str:
    """Return the query for the numbers of the requests to read."""
    if only is None:
        return _ALL
    con.execute("CREATE OR REPLACE TEMP TABLE wanted AS SELECT unnest($1::BIGINT[]) AS request_index", [only])
    return _ONLY


def _connect(workspace: Workspace, wait_s: float, say: Callable[[str], None]) -> duckdb.DuckDBPyConnection:
    path, until = workspace.database, time.monotonic() + wait_s
    told = False
    while True:
        try:
            return duckdb.connect(str(path))
        except duckdb.Error as error:
            if "lock" not in str(error):
                first = str(error).splitlines()[0]
                raise ConfigError(
                    f"{path} cannot be opened ({first}); expected a DuckDB file. Name another --home"
                ) from error
            holder = _holder(str(error))
            if time.monotonic() >= until:
                raise ConfigError(
                    f"{path} is open in another process ({holder}); expected to be its only user. "
                    "Wait until that process ends, or name another --home"
                ) from error
        if not told:
            say(f"waiting up to {wait_s:.0f} s for {holder}, which has the store open")
            told = True
        time.sleep(POLL_S)


def _holder(message: str) -> str:
    """Name the process that DuckDB says holds the lock, with its command where the system shows it."""
    found = re.search(r"PID (\d+)", message)
    if found is None:
        return "which one is not known"
    command = Path(f"/proc/{found[1]}/cmdline")
    try:
        words = command.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        words = ""
    return f"process {found[1]}" + (f": {words[:120]}" if words else "")


def require_dataset(con: duckdb.DuckDBPyConnection, dataset: str) -> None:
    """Refuse a name that no dataset has."""
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


def _phases(requests: pl.DataFrame) -> dict[str, Floats]:
    """Return the phases that any request tells."""
    return {name: _floats(requests, name) for name in s.PHASES if requests[name].is_not_null().any()}


def _cut_off(requests: pl.DataFrame) -> dict[str, Floats]:
    """Return what is known of the requests that were cancelled or timed out; nothing where no such request ends."""
    known = {name: _floats(requests, f"cut_{name}") for name in s.OUTCOMES_LATENCIES}
    return known if not np.isnan(known[s.E2E_MS]).all() else {}


def _one_policy(requests: pl.DataFrame) -> str | None:
    names = requests.filter(pl.col(s.INSTANCE_INDEX).is_not_null())[s.POLICY].unique().to_list()
    return names[0] if len(names) == 1 else None


def _loggers(requests: pl.DataFrame) -> tuple[tuple[str, ...], Ints | None]:
    """Name the logging policies, and say which decided each request, where there is more than one."""
    named = requests.select(pl.when(pl.col(s.INSTANCE_INDEX).is_not_null()).then(s.POLICY))[s.POLICY]
    names = named.drop_nulls().unique().sort().to_list()
    if len(names) < 2:
        return (), None
    number = named.replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int64)
    return tuple(names), number.to_numpy().astype(np.int64)


class _Places:
    """Where the numbers of a series stand in it."""

    def __init__(self, numbers: pl.Series) -> None:
        self._order = numbers.arg_sort().to_numpy().astype(np.int64)
        self._sorted = numbers.to_numpy()[self._order]

    def __call__(self, wanted: pl.Series) -> Ints:
        """Return the places of these numbers, all of which the series holds."""
        return self._order[np.searchsorted(self._sorted, wanted.to_numpy())]


def _chosen(numbers: pl.Series, column_of: _Places) -> Ints:
    chosen = np.full(len(numbers), -1)
    chosen[numbers.is_not_null().to_numpy()] = column_of(numbers.drop_nulls())
    return chosen


def _blocks(con: duckdb.DuckDBPyConnection, dataset: str, own: str, row_of: _Places, n: int) -> tuple[Ints, Ints]:
    blocks = _frame(con, f"SELECT request_index, block_ids FROM blocks WHERE request_index IN ({own})", dataset)
    placed = blocks.with_columns(pl.Series("row", row_of(blocks[s.REQUEST_INDEX]))).sort("row")
    lengths = np.zeros(n, dtype=np.int64)
    lengths[placed["row"].to_numpy()] = placed[s.BLOCK_IDS].list.len().to_numpy()
    ids = placed[s.BLOCK_IDS].explode(empty_as_null=False).to_numpy().astype(np.int64)
    return ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
