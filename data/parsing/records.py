"""Records of no fixed shape to rows: for logs whose lines are nested, optional and few enough to be read in Python."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import polars as pl

from lodestar.data import schema as s
from lodestar.data.parsing.json_lines import Refused, records
from lodestar.data.reading import (
    CANDIDATE_COLUMNS,
    LINE,
    MOST_WHOLE,
    RECORD,
    ROW_COLUMNS,
    SAMPLE_COLUMNS,
    Columns,
    Reading,
    empty,
    no_rejects,
    rejects_of,
)
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["Entry", "Zero", "converted", "entries", "number", "require_characters", "seconds_as_ms", "text", "whole"]

CANDIDATES: Final = "candidates"
NANOSECONDS: Final = 10**9

Row = dict[str, Any]


class Entry(NamedTuple):
    """A record and where it stands: its number in the source, its place if it is no whole line, and its text."""

    number: int
    place: str | None
    value: dict[str, Any]
    raw: str


@dataclass(slots=True)
class Zero:
    """The moment from which the arrivals of a source count: the first that is asked for.

    >>> zero = Zero()
    >>> zero.seconds_since(1_700_000_000_500_000_000), zero.seconds_since(1_700_000_001_000_000_001), zero.at_s
    (0.0, 0.500000001, 1700000000.5)
    """

    at_ns: int | None = None

    def seconds_since(self, at_ns: int) -> float:
        """Return the seconds from the first moment to this one, exact to the nanosecond."""
        if self.at_ns is None:
            self.at_ns = at_ns
        return (at_ns - self.at_ns) / NANOSECONDS

    @property
    def at_s(self) -> float:
        """What the clock showed at the first moment."""
        return (self.at_ns or 0) / NANOSECONDS


def entries(source: Source) -> Iterator[tuple[list[Entry], pl.DataFrame]]:
    """Read JSON Lines, part by part: the objects, and the rejects of the lines that are none."""
    for block in source.blocks():
        lines = block.lines()
        good, bad = records(lines)
        text_of = dict(lines.iter_rows()) if good else {}
        yield [Entry(line, None, value, text_of[line]) for line, value in good], bad


def converted(
    found: Iterable[Entry], convert: Callable[[dict[str, Any]], Row], bad: pl.DataFrame | None = None, **facts: Any
) -> Reading:
    """Turn entries into a reading, each by `convert`, which raises `Refused` for those that cannot be used.

    A row is a dict of ``ROW_COLUMNS``, with its ``candidates`` (dicts of ``CANDIDATE_COLUMNS``) if it has any, or of
    ``SAMPLE_COLUMNS`` where it has a `sampled_at_s`. `facts` are the other fields of `Reading`.
    """
    rows: list[Row] = []
    candidates: list[Row] = []
    samples: list[Row] = []
    raws: dict[int, str] = {}
    refused = [no_rejects() if bad is None else bad]
    for entry in found:
        raws[entry.number] = entry.raw
        try:
            row = convert(entry.value)
        except Refused as error:
            place = None if entry.place is None else [entry.place]
            refused.append(rejects_of([entry.number], error.reason, [error.detail], [entry.raw], place))
            continue
        candidates += [{**each, LINE: entry.number} for each in row.pop(CANDIDATES, None) or ()]
        (samples if s.SAMPLED_AT_S in row else rows).append({**row, LINE: entry.number, RECORD: entry.place})
    rejects = pl.concat(refused)
    return Reading(
        lines=len(rows) + len(samples) + len(rejects),
        rows=_frame(rows, ROW_COLUMNS),
        candidates=_frame(candidates, CANDIDATE_COLUMNS),
        samples=_frame(samples, SAMPLE_COLUMNS),
        rejects=rejects,
        raw=lambda lines: [raws.get(line) for line in lines],
        **facts,
    )


def _frame(rows: list[Row], columns: Columns) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(columns)) if rows else empty(columns)


def number(record: dict[str, Any], path: str, required: bool = False) -> float | None:
    """Return the number at a dotted path, None where it is absent or null.

    >>> number({"a": {"b": 2}}, "a.b"), number({"a": None}, "a.b")
    (2.0, None)

    Raises:
        Refused: it is no finite number, or required and absent.
    """
    value = _at(record, path, required)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(Reason.WRONG_TYPE, f"{path}: {_shown(value)} is no number")
    try:
        finite = float(value)
    except OverflowError:
        finite = math.inf
    if not math.isfinite(finite):
        raise Refused(Reason.NOT_FINITE, f"{path}: {_shown(value)} is too large a number")
    return finite


def whole(record: dict[str, Any], path: str, required: bool = False) -> int | None:
    """Return the whole number at a dotted path, as `number` does.

    >>> whole({"tokens": 3.0}, "tokens")
    3
    """
    value = number(record, path, required)
    if value is None:
        return None
    if value % 1 or abs(value) > MOST_WHOLE:
        raise Refused(Reason.WRONG_TYPE, f"{path}: {_shown(value)} is no whole number")
    return int(_at(record, path, required))


def text(record: dict[str, Any], path: str, required: bool = False) -> str | None:
    """Return the text at a dotted path; whole numbers are names too.

    >>> text({"id": 7}, "id")
    '7'
    """
    value = _at(record, path, required)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(Reason.WRONG_TYPE, f"{path}: {_shown(value)} is no text")
    return str(value)


def seconds_as_ms(record: dict[str, Any], path: str, required: bool = False) -> float | None:
    """Return a duration that is logged in seconds, in milliseconds.

    >>> seconds_as_ms({"ttft": 0.25}, "ttft")
    250.0
    """
    value = number(record, path, required)
    return None if value is None else value * 1e3


def _at(record: dict[str, Any], path: str, required: bool) -> Any:
    value: Any = record
    for key in path.split("."):
        if value is not None and not isinstance(value, dict):
            raise Refused(Reason.WRONG_TYPE, f"{path}: {_shown(value)} is no object")
        value = None if value is None else value.get(key)
    if value is None and required:
        raise Refused(Reason.MISSING, f"{path} is missing")
    if isinstance(value, str) and not value.isascii():
        require_characters(path, value)
    return value


def require_characters(path: str, value: str) -> None:
    """Refuse half of a surrogate pair, which JSON may escape and no store can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(Reason.NOT_UTF8, f"{path}: {_shown(value)} holds what is no character") from None


def _shown(value: Any) -> str:
    try:
        return json.dumps(value)[:80]
    except (TypeError, ValueError, RecursionError):
        return repr(value)[:80]
