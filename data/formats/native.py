"""Lodestar's own decision log: one JSON or Parquet record a request, described by ``native.schema.json``."""

from __future__ import annotations

import io
import json
from importlib import resources
from typing import Any, Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.delimited import raw_of
from lodestar.data.errors import DataError
from lodestar.data.files import text_lines
from lodestar.data.json_lines import RECORD, decoded
from lodestar.data.native_write import write_decision_log
from lodestar.data.reading import (
    CANDIDATE_COLUMNS,
    LINE,
    ROW_COLUMNS,
    Columns,
    Format,
    Reading,
    as_columns,
    not_whole,
    rejects_of,
)

__all__ = ["FORMAT", "native_schema", "write_decision_log"]

PARQUET_MAGIC: Final = b"PAR1"
OUTCOME: Final[Columns] = {**dict.fromkeys(s.OUTCOMES_LATENCIES, pl.Float64), s.STATUS: pl.String}
REQUEST: Final[Columns] = {
    s.REQUEST_ID: pl.String,
    s.ARRIVED_AT_S: pl.Float64,
    # Whole numbers are read as Float64, because Polars would cut 2.5 to 2 without a word.
    s.PROMPT_TOKENS: pl.Float64,
    s.OUTPUT_TOKENS: pl.Float64,
    s.BLOCK_IDS: pl.List(pl.Int64),
}
CANDIDATE: Final[Columns] = {
    s.INSTANCE: pl.String,
    s.GPU: pl.String,
    **dict.fromkeys((*s.SNAPSHOT_FIELDS, s.SCORE, s.PROBABILITY), pl.Float64),
}
RECORD_TYPE: Final = pl.Struct(
    {
        "request": pl.Struct(REQUEST),
        "block_tokens": pl.Float64,
        s.SNAPSHOT_AGE_MS: pl.Float64,
        s.POLICY: pl.String,
        s.MODEL_VERSION: pl.String,
        "candidates": pl.List(pl.Struct(CANDIDATE)),
        "chosen": pl.String,
        "outcome": pl.Struct(OUTCOME),
    }
)
# Values that Polars takes too kindly: booleans, block ids that are no whole numbers or no list, numbers for names.
SUSPICIOUS: Final = (
    r":\s*(true|false)|[\[,]\s*(true|false)"
    r'|"block_ids"\s*:\s*(\[[^\]]*[.eE"{]|[^\[n\s])'
    r'|"(request_id|instance|gpu|chosen|policy|model_version|status)"\s*:\s*[^"n\s]|"candidates"\s*:\s*[^\[n\s]'
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


def read(content: bytes) -> Reading:
    """Read JSON Lines or Parquet; the order of the records is the order of dispatch where no arrivals are logged."""
    if content.startswith(PARQUET_MAGIC):
        return _read_parquet(content)
    lines = text_lines(content)
    records, bad = decoded(lines, RECORD_TYPE, native_schema(), SUSPICIOUS)
    reading = _reading(records.unnest(RECORD), len(lines))
    return Reading(
        rows=reading.rows,
        candidates=reading.candidates,
        rejects=pl.concat([bad, reading.rejects]),
        lines=len(lines),
        raw=raw_of(lines),
        clock=reading.clock,
        block_tokens=reading.block_tokens,
        gpu=reading.gpu,
    )


def _read_parquet(content: bytes) -> Reading:
    try:
        frame = pl.read_parquet(io.BytesIO(content))
        if "request" not in frame.columns:
            raise DataError(f"no column 'request'; found {', '.join(frame.columns)[:200]}. See native.schema.json")
        return _reading(frame.with_row_index(LINE, offset=1).with_columns(pl.col(LINE).cast(pl.Int64)), len(frame))
    except pl.exceptions.PolarsError as error:
        first = str(error).splitlines()[0]
        raise DataError(f"not a native Parquet log ({first}); expected the columns of native.schema.json") from error


def _reading(records: pl.DataFrame, lines: int) -> Reading:
    rows, bad = _rows(records)
    candidates = _candidates(records).join(bad, on=LINE, how="anti", maintain_order="left")
    gpu = candidates.filter(pl.col(s.GPU).is_not_null()).unique(s.INSTANCE, keep="first", maintain_order=True)
    return Reading(
        rows=as_columns(rows, ROW_COLUMNS),
        candidates=as_columns(candidates, CANDIDATE_COLUMNS),
        rejects=bad,
        lines=lines,
        raw=lambda wanted: [json.dumps(records.row(line - 1, named=True), default=str) for line in wanted],
        clock="native" if rows[s.ARRIVED_AT_S].is_not_null().any() else None,
        block_tokens=_block_tokens(rows),
        gpu=dict(gpu.select(s.INSTANCE, s.GPU).iter_rows()),
    )


def _rows(records: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Flatten the records, and reject those without an id or with a broken number of tokens."""
    flat = records.drop("candidates", strict=False)
    for name in ("request", "outcome"):
        flat = flat.unnest(name) if isinstance(flat.schema.get(name), pl.Struct) else flat.drop(name, strict=False)
    columns = {**ROW_COLUMNS, s.PROMPT_TOKENS: pl.Float64, s.OUTPUT_TOKENS: pl.Float64, "block_tokens": pl.Float64}
    flat = as_columns(flat.rename({"chosen": s.INSTANCE}, strict=False), columns)
    blocks_alone = pl.col(s.BLOCK_IDS).is_not_null() & pl.col("block_tokens").is_null()
    rules = {
        "request.request_id is missing": pl.col(s.REQUEST_ID).fill_null("") == "",
        "request.prompt_tokens is no whole number": not_whole(s.PROMPT_TOKENS),
        "request.output_tokens is no whole number": not_whole(s.OUTPUT_TOKENS),
        "block_tokens is no positive whole number": not_whole("block_tokens") | (pl.col("block_tokens") < 1),
        "request.block_ids are given without block_tokens": blocks_alone,
    }
    reason = pl.coalesce(pl.when(broken).then(pl.lit(text)) for text, broken in rules.items())
    judged = flat.with_columns(reason.alias("reason"))
    bad = judged.filter(pl.col("reason").is_not_null())
    return judged.filter(pl.col("reason").is_null()), rejects_of(bad[LINE], bad["reason"])


def _block_tokens(rows: pl.DataFrame) -> int | None:
    sizes = rows["block_tokens"].drop_nulls().unique().sort().to_list()
    if len(sizes) > 1:
        raise DataError(
            f"blocks of {sizes[0]:g} and of {sizes[1]:g} tokens in one file; expected one size. Split the file"
        )
    return int(sizes[0]) if sizes else None


def _candidates(records: pl.DataFrame) -> pl.DataFrame:
    columns = {LINE: pl.Int64, **CANDIDATE}
    kind = records.schema.get("candidates")
    if not (isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct)):
        return as_columns(records.clear().select(LINE), columns)
    listed = records.select(LINE, "candidates").filter(pl.col("candidates").list.len() > 0)
    return as_columns(listed.explode("candidates").unnest("candidates"), columns)


FORMAT: Final = Format(
    name="native",
    description="Lodestar's decision log, JSON Lines or Parquet, one record a request",
    provides=("arrivals", "blocks", "decisions", "candidates", "propensities", "outcomes"),
    sniff=sniff,
    read=read,
)
