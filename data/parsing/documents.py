"""JSON documents that hold many rows each: one that is its whole source, or one a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import polars as pl

from lodestar.data.errors import DataError
from lodestar.data.parsing.json_lines import Refused, load_json
from lodestar.data.parsing.records import Entry, Row, converted
from lodestar.data.reading import LINE, Reading, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import MOST_DOCUMENT_BYTES, Source

__all__ = ["Document", "documents", "elements", "inside", "object_of", "shown", "unread", "whole_document"]

BOM: Final = b"\xef\xbb\xbf"
KEPT: Final = 1 << 16  # characters of a text that goes to the rejects


class Document(NamedTuple):
    """A decoded document; where it cannot be decoded, why, and the start of its text."""

    value: Any
    bad: Refused | None = None
    raw: str = ""


def documents(source: Source) -> Iterator[Document]:
    r"""Read one document a line where the first line is a whole one, else a single document.

    >>> from lodestar.data.sources.source import from_bytes
    >>> [each.value for each in documents(from_bytes(b'{"a": 1}\n\n{"a": 2}'))]
    [{'a': 1}, {'a': 2}]
    >>> [each.value for each in documents(from_bytes(b'{\n"a": 1}\n'))]
    [{'a': 1}]
    """
    first, line_end, _ = source.head().removeprefix(BOM).lstrip().partition(b"\n")
    # A line that is longer than the head is a whole document: those that are laid out for people have short lines.
    if line_end and not first.rstrip().endswith((b"}", b"]")):
        yield whole_document(source)
        return
    with source.stream() as stream:
        while line := stream.readline(MOST_DOCUMENT_BYTES + 1):
            if len(line) > MOST_DOCUMENT_BYTES:
                raise DataError(
                    f"{source.name}: a document of more than {MOST_DOCUMENT_BYTES >> 20} MiB in one line; expected "
                    "less, since it is read as a whole. Split it"
                )
            if line.strip():
                yield _decoded(line)


def whole_document(source: Source) -> Document:
    """Read a source that is one document."""
    return _decoded(source.document())


def _decoded(content: bytes) -> Document:
    try:
        return Document(load_json(content.removeprefix(BOM)))
    except Refused as error:
        return Document(None, error, content[:KEPT].decode("utf-8", errors="backslashreplace"))


def unread(document: Document, bad: Refused, number: int, place: str) -> Reading:
    """Make the reading of a document that cannot be used at all: one row, refused."""
    raw = document.raw or shown(document.value)
    return Reading(lines=1, rejects=rejects_of([number], bad.reason, [bad.detail], [raw], [place]))


def elements(
    found: Sequence[Any],
    before: int,
    place: Callable[[int], str],
    convert: Callable[[Any], Row],
    text_of: Callable[[Any], Any] = lambda element: element,
    **facts: Any,
) -> Reading:
    """Turn the elements of a document into a reading, as `converted` does; they follow on `before` rows of others.

    `place` tells where the first, second, … stands, and `text_of` what of an element goes to the rejects: it is
    written out for those that are refused only.
    """

    def raw(lines: pl.Series) -> list[str | None]:
        return [shown(text_of(found[line - before - 1])) for line in lines]

    reading = converted([Entry(before + i, place(i), each, "") for i, each in enumerate(found, 1)], convert, **facts)
    texts = pl.Series("raw", raw(reading.rejects[LINE]), dtype=pl.String)
    return replace(reading, rejects=reading.rejects.with_columns(texts), raw=raw)


def shown(value: Any) -> str:
    """Write a part of a document as it may stand in the rejects.

    >>> shown({"a": [1]})
    '{"a": [1]}'
    """
    try:
        return json.dumps(value)[:KEPT]
    except (RecursionError, ValueError):
        return f"a {type(value).__name__} that is nested too deep to be shown"


def object_of(value: Any) -> dict[str, Any]:
    """Take an element for an object.

    >>> object_of({"a": 1})
    {'a': 1}

    Raises:
        Refused: it is none.
    """
    if not isinstance(value, dict):
        raise Refused(Reason.WRONG_TYPE, f"{shown(value)[:80]} is a {type(value).__name__}, expected an object")
    return value


def inside(value: Any, path: str) -> Any:
    """Return what stands at a dotted path, None where nothing does.

    >>> inside({"a": {"b": 1}}, "a.b"), inside({"a": 1}, "a.b")
    (1, None)
    """
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
