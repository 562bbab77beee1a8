"""The Qwen-Bailian usage traces: arrivals, blocks of 16 tokens by hash id, and the turn that each request follows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import polars as pl
import pyarrow as pa

from lodestar.data import schema as s
from lodestar.data.parsing.delimited import raw_of
from lodestar.data.parsing.json_lines import Decoder
from lodestar.data.parsing.rules import taken_apart
from lodestar.data.reading import LINE, ROW_COLUMNS, Format, Reading, as_columns, not_whole
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

NUMBERS: Final = ("timestamp", "input_length", "output_length")
IDS: Final = ("chat_id", "parent_chat_id")
KEYS: Final = (*IDS, *NUMBERS, "hash_ids")
COLUMNS: Final = pa.schema(
    [
        *((key, pa.int64()) for key in IDS),
        *((key, pa.float64()) for key in NUMBERS),
        ("hash_ids", pa.list_(pa.int64())),
    ]
)
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": list(KEYS),
    "properties": {
        **{key: {"type": "integer"} for key in (*IDS, "input_length", "output_length")},
        "timestamp": {"type": "number"},
        "hash_ids": {"type": "array", "items": {"type": "integer"}},
    },
}
BLOCK_TOKENS: Final = 16
NAMED_SIZE: Final = re.compile(r"blksz_(\d{1,6})")
NO_PARENT: Final = -1
OLDER: Final = "requests whose parent is not before them in the file; their session is named after it"


def sniff(head: bytes) -> bool:
    """Tell by the keys of the first record."""
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0]
    return first.startswith(b"{") and all(f'"{key}"'.encode() in first for key in KEYS)


def read(source: Source) -> Iterator[Reading]:
    """Read the records, one a line; times are seconds from the start of the trace.

    A session is a chain of turns, named after the `chat_id` of its first; a turn stands before those that follow it.
    The size of a block is the `blksz_` in the file's name, 16 tokens where the name has none.
    """
    named = NAMED_SIZE.search(source.name)
    block_tokens = max(int(named[1]), 1) if named else BLOCK_TOKENS
    roots: dict[int, int] = {}
    decoder = Decoder(COLUMNS, SCHEMA)
    for block, records in decoder.over(source.blocks()):
        flat = pl.from_arrow(records.columns)
        assert isinstance(flat, pl.DataFrame)
        sessions, older = _sessions(flat, roots)
        rows, bad = _sound(flat.with_columns(sessions), block_tokens)
        yield Reading(
            rows=as_columns(_renamed(rows), ROW_COLUMNS),
            rejects=pl.concat([records.rejects, bad]),
            lines=records.lines,
            raw=raw_of(block),
            clock="qwen-bailian",
            block_tokens=block_tokens,
            notes=() if named else (f"blocks are taken to be of {BLOCK_TOKENS} tokens, as in the published traces",),
            counted={OLDER: older} if older else {},
        )


def _sound(flat: pl.DataFrame, block_tokens: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take apart the records that lack a key, whose lengths are no whole numbers, or whose blocks do not fit them."""
    listed, tokens = pl.col("hash_ids").list.len(), pl.col("input_length")
    # A last block that is not full may be listed or not.
    fits = listed.is_between((tokens / block_tokens).floor(), (tokens / block_tokens).ceil())
    unfit = pl.format("hash_ids lists {} blocks of {} tokens for a prompt of {}", listed, pl.lit(block_tokens), tokens)
    rules = [
        *((Reason.MISSING, pl.col(key).is_null(), pl.lit(f"{key} is missing")) for key in KEYS),
        *(
            (Reason.WRONG_TYPE, not_whole(key), pl.format("{} is {}, no whole number", pl.lit(key), key))
            for key in NUMBERS[1:]
        ),
        (Reason.BLOCKS_UNFIT, ~fits, unfit),
    ]
    return taken_apart(flat, rules)


def _sessions(rows: pl.DataFrame, roots: dict[int, int]) -> tuple[pl.Series, int]:
    """Name the session of each row, and count the rows whose chain starts before the file; `roots` is added to."""
    names, older = [], 0
    for chat, parent in rows.select(IDS).iter_rows():
        if parent in (NO_PARENT, None):
            roots[chat] = chat
        else:
            older += parent not in roots
            roots[chat] = roots.setdefault(parent, parent)
        names.append(str(roots[chat]))
    return pl.Series(s.SESSION_ID, names, dtype=pl.String), older


def _renamed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        LINE,
        s.SESSION_ID,
        pl.col("chat_id").cast(pl.String).alias(s.REQUEST_ID),
        pl.col("timestamp").alias(s.ARRIVED_AT_S),
        pl.col("input_length").alias(s.PROMPT_TOKENS),
        pl.col("output_length").alias(s.OUTPUT_TOKENS),
        pl.col("hash_ids").alias(s.BLOCK_IDS),
    )


FORMAT: Final = Format(
    name="qwen-bailian",
    description="Qwen-Bailian usage trace, JSON Lines of arrivals with prefix blocks and chains of turns",
    provides=("arrivals", "blocks"),
    sniff=sniff,
    read=read,
    sample="the documented schema",
)
