"""One file's rows into the canonical tables, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import duckdb
import polars as pl

from lodestar.data import schema as s
from lodestar.data.errors import ConfigError, DataError
from lodestar.data.reading import LINE, Reading, rejects_of

__all__ = ["Source", "append_source", "is_stored", "with_policy"]

UNIFORM: Final = "random"
INDEXED: Final = ("requests", "blocks", "decisions", "candidates", "outcomes")
PLACED: Final = ("decisions", "candidates", "engine_samples")


@dataclass(frozen=True, slots=True)
class Source:
    """A file: as the user named it, its hash and its format."""

    file: str
    sha256: str
    format: str

    def identity(self, dataset: str) -> str:
        """Return its `source_id`: a content is stored once a dataset."""
        return f"{dataset}/{self.sha256[:16]}"


def is_stored(con: duckdb.DuckDBPyConnection, dataset: str, sha256: str) -> bool:
    """Tell whether the dataset holds this very content."""
    query = "SELECT count(*) FROM sources WHERE dataset = ? AND sha256 = ?"
    return bool(con.execute(query, [dataset, sha256]).fetchall()[0][0])


def with_policy(reading: Reading, policy: str | None) -> Reading:
    """Name the logging policy; ``random`` gives every candidate of a decision the same probability."""
    if policy is None:
        return reading
    others = reading.rows[s.POLICY].drop_nulls().unique().to_list()
    if others and others != [policy]:
        raise ConfigError(
            f"logging policy {policy!r} contradicts the log, which says {others[0]!r}; "
            "expected the same. Leave the option out"
        )
    rows = reading.rows.with_columns(pl.lit(policy).alias(s.POLICY))
    if policy != UNIFORM:
        return replace(reading, rows=rows)
    share = pl.coalesce(s.PROBABILITY, 1.0 / pl.len().over(LINE)).alias(s.PROBABILITY)
    return replace(reading, rows=rows, candidates=reading.candidates.with_columns(share))


def append_source(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    reading: Reading,
    source: Source,
    progress: Callable[[int], None] | None = None,
) -> Reading:
    """Store what a file says and return what was stored: all of it, or nothing if the process ends half way."""
    with _transaction(con):
        known = con.execute("SELECT clock, clock_start_s FROM datasets WHERE dataset = ?", [dataset]).fetchall()
        reading = _without_known_ids(con, dataset, _identified(reading, source))
        if known:
            _require_one_clock(dataset, reading, known[0][0])
        _ensure_dataset(con, dataset, reading)
        _ensure_instances(con, dataset, reading)
        _insert(con, dataset, reading, source)
        if known and reading.clock is not None:
            _reorder(con, dataset)
        if progress is not None:
            progress(len(reading.rows))
    return reading


@contextmanager
def _transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    con.execute("BEGIN")
    try:
        yield
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def _identified(reading: Reading, source: Source) -> Reading:
    # A format without request ids still needs names that differ between files.
    made = pl.format("{}:{}", pl.lit(source.sha256[:8]), LINE)
    return replace(reading, rows=reading.rows.with_columns(pl.col(s.REQUEST_ID).fill_null(made)))


def _without_known_ids(con: duckdb.DuckDBPyConnection, dataset: str, reading: Reading) -> Reading:
    known = con.sql("SELECT request_id FROM requests WHERE dataset = ?", params=[dataset]).pl()
    again = reading.rows.join(known, on=s.REQUEST_ID, how="semi")[LINE]
    if again.is_empty():
        return reading
    rejects = rejects_of(again, ["duplicate request_id"] * len(again))
    return replace(
        reading,
        rows=reading.rows.filter(~pl.col(LINE).is_in(again.implode())),
        candidates=reading.candidates.filter(~pl.col(LINE).is_in(again.implode())),
        rejects=pl.concat([reading.rejects, rejects]).sort(LINE),
    )


def _require_one_clock(dataset: str, reading: Reading, clock: str | None) -> None:
    if reading.clock != clock and len(reading.rows):
        raise DataError(
            f"dataset {dataset!r} has its arrivals by clock {clock or 'none'!r}, this file by "
            f"{reading.clock or 'none'!r}; expected the same. Ingest the file into another dataset"
        )


def _ensure_dataset(con: duckdb.DuckDBPyConnection, dataset: str, reading: Reading) -> None:
    """Make or update the row in `datasets`; arrivals count from the earliest of all files."""
    start = None if reading.clock is None else _first_arrival(reading)
    con.execute(
        "INSERT INTO datasets SELECT ?, now(), NULL, ?, ?, ?, NULL WHERE NOT EXISTS (FROM datasets WHERE dataset = ?)",
        [dataset, reading.clock, start, reading.block_tokens, dataset],
    )
    (before, block_tokens) = con.execute(
        "SELECT clock_start_s, block_tokens FROM datasets WHERE dataset = ?", [dataset]
    ).fetchall()[0]
    if block_tokens != reading.block_tokens and reading.block_tokens is not None and block_tokens is not None:
        raise DataError(
            f"dataset {dataset!r} has blocks of {block_tokens} tokens, this file of {reading.block_tokens}; "
            "expected the same. Ingest the file into another dataset"
        )
    if start is not None and before is not None and start < before:
        con.execute("UPDATE requests SET arrived_at_s = arrived_at_s + ? WHERE dataset = ?", [before - start, dataset])
    con.execute(
        """UPDATE datasets SET clock_start_s = least(clock_start_s, $start),
        block_tokens = coalesce(block_tokens, $block),
        origin_s = CASE WHEN clock = 'unix' THEN least(clock_start_s, $start) END WHERE dataset = $dataset""",
        {"start": start, "block": reading.block_tokens, "dataset": dataset},
    )


def _first_arrival(reading: Reading) -> float | None:
    first = reading.rows[s.ARRIVED_AT_S].min()
    return None if first is None else reading.zero_s + float(first)  # type: ignore[arg-type]


def _ensure_instances(con: duckdb.DuckDBPyConnection, dataset: str, reading: Reading) -> None:
    """Number the instances by name; where a file brings new names, the rows stored before follow."""
    seen = pl.concat([reading.candidates[s.INSTANCE], reading.rows[s.INSTANCE]]).drop_nulls().unique()
    before = con.sql("SELECT instance, gpu, instance_index FROM instances WHERE dataset = ?", params=[dataset]).pl()
    gpu = pl.col(s.INSTANCE).replace_strict(reading.gpu, default=None, return_dtype=pl.String)
    told = seen.to_frame(s.INSTANCE).with_columns(gpu.alias(s.GPU))
    after = told.join(before, on=s.INSTANCE, how="full", coalesce=True).sort(s.INSTANCE).with_row_index("now")
    con.execute("DELETE FROM instances WHERE dataset = ?", [dataset])
    _insert_frame(
        con,
        "instances",
        after.select(
            pl.lit(dataset).alias(s.DATASET),
            pl.col("now").cast(pl.Int64).alias(s.INSTANCE_INDEX),
            s.INSTANCE,
            pl.coalesce(s.GPU, f"{s.GPU}_right").alias(s.GPU),
        ),
    )
    moved = after.filter(pl.col(s.INSTANCE_INDEX).is_not_null() & (pl.col(s.INSTANCE_INDEX) != pl.col("now")))
    if len(moved):
        _renumber(con, dataset, PLACED, s.INSTANCE_INDEX, moved.select(pl.col(s.INSTANCE_INDEX).alias("old"), "now"))


def _insert(con: duckdb.DuckDBPyConnection, dataset: str, reading: Reading, source: Source) -> None:
    indexed = _numbered(con, dataset, reading)
    instances = con.sql("SELECT instance, instance_index FROM instances WHERE dataset = ?", params=[dataset]).pl()
    chosen = reading.candidates.select(LINE, s.INSTANCE, pl.col(s.PROBABILITY).alias(s.PROPENSITY))
    rows = indexed.join(instances, on=s.INSTANCE, how="left", maintain_order="left").join(
        chosen, on=[LINE, s.INSTANCE], how="left", maintain_order="left"
    )
    candidates = (
        reading.candidates.join(rows.select(LINE, s.REQUEST_INDEX), on=LINE)
        .join(instances, on=s.INSTANCE)
        .sort(s.REQUEST_INDEX, s.INSTANCE_INDEX)
    )
    told = pl.any_horizontal(pl.col(*s.OUTCOMES_LATENCIES, s.STATUS).is_not_null())
    _insert_table(con, "requests", rows, dataset, source)
    _insert_table(con, "blocks", rows.filter(pl.col(s.BLOCK_IDS).is_not_null()), dataset, source)
    _insert_table(con, "decisions", rows.filter(pl.col(s.INSTANCE_INDEX).is_not_null()), dataset, source)
    _insert_table(con, "outcomes", rows.filter(told), dataset, source)
    _insert_table(con, "candidates", candidates, dataset, source)
    rejects = reading.rejects.with_columns(pl.Series("raw", reading.raw(reading.rejects[LINE]), dtype=pl.String))
    _insert_table(con, "rejects", rejects, dataset, source)
    notes = "; ".join(reading.notes) or None
    con.execute(
        "INSERT INTO sources SELECT ?, ?, ?, ?, ?, ?, ?, ?, now()",
        [
            source.identity(dataset),
            dataset,
            source.file,
            source.sha256,
            source.format,
            reading.lines,
            len(rejects),
            notes,
        ],
    )
    _set_policy(con, dataset)


def _numbered(con: duckdb.DuckDBPyConnection, dataset: str, reading: Reading) -> pl.DataFrame:
    """Give the rows their request index, after those stored before, and their arrival in the dataset's time."""
    (start,) = con.execute("SELECT clock_start_s FROM datasets WHERE dataset = ?", [dataset]).fetchall()[0]
    (stored,) = con.execute("SELECT count(*) FROM requests WHERE dataset = ?", [dataset]).fetchall()[0]
    rows = reading.rows
    if start is not None:
        rows = rows.with_columns(pl.col(s.ARRIVED_AT_S) - (start - reading.zero_s)).sort(
            s.ARRIVED_AT_S, nulls_last=True, maintain_order=True
        )
    return rows.with_columns(pl.int_range(stored, stored + pl.len(), dtype=pl.Int64).alias(s.REQUEST_INDEX))


def _insert_table(
    con: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame, dataset: str, source: Source
) -> None:
    constants = {s.DATASET: dataset, s.SOURCE_ID: source.identity(dataset), "file": source.file}
    _insert_frame(con, table, frame.with_columns(pl.lit(v).alias(k) for k, v in constants.items()))


def _insert_frame(con: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame) -> None:
    con.register("incoming", frame.select(list(s.TABLES[table])))
    con.execute(f"INSERT INTO {table} FROM incoming")
    con.unregister("incoming")


def _set_policy(con: duckdb.DuckDBPyConnection, dataset: str) -> None:
    con.execute(
        """UPDATE datasets SET policy = (
            SELECT CASE WHEN count(DISTINCT coalesce(policy, '')) = 1 THEN any_value(policy) END
        FROM decisions WHERE dataset = $dataset) WHERE dataset = $dataset""",
        {"dataset": dataset},
    )


def _reorder(con: duckdb.DuckDBPyConnection, dataset: str) -> None:
    """Number the requests of all files by arrival; the order in which the files came leaves no trace."""
    order = con.sql(
        """SELECT request_index AS old,
        row_number() OVER (ORDER BY arrived_at_s NULLS LAST, source_id, request_index) - 1 AS now
        FROM requests WHERE dataset = ?""",
        params=[dataset],
    ).pl()
    moved = order.filter(pl.col("old") != pl.col("now"))
    if len(moved):
        _renumber(con, dataset, INDEXED, s.REQUEST_INDEX, moved)


def _renumber(
    con: duckdb.DuckDBPyConnection, dataset: str, tables: tuple[str, ...], column: str, moved: pl.DataFrame
) -> None:
    con.register("moved", moved)
    for table in tables:
        con.execute(
            f"UPDATE {table} SET {column} = moved.now FROM moved WHERE dataset = ? AND {column} = moved.old", [dataset]
        )
    con.unregister("moved")
