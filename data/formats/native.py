"""Lodestar's own decision log: one JSON or Parquet record a request, described by ``native.schema.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.native_write import write_decision_log
from lodestar.data.parsing.delimited import raw_of
from lodestar.data.parsing.json_lines import Decoder
from lodestar.data.parsing.rules import taken_apart
from lodestar.data.reading import (
    CANDIDATE_COLUMNS,
    LINE,
    ROW_COLUMNS,
    Columns,
    Format,
    Reading,
    as_columns,
    no_rejects,
    not_whole,
)
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT", "native_schema", "write_decision_log"]

PARQUET_MAGIC: Final = b"PAR1"
ROWS_AT_ONCE: Final = 1 << 16
NUMBER, TEXT = pa.float64(), pa.string()
# Whole numbers are read as floats: what is no whole number is told apart afterwards, with its value.
WHOLE: Final = (s.PROMPT_TOKENS, s.OUTPUT_TOKENS, s.CACHED_TOKENS, "block_tokens")
REQUEST: Final = pa.struct(
    [
        (s.REQUEST_ID, TEXT),
        (s.SESSION_ID, TEXT),
        (s.ARRIVED_AT_S, NUMBER),
        (s.PROMPT_TOKENS, NUMBER),
        (s.OUTPUT_TOKENS, NUMBER),
        (s.BLOCK_IDS, pa.list_(pa.int64())),
    ]
)
CANDIDATE: Final = pa.struct(
    [(s.INSTANCE, TEXT), (s.GPU, TEXT), *((name, NUMBER) for name in (*s.SNAPSHOT_FIELDS, s.SCORE, s.PROBABILITY))]
)
OUTCOME: Final = pa.struct(
    [*((name, NUMBER) for name in (*s.OUTCOMES_LATENCIES, *s.PHASES, s.CACHED_TOKENS)), (s.STATUS, TEXT)]
)
COLUMNS: Final = pa.schema(
    [
        ("request", REQUEST),
        ("block_tokens", NUMBER),
        (s.SNAPSHOT_AGE_MS, NUMBER),
        (s.POLICY, TEXT),
        (s.MODEL_VERSION, TEXT),
        ("candidates", pa.list_(CANDIDATE)),
        ("chosen", TEXT),
        ("outcome", OUTCOME),
    ]
)


def native_schema() -> dict[str, Any]:
    """Return the JSON Schema of one record, as it ships with the package.

    >>> native_schema()["required"]
    ['request']
    """
    text = resources.files("lodestar.data.formats").joinpath("native.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def sniff(head: bytes) -> bool:
    """Tell by Parquet's magic, or by the keys of the first record."""
    if head.startswith(PARQUET_MAGIC):
        return True
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0]
    return first.startswith(b"{") and b'"request"' in first and b'"prompt_tokens"' in first


def read(source: Source) -> Iterator[Reading]:
    """Read JSON Lines or Parquet, a row a record; without arrivals, the order of records is the order of dispatch."""
    if source.head(len(PARQUET_MAGIC)) == PARQUET_MAGIC:
        yield from _read_parquet(source)
        return
    decoder = Decoder(COLUMNS, native_schema())
    for block, records in decoder.over(source.blocks()):
        yield _reading(records.columns, records.lines, records.rejects, raw_of(block))


def _read_parquet(source: Source) -> Iterator[Reading]:
    try:
        with source.on_disk() as path, pq.ParquetFile(path) as file:
            if "request" not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names)[:200]
                raise DataError(f"no column 'request'; found {names}. See native.schema.json")
            first = 1
            for batch in file.iter_batches(ROWS_AT_ONCE):
                table = _as_declared(pa.Table.from_batches([batch]))
                table.validate(full=True)  # text that is no UTF-8 ends the process later on
                numbered = table.append_column(LINE, pa.array(range(first, first + len(table)), pa.int64()))
                yield _reading(numbered, len(table), no_rejects(), _record_of(table, first))
                first += len(table)
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"not a native Parquet log ({said}); expected the columns of native.schema.json") from error


def _as_declared(table: pa.Table) -> pa.Table:
    """Bring a Parquet table to the declared types; a column that is of another kind is an error."""
    found = [table[column.name] if column.name in table.column_names else None for column in COLUMNS]
    kept = [(column, values) for column, values in zip(COLUMNS, found, strict=True) if values is not None]
    return pa.table([_cast(values, column.type) for column, values in kept], names=[column.name for column, _ in kept])


def _cast(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast, keeping of a struct the fields that are there."""
    return values.cast(_narrowed(kind, values.type))


def _narrowed(kind: pa.DataType, found: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind) and pa.types.is_struct(found):
        names = {found.field(k).name: found.field(k).type for k in range(found.num_fields)}
        kept = [pa.field(f.name, _narrowed(f.type, names[f.name])) for f in kind if f.name in names]
        return pa.struct(kept)
    if pa.types.is_list(kind) and (pa.types.is_list(found) or pa.types.is_large_list(found)):
        return pa.list_(_narrowed(kind.value_type, found.value_type))
    return kind


def _record_of(table: pa.Table, first: int) -> Callable[[pl.Series], list[str | None]]:
    return lambda lines: [json.dumps(table.slice(line - first, 1).to_pylist()[0], default=str) for line in lines]


def _reading(table: pa.Table, lines: int, bad: pl.DataFrame, raw: Callable[[pl.Series], list[str | None]]) -> Reading:
    flat = _flat(table)
    rows, unsound = _sound_rows(flat)
    candidates, gpu = _candidates(table)
    if len(unsound):
        candidates = candidates.join(unsound, on=LINE, how="anti", maintain_order="left")
    return Reading(
        rows=as_columns(rows, ROW_COLUMNS),
        candidates=candidates,
        rejects=pl.concat([bad, unsound]),
        lines=lines,
        raw=raw,
        clock="native" if rows[s.ARRIVED_AT_S].is_not_null().any() else None,
        block_tokens=_block_tokens(rows),
        gpu=gpu,
    )


def _flat(table: pa.Table) -> pl.DataFrame:
    """Lay the fields of request and outcome side by side, with NULL for those that the log lacks."""
    flat = pl.from_arrow(table.select([name for name in table.column_names if name != "candidates"]))
    assert isinstance(flat, pl.DataFrame)
    for name in ("request", "outcome"):
        flat = flat.unnest(name) if name in flat.columns else flat
    columns: Columns = {**ROW_COLUMNS, **dict.fromkeys(WHOLE, pl.Float64)}
    return as_columns(flat.rename({"chosen": s.INSTANCE}, strict=False), columns)


def _sound_rows(flat: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take apart the records without an id, with a broken number of tokens, or with blocks of no known size."""
    rules = [
        (Reason.MISSING, pl.col(s.REQUEST_ID).fill_null("") == "", pl.lit(f"request.{s.REQUEST_ID} is missing")),
        *(
            (Reason.WRONG_TYPE, not_whole(name), pl.format("{} is {}, no whole number", pl.lit(name), name))
            for name in WHOLE
        ),
        (
            Reason.WRONG_VALUE,
            pl.col("block_tokens") < 1,
            pl.format("block_tokens is {}, expected 1 or more", "block_tokens"),
        ),
        (
            Reason.MISSING,
            pl.col(s.BLOCK_IDS).is_not_null() & pl.col("block_tokens").is_null(),
            pl.lit("request.block_ids are given without block_tokens"),
        ),
    ]
    return taken_apart(flat, rules)


def _block_tokens(rows: pl.DataFrame) -> int | None:
    sizes = rows["block_tokens"].drop_nulls().unique().sort().to_list()
    if len(sizes) > 1:
        raise DataError(
            f"blocks of {sizes[0]:g} and of {sizes[1]:g} tokens in one file; expected one size. Split the file"
        )
    return int(sizes[0]) if sizes else None


def _candidates(table: pa.Table) -> tuple[pl.DataFrame, dict[str, str]]:
    """Lay the candidates of all records one under the other, each with the line of its record."""
    if "candidates" not in table.column_names:
        return as_columns(pl.DataFrame(schema={LINE: pl.Int64}), CANDIDATE_COLUMNS), {}
    listed = table["candidates"].combine_chunks()
    items = listed.flatten()
    line = pc.take(table[LINE].combine_chunks(), pc.list_parent_indices(listed))
    names = [items.type.field(k).name for k in range(items.type.num_fields)]
    frame = pl.from_arrow(pa.table([line, *items.flatten()], names=[LINE, *names]))
    assert isinstance(frame, pl.DataFrame)
    gpu: dict[str, str] = {}
    if s.GPU in names:
        told = frame.filter(pl.col(s.GPU).is_not_null()).unique(s.INSTANCE, keep="first", maintain_order=True)
        gpu = dict(told.select(s.INSTANCE, s.GPU).iter_rows())
    return as_columns(frame, CANDIDATE_COLUMNS), gpu


FORMAT: Final = Format(
    name="native",
    description="Lodestar's decision log, JSON Lines or Parquet, one record a request",
    provides=("arrivals", "blocks", "decisions", "candidates", "propensities", "outcomes"),
    sniff=sniff,
    read=read,
    sample="the documented schema",
)
