"""A text stream in blocks of whole lines, so that no file is ever in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Final

import polars as pl

from lodestar.data.reading import LINE, no_rejects, rejects_of
from lodestar.data.reasons import Reason

__all__ = ["BLOCK_BYTES", "Block", "blocks"]

BLOCK_BYTES: Final = 1 << 24
MOST_LINE_BYTES: Final = 1 << 25
KEPT_BYTES: Final = 1 << 16  # of a line that is too long to be read
BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Block:
    r"""Whole lines of a source, valid UTF-8, with ``\n`` at every end.

    Attributes:
        content: the lines; one that cannot be read stands as an empty line, so that the others keep their numbers.
        first_line: number of its first line, from 1.
        aside: `rejects` of the lines that cannot be read: too long, or not UTF-8.
        rows: how many lines it has, empty ones included.
    """

    content: bytes
    first_line: int
    aside: pl.DataFrame
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the lines, empty ones included."""
        object.__setattr__(self, "rows", self.content.count(b"\n"))

    def lines(self) -> pl.DataFrame:
        r"""Return frame `line`, `raw`, without the empty lines.

        >>> Block(b"a\r\n\nb\n", 7, no_rejects()).lines().rows()
        [(7, 'a'), (9, 'b')]
        """
        raw = pl.Series("raw", self.content.decode().split("\n")[:-1], dtype=pl.String)
        number = pl.int_range(self.first_line, self.first_line + len(raw), dtype=pl.Int64, eager=True)
        frame = pl.DataFrame({LINE: number, "raw": raw})
        return frame.with_columns(pl.col("raw").str.strip_chars("\r")).filter(pl.col("raw").str.strip_chars() != "")


def blocks(stream: IO[bytes], size: int = BLOCK_BYTES) -> Iterator[Block]:
    r"""Cut a stream at line ends into blocks of about `size` bytes.

    >>> import io
    >>> [(block.first_line, block.content) for block in blocks(io.BytesIO(b"one\ntwo\nthree"), size=5)]
    [(1, b'one\n'), (2, b'two\n'), (3, b'three\n')]
    """
    line, kept = 1, b""
    part = stream.read(size).removeprefix(BOM)
    while part:
        ahead = stream.read(size)
        part = part if ahead or part.endswith(b"\n") else part + b"\n"
        end = part.rfind(b"\n") + 1
        if end:
            block = _sound(kept + part[:end], line)
            yield block
            line, kept, part = line + block.rows, part[end:], ahead
            continue
        kept, part = kept + part, ahead
        if len(kept) > MOST_LINE_BYTES:
            length, part = _skipped(stream, len(kept), part, size)
            yield Block(b"\n", line, _too_long(line, kept[:KEPT_BYTES], length))
            line, kept = line + 1, b""


def _skipped(stream: IO[bytes], length: int, part: bytes, size: int) -> tuple[int, bytes]:
    """Read on to the end of a line without keeping it; return its length and what follows it."""
    while part:
        end = part.find(b"\n")
        if end >= 0:
            return length + end, part[end + 1 :] or stream.read(size)
        length += len(part)
        part = stream.read(size)
    return length, b""


def _too_long(line: int, start: bytes, length: int) -> pl.DataFrame:
    raw = start.decode("utf-8", errors="backslashreplace")
    detail = f"{length} bytes, expected at most {MOST_LINE_BYTES}; the first {len(start)} are kept"
    return rejects_of([line], Reason.TOO_LONG, [detail], [raw])


def _sound(content: bytes, line: int) -> Block:
    if content.isascii():
        return Block(content, line, no_rejects())
    try:
        content.decode()
    except UnicodeDecodeError:
        return _without_broken(content, line)
    return Block(content, line, no_rejects())


def _without_broken(content: bytes, line: int) -> Block:
    every, bad = content.split(b"\n"), []
    for place, raw in enumerate(every):
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            bad.append((line + place, f"byte {error.start + 1} of the line is no UTF-8", raw))
            every[place] = b""
    lines, details, raws = zip(*bad, strict=True)
    text = [raw.decode("utf-8", errors="backslashreplace") for raw in raws]
    return Block(b"\n".join(every), line, rejects_of(list(lines), Reason.NOT_UTF8, list(details), text))
