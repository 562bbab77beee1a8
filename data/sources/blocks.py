"""A text stream in blocks of whole lines, so that no file is ever in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Final, NamedTuple

import numpy as np
import polars as pl

from lodestar.data.reading import LINE, no_rejects, rejects_of
from lodestar.data.reasons import Reason

__all__ = ["BLOCK_BYTES", "Block", "blocks", "count_of"]

BLOCK_BYTES: Final = 1 << 24
MOST_LINE_BYTES: Final = 1 << 25
KEPT_BYTES: Final = 1 << 16  # of a line that is too long to be read
NEWLINE: Final = ord("\n")
BOM: Final = b"\xef\xbb\xbf"


def count_of(byte: int, content: bytes) -> int:
    r"""Count a byte that stands in a content very often: `bytes.count` is made for rare ones.

    >>> count_of(NEWLINE, b"a\nb\n")
    2
    """
    return int(np.count_nonzero(np.frombuffer(content, dtype=np.uint8) == byte))


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
        object.__setattr__(self, "rows", count_of(NEWLINE, self.content))

    def lines(self) -> pl.DataFrame:
        r"""Return frame `line`, `raw`, without the empty lines.

        >>> Block(b"a\r\n\nb\n", 7, no_rejects()).lines().rows()
        [(7, 'a'), (9, 'b')]
        """
        raw = pl.Series("raw", self.content.decode().split("\n")[:-1], dtype=pl.String)
        number = pl.int_range(self.first_line, self.first_line + len(raw), dtype=pl.Int64, eager=True)
        frame = pl.DataFrame({LINE: number, "raw": raw})
        return frame.with_columns(pl.col("raw").str.strip_chars("\r")).filter(pl.col("raw").str.strip_chars() != "")


def blocks(stream: IO[bytes], size: int = BLOCK_BYTES, most: int = MOST_LINE_BYTES) -> Iterator[Block]:
    r"""Cut a stream at line ends into blocks of about `size` bytes; a line of more than `most` bytes is set aside.

    >>> import io
    >>> [(block.first_line, block.content) for block in blocks(io.BytesIO(b"one\ntwo\nthree"), size=5)]
    [(1, b'one\n'), (2, b'two\n'), (3, b'three\n')]
    """
    line, kept = 1, b""
    part = stream.read(max(size, len(BOM))).removeprefix(BOM) or stream.read(size)
    while part:
        ahead = stream.read(size)
        part = part if ahead or part.endswith(b"\n") else part + b"\n"
        end = part.rfind(b"\n") + 1
        if end:
            block = _sound(b"".join((kept, memoryview(part)[:end])), line, most)
            yield block
            line, kept, part = line + block.rows, part[end:], ahead
            continue
        kept, part = kept + part, ahead
        if len(kept) > most:
            length, part = _skipped(stream, len(kept), part, size)
            yield Block(b"\n", line, _rejects([_too_long(line, kept, length, most)]))
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


def _sound(content: bytes, line: int, most: int) -> Block:
    if len(content) <= most and (content.isascii() or _is_text(content)):
        return Block(content, line, no_rejects())
    every, bad = content.split(b"\n"), []
    for place, raw in enumerate(every):
        aside = _too_long(line + place, raw, len(raw), most) if len(raw) > most else _not_utf8(line + place, raw)
        if aside is not None:
            bad.append(aside)
            every[place] = b""
    return Block(b"\n".join(every), line, _rejects(bad))


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


class Aside(NamedTuple):
    """A line that cannot be read: its number, why, and as much of it as is kept."""

    line: int
    reason: Reason
    detail: str
    raw: str


def _too_long(line: int, start: bytes, length: int, most: int) -> Aside:
    kept = start[:KEPT_BYTES]
    detail = f"{length} bytes, expected at most {most}; the first {len(kept)} are kept"
    return Aside(line, Reason.TOO_LONG, detail, kept.decode("utf-8", errors="backslashreplace"))


def _not_utf8(line: int, raw: bytes) -> Aside | None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        detail = f"byte {error.start + 1} of the line is no UTF-8"
        return Aside(line, Reason.NOT_UTF8, detail, raw.decode("utf-8", errors="backslashreplace"))
    return None


def _rejects(bad: list[Aside]) -> pl.DataFrame:
    parts = [no_rejects()]
    for reason in (Reason.TOO_LONG, Reason.NOT_UTF8):
        of_reason = [aside for aside in bad if aside.reason == reason]
        if of_reason:
            lines, _, details, raws = zip(*of_reason, strict=True)
            parts.append(rejects_of(list(lines), reason, list(details), list(raws)))
    return pl.concat(parts).sort(LINE)
