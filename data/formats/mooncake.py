"""The Mooncake traces: arrivals in milliseconds and prefix blocks by hash id."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.delimited import raw_of
from lodestar.data.errors import DataError
from lodestar.data.files import text_lines
from lodestar.data.json_lines import RECORD, decoded
from lodestar.data.reading import (
    CANDIDATE_COLUMNS,
    LINE,
    ROW_COLUMNS,
    Format,
    Reading,
    as_columns,
    not_whole,
    rejects_of,
)

__all__ = ["FORMAT"]

KEYS: Final = ("timestamp", "input_length", "output_length", "hash_ids")
BLOCK_SIZES: Final = (512, 16, 32, 64, 128, 256, 1024, 2048)
FITTING_SHARE: Final = 0.99
TYPE: Final = pl.Struct(
    {
        "timestamp": pl.Float64,
        "input_length": pl.Float64,
        "output_length": pl.Float64,
        "hash_ids": pl.List(pl.Int64),
    }
)
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": list(KEYS),
    "properties": {
        "timestamp": {"type": "number"},
        "input_length": {"type": "integer"},
        "output_length": {"type": "integer"},
        "hash_ids": {"type": "array", "items": {"type": "integer"}},
    },
}
SUSPICIOUS: Final = r':\s*(true|false|null)|"hash_ids"\s*:\s*(\[[^\]]*[.eEtfn"{]|[^\[\s])'


def sniff(head: bytes) -> bool:
    """Tell by the keys of the first record."""
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0]
    return first.startswith(b"{") and all(f'"{key}"'.encode() in first for key in KEYS)


def read(content: bytes) -> Reading:
    """Read the records; the block size follows from the data, since `input_length` fills the blocks but the last."""
    lines = text_lines(content)
    records, bad = decoded(lines, TYPE, SCHEMA, SUSPICIOUS)
    flat = records.unnest(RECORD)
    broken = flat.filter(_problem().is_not_null()).select(LINE, _problem().alias("reason"))
    whole = flat.join(broken, on=LINE, how="anti", maintain_order="left")
    block_tokens = _block_tokens(whole)
    expected = (pl.col("input_length") / block_tokens).ceil().cast(pl.Int64)
    found = pl.col("hash_ids").list.len()
    unfit = whole.filter(expected != found)
    reasons = unfit.select(
        pl.format("hash_ids lists {} blocks, expected {} of {} tokens", found, expected, pl.lit(block_tokens))
    )
    rows = whole.filter(expected == found).select(
        LINE,
        (pl.col("timestamp") / 1e3).alias(s.ARRIVED_AT_S),
        pl.col("input_length").alias(s.PROMPT_TOKENS),
        pl.col("output_length").alias(s.OUTPUT_TOKENS),
        pl.col("hash_ids").alias(s.BLOCK_IDS),
    )
    return Reading(
        rows=as_columns(rows, ROW_COLUMNS),
        candidates=as_columns(rows.clear().select(LINE), CANDIDATE_COLUMNS),
        rejects=pl.concat([bad, broken, rejects_of(unfit[LINE], reasons.to_series())]),
        lines=len(lines),
        raw=raw_of(lines),
        clock="mooncake",
        block_tokens=block_tokens,
    )


def _problem() -> pl.Expr:
    missing = (pl.when(pl.col(key).is_null()).then(pl.lit(f"key {key!r} is missing")) for key in KEYS)
    lengths = ("input_length", "output_length")
    broken = (pl.when(not_whole(key)).then(pl.lit(f"{key} is no whole number")) for key in lengths)
    return pl.coalesce(*missing, *broken)


def _block_tokens(rows: pl.DataFrame) -> int:
    if rows.is_empty():
        return BLOCK_SIZES[0]
    for size in BLOCK_SIZES:
        fits = (rows["input_length"] / size).ceil() == rows["hash_ids"].list.len()
        if fits.sum() >= FITTING_SHARE * len(rows):
            return size
    raise DataError(
        f"no block size fits: hash_ids and input_length agree for none of {sorted(BLOCK_SIZES)} tokens on 99 % of the "
        "records; expected one. Convert the log to native and name block_tokens"
    )


FORMAT: Final = Format(
    name="mooncake",
    description="Mooncake trace, JSON Lines of arrivals with prefix blocks by hash id",
    provides=("arrivals", "blocks"),
    sniff=sniff,
    read=read,
)
