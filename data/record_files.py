"""Frames of records into one file, a part at a time: JSON Lines or Parquet by the suffix, whole or not at all."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

import polars as pl
import pyarrow.parquet as pq
import zstandard

from lodestar.data.errors import ConfigError

__all__ = ["PARQUET", "SUFFIXES", "suffix_of", "write_records"]

PARQUET: Final = ".parquet"


def suffix_of(path: Path) -> str:
    """Return the suffix that says how a file is written.

    >>> suffix_of(Path("log.jsonl.gz"))
    '.jsonl.gz'
    """
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    if suffix is None:
        raise ConfigError(f"{path}: suffix is not known; expected one of {', '.join(SUFFIXES)}. Rename the file")
    return suffix


def write_records(path: Path, frames: Iterable[pl.DataFrame]) -> None:
    """Write frames of one schema, one after the other, as they come; the same ones give the same bytes.

    Raises:
        ConfigError: if the place cannot be written.
    """
    write = _write_parquet if suffix_of(path) == PARQUET else _write_json_lines
    half_written = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(half_written, suffix_of(path), iter(frames))
        half_written.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; expected a place that can be written. Name another one"
        ) from error
    finally:
        with suppress(OSError):
            half_written.unlink(missing_ok=True)


def _write_parquet(path: Path, _: str, frames: Iterator[pl.DataFrame]) -> None:
    first = next(frames).to_arrow()
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for frame in frames:
            writer.write_table(frame.to_arrow().cast(first.schema))


def _write_json_lines(path: Path, suffix: str, frames: Iterator[pl.DataFrame]) -> None:
    with _OPENERS[suffix](path) as out:
        for frame in frames:
            frame.write_ndjson(out)


def _open_plain(path: Path) -> BinaryIO:
    return path.open("wb")


@contextmanager
def _open_gzip(path: Path) -> Iterator[BinaryIO]:
    # No name and no time in it: the same records give the same bytes.
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
#: What a file of records may end in.
SUFFIXES: Final = (*_OPENERS, PARQUET)
