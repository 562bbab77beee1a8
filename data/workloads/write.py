"""A workload into a file that `lodestar ingest` reads back as the same workload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.conversations import session_names
from lodestar.data.errors import ConfigError, unknown
from lodestar.data.log import Workload
from lodestar.data.record_files import PARQUET, SUFFIXES, write_records
from lodestar.data.workloads.lists import list_column
from lodestar.data.workloads.mooncake import mooncake_notes, mooncake_records

__all__ = ["FORMATS", "check_target", "write_workload"]

FORMATS: Final = ("native", "mooncake")
ROWS: Final = 50_000  # so many records are in memory at once


def write_workload(path: Path, workload: Workload, format: str = "native") -> tuple[str, ...]:
    """Write ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst`` or (native only) ``.parquet``, whole or not at all.

    Native holds all that a workload has. Mooncake has whole milliseconds, and must list every block: a partial last
    one, or one that the workload does not list, is written with an id of its own, which no other request has.
    Returns what the file holds otherwise than the workload, in words; the same workload gives the same bytes.
    """
    check_target(path, format)
    notes = mooncake_notes(workload) if format == "mooncake" else ()
    records = mooncake_records(workload, ROWS) if format == "mooncake" else _native_records(workload)
    write_records(path, records)
    return notes


def check_target(path: Path, format: str) -> str:
    """Return the suffix of a file to write, or say why it cannot be written in that format.

    >>> check_target(Path("made.jsonl.gz"), "mooncake")
    '.jsonl.gz'
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    suffixes = [suffix for suffix in SUFFIXES if format == "native" or suffix != PARQUET]
    suffix = next((suffix for suffix in suffixes if path.name.endswith(suffix)), None)
    if suffix is None:
        raise ConfigError(f"{path}: suffix is not known for {format}; expected one of {', '.join(suffixes)}. Rename it")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: {path.parent} is no directory; expected one that is there. Make it first")
    return suffix


def _native_records(workload: Workload) -> Iterator[pl.DataFrame]:
    """Make records without candidates, choice and outcome: the log of a router that has yet to decide."""
    for first in range(0, len(workload), ROWS):
        rows = slice(first, first + ROWS)
        count = len(workload.prompt_tokens[rows])
        named = {} if workload.session is None else {s.SESSION_ID: session_names(workload.session[rows])}
        request = pl.DataFrame(
            {
                s.REQUEST_ID: pl.int_range(first, first + count, eager=True).cast(pl.String),
                **named,
                s.ARRIVED_AT_S: workload.arrived_at_s[rows],
                s.PROMPT_TOKENS: workload.prompt_tokens[rows],
                s.OUTPUT_TOKENS: workload.output_tokens[rows],
                s.BLOCK_IDS: list_column(workload.block_ids, workload.block_offsets[first : first + count + 1]),
            }
        )
        block_tokens = pl.lit(workload.block_tokens, dtype=pl.Int64).alias("block_tokens")
        yield request.select(pl.struct(pl.all()).alias("request"), block_tokens)
