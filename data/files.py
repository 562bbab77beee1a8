"""Reading a log file: plain, gzip or zstd, told apart by content and never by name."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from pathlib import Path
from typing import Final

import polars as pl
import zstandard

from lodestar.data.errors import DataError

__all__ = ["decompressed", "read_file", "sha256_of", "text_lines"]

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


def read_file(path: Path) -> bytes:
    """Read a file as it lies on disk."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a log file that can be read. Check the path") from error


def sha256_of(content: bytes) -> str:
    """Name a content.

    >>> sha256_of(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def decompressed(content: bytes, name: str = "content") -> bytes:
    """Undo gzip or zstd where the content starts with their magic; other content comes back unchanged.

    >>> decompressed(gzip.compress(b"a,b")), decompressed(b"a,b")
    (b'a,b', b'a,b')
    """
    try:
        if content.startswith(GZIP_MAGIC):
            return gzip.decompress(content)
        if content.startswith(ZSTD_MAGIC):
            return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True).read()
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(f"{name}: damaged compressed file ({error}); expected a whole one. Copy it again") from error
    return content


def text_lines(content: bytes) -> pl.DataFrame:
    r"""Split text into frame `line` (from 1), `raw`, without the empty lines; bytes that are no UTF-8 become U+FFFD.

    >>> text_lines(b"a\r\n\nb").rows()
    [(1, 'a'), (3, 'b')]
    """
    raw = pl.Series("raw", content.decode("utf-8", errors="replace").split("\n"), dtype=pl.String)
    frame = pl.DataFrame({"line": pl.int_range(1, len(raw) + 1, dtype=pl.Int64, eager=True), "raw": raw})
    return frame.with_columns(pl.col("raw").str.strip_chars("\r\ufeff")).filter(pl.col("raw").str.strip_chars() != "")
