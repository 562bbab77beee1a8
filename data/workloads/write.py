"""A workload into a file that `lodestar ingest` reads back as the same workload."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

import polars as pl
import pyarrow.parquet as pq
import zstandard

from lodestar.data import schema as s
from lodestar.data.errors import ConfigError, unknown
from lodestar.data.log import Workload
from lodestar.data.workloads.lists import list_column
from lodestar.data.workloads.mooncake import mooncake_notes, mooncake_records

__all__ = ["FORMATS", "check_target", "write_workload"]

FORMATS: Final = ("native", "mooncake")
PARQUET: Final = ".parquet"
ROWS: Final = 50_000  # so many records are in memory at once


def write_workload(path: Path, workload: Workload, format: str = "native") -> tuple[str, ...]:
    """Write ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst`` or (native only) ``.parquet``, whole or not at all.

    Native holds all that a workload has. Mooncake has whole milliseconds, and must list every block: a partial last
    one, or one that the workload does not list, is written with an id of its own, which no other request has.
    Returns what the file holds otherwise than the workload, in words; the same workload gives the same bytes.
    """
    suffix = check_target(path, format)
    notes = mooncake_notes(workload) if format == "mooncake" else ()
    records = mooncake_records(workload, ROWS) if format == "mooncake" else _native_records(workload)
    with _whole_or_nothing(path) as part:
        if suffix == PARQUET:
            _write_parquet(part, records)
        else:
            with _OPENERS[suffix](part) as out:
                for frame in records:
                    frame.write_ndjson(out)
    return notes


def check_target(path: Path, format: str) -> str:
    """Return the suffix of a file to write, or say why it cannot be written in that format.

    >>> check_target(Path("made.jsonl.gz"), "mooncake")
    '.jsonl.gz'
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    suffixes = [*_OPENERS, PARQUET] if format == "native" else [*_OPENERS]
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
        request = pl.DataFrame(
            {
                s.REQUEST_ID: pl.int_range(first, first + count, eager=True).cast(pl.String),
                s.ARRIVED_AT_S: workload.arrived_at_s[rows],
                s.PROMPT_TOKENS: workload.prompt_tokens[rows],
                s.OUTPUT_TOKENS: workload.output_tokens[rows],
                s.BLOCK_IDS: list_column(workload.block_ids, workload.block_offsets[first : first + count + 1]),
            }
        )
        block_tokens = pl.lit(workload.block_tokens, dtype=pl.Int64).alias("block_tokens")
        yield request.select(pl.struct(pl.all()).alias("request"), block_tokens)


@contextmanager
def _whole_or_nothing(path: Path) -> Iterator[Path]:
    half_written = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield half_written
        half_written.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; expected a place that can be written. Name another one"
        ) from error
    finally:
        half_written.unlink(missing_ok=True)


def _write_parquet(path: Path, records: Iterator[pl.DataFrame]) -> None:
    first = next(records).to_arrow()
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for frame in records:
            writer.write_table(frame.to_arrow().cast(first.schema))


def _open_plain(path: Path) -> BinaryIO:
    return path.open("wb")


@contextmanager
def _open_gzip(path: Path) -> Iterator[BinaryIO]:
    # No name and no time in it: the same workload gives the same bytes.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as out:
        yield cast(BinaryIO, out)


@contextmanager
def _open_zstd(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw, closefd=False) as out:
        yield cast(BinaryIO, out)


_OPENERS: Final[dict[str, Callable[[Path], AbstractContextManager[BinaryIO]]]] = {
    ".jsonl": _open_plain,
    ".jsonl.gz": _open_gzip,
    ".jsonl.zst": _open_zstd,
}
