"""The Mooncake traces: arrivals in milliseconds and prefix blocks by hash id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import polars as pl
import pyarrow as pa

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.parsing.delimited import raw_of
from lodestar.data.parsing.json_lines import Decoder
from lodestar.data.parsing.rules import taken_apart
from lodestar.data.reading import LINE, ROW_COLUMNS, Format, Reading, as_columns, not_whole, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

KEYS: Final = ("timestamp", "input_length", "output_length", "hash_ids")
BLOCK_SIZES: Final = (512, 16, 32, 64, 128, 256, 1024, 2048)
FITTING_SHARE: Final = 0.99
COLUMNS: Final = pa.schema(
    [
        *((key, pa.float64()) for key in KEYS[:3]),
        ("hash_ids", pa.list_(pa.int64())),
    ]
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


def sniff(head: bytes) -> bool:
    """Tell by the keys of the first record, and by those that other traces with blocks add."""
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0]
    return first.startswith(b"{") and all(f'"{key}"'.encode() in first for key in KEYS) and b'"chat_id"' not in first


def read(source: Source) -> Iterator[Reading]:
    """Read the records, one a line; the block size follows from the first of them that tell it.

    `input_length` fills all blocks but the last, so one block size fits nearly all records.
    """
    block_tokens: int | None = None
    decoder = Decoder(COLUMNS, SCHEMA)
    for block, records in decoder.over(source.blocks()):
        flat = pl.from_arrow(records.columns)
        assert isinstance(flat, pl.DataFrame)
        rows, bad = _sound(flat)
        if block_tokens is None and len(rows):
            block_tokens = _block_tokens(rows)
        rows, unfit = _fitting(rows, block_tokens or BLOCK_SIZES[0])
        yield Reading(
            rows=as_columns(rows, ROW_COLUMNS),
            rejects=pl.concat([records.rejects, bad, unfit]),
            lines=records.lines,
            raw=raw_of(block),
            clock="mooncake",
            block_tokens=block_tokens,
        )


def _sound(flat: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take apart the records that lack a key or whose lengths are no whole numbers."""
    rules = [
        *((Reason.MISSING, pl.col(key).is_null(), pl.lit(f"{key} is missing")) for key in KEYS),
        *(
            (Reason.WRONG_TYPE, not_whole(key), pl.format("{} is {}, no whole number", pl.lit(key), key))
            for key in KEYS[1:3]
        ),
    ]
    return taken_apart(flat, rules)


def _fitting(rows: pl.DataFrame, block_tokens: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take apart the records that list more or fewer blocks than their prompt fills."""
    expected = (pl.col("input_length") / block_tokens).ceil().cast(pl.Int64)
    found = pl.col("hash_ids").list.len()
    unfit = rows.filter(expected != found)
    told = pl.format("hash_ids lists {} blocks, expected {} of {} tokens", found, expected, pl.lit(block_tokens))
    fit = rows.filter(expected == found) if len(unfit) else rows
    return fit.select(
        LINE,
        (pl.col("timestamp") / 1e3).alias(s.ARRIVED_AT_S),
        pl.col("input_length").alias(s.PROMPT_TOKENS),
        pl.col("output_length").alias(s.OUTPUT_TOKENS),
        pl.col("hash_ids").alias(s.BLOCK_IDS),
    ), rejects_of(unfit[LINE], Reason.BLOCKS_UNFIT, unfit.select(told).to_series())


def _block_tokens(rows: pl.DataFrame) -> int:
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
