"""CSV to columns of text by a mapping file, with any separator, with or without a header."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import IO

import polars as pl

from lodestar.data.mapping.recipe import Recipe
from lodestar.data.mapping.text import TextPart, columns_found, named_by_field, wide_candidates, wide_columns
from lodestar.data.parsing.delimited import Fields, csv_parts, header_of, raw_of
from lodestar.data.reading import LINE
from lodestar.data.sources.source import Source
from lodestar.data.sources.unpack import unpacked

__all__ = ["csv_text"]


def csv_text(source: Source, recipe: Recipe) -> Iterator[TextPart]:
    """Read a CSV source, block by block."""
    header = header_of(source.head(), recipe.delimiter)
    if not recipe.header:
        header = [f"column_{place}" for place in range(1, len(header) + 1)]
    found = columns_found(header, [column.column for column in recipe.fields.values()])
    wide = wide_columns(header, recipe)
    wanted = tuple(dict.fromkeys([*found, *(name for of in wide.values() for name in of.values())]))
    # A header of our own is a line that the file does not have.
    extra = 0 if recipe.header else 1
    headed = _headed(source, header, recipe.delimiter) if extra else source
    for part in csv_parts(headed, Fields(texts=wanted), wanted, recipe.delimiter):
        yield TextPart(
            named_by_field(part.columns, recipe.fields).with_columns(pl.col(LINE) - extra),
            wide_candidates(part.columns, wide, recipe).with_columns(pl.col(LINE) - extra),
            part.rejects.with_columns(pl.col(LINE) - extra),
            part.lines,
            _moved(raw_of(part.block), extra),
        )


def _moved(look_up: Callable[[pl.Series], list[str | None]], extra: int) -> Callable[[pl.Series], list[str | None]]:
    return lambda lines: look_up(lines + extra)


def _headed(source: Source, header: list[str], delimiter: str) -> Source:
    first = (delimiter.join(header) + "\n").encode()

    def packed() -> IO[bytes]:
        return io.BufferedReader(_After(first, unpacked(source.packed(), source.name)))

    return Source(source.name, source.path, packed, source.found, (), source.aside)


class _After(io.RawIOBase):
    """A stream with something before it."""

    def __init__(self, first: bytes, rest: IO[bytes]) -> None:
        self._parts: list[IO[bytes]] = [io.BytesIO(first), rest]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while self._parts:
            part = self._parts[0].read(len(buffer))
            if part:
                buffer[: len(part)] = part
                return len(part)
            self._parts.pop(0)
        return 0

    def close(self) -> None:
        for part in self._parts:
            part.close()
        super().close()
