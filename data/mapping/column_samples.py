"""The first rows of any table, as text: what its columns are called and what they hold."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from lodestar.data.errors import DataError
from lodestar.data.mapping.json_files import as_text, flattened
from lodestar.data.parsing.json_lines import Refused, load_json
from lodestar.data.sources.source import HEAD_BYTES, Source

__all__ = ["ColumnSample", "Table", "sampled"]

MOST_ROWS: Final = 1000
DELIMITERS: Final = ",;\t|"
PARQUET: Final = b"PAR1"
TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
MARKERS: Final = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-", "-9999", "-9999.0")


@dataclass(slots=True)
class ColumnSample:
    """A column and what the first rows hold in it.

    Attributes:
        name: as a mapping file names it.
        values: the texts, None where a row has nothing.
    """

    name: str
    values: list[str | None] = field(default_factory=list)

    @property
    def known(self) -> list[str]:
        """The texts that are there and stand for something."""
        return [value.strip() for value in self.values if value is not None and value.strip() not in MARKERS]

    @property
    def markers(self) -> list[str]:
        """The texts that stand for nothing, in columns that hold numbers."""
        found = dict.fromkeys(value.strip() for value in self.values if value is not None)
        return [value for value in found if value in MARKERS and value and self.numbers]

    @property
    def null_share(self) -> float:
        """How many of the rows have nothing."""
        return 1 - len(self.known) / len(self.values) if self.values else 1.0

    @property
    def numbers(self) -> list[float]:
        """The values as numbers; none where one of them is no number."""
        try:
            found = [float(value) for value in self.known]
        except ValueError:
            return []
        return found if all(abs(value) < float("inf") for value in found) else []

    @property
    def kind(self) -> str:
        """Say in words what it holds."""
        if not self.known:
            return "nothing"
        if self.numbers:
            return "whole numbers" if all(number % 1 == 0 for number in self.numbers) else "numbers"
        if all(TIME.match(value) for value in self.known):
            return "times"
        return "lists" if all(value.startswith("[") for value in self.known) else "text"


@dataclass(frozen=True, slots=True)
class Table:
    """The first rows of a source.

    Attributes:
        kind: as a mapping file names it.
        columns: by name.
        delimiter: of CSV.
        header: CSV with names.
        lists: JSON and Parquet: column of lists of objects → the columns within.
    """

    kind: str
    columns: dict[str, ColumnSample]
    delimiter: str = ","
    header: bool = True
    lists: dict[str, dict[str, ColumnSample]] = field(default_factory=dict)


def sampled(source: Source) -> Table:
    """Read the first rows of a source, whichever of the three kinds it is."""
    head = source.head()
    if head.startswith(PARQUET):
        return _records("parquet", _parquet_rows(source))
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")
    lines = [line for line in text.split("\n") if line.strip()]
    if len(head) == HEAD_BYTES and len(lines) > 1:
        lines.pop()  # cut in its middle
    if not lines:
        raise DataError(f"{source.name} is empty; expected CSV, JSON Lines or Parquet. Check the file")
    if lines[0].lstrip().startswith("{"):
        return _records("jsonl", _json_rows(source, lines))
    return _csv(lines[: MOST_ROWS + 1])


def _csv(lines: list[str]) -> Table:
    delimiter = max(DELIMITERS, key=lambda each: (lines[0].count(each), -DELIMITERS.index(each)))
    rows = [row for row in _split(lines, delimiter) if row]
    names = [name.strip() for name in rows[0]]
    header = not any(ColumnSample("", [name]).numbers or TIME.match(name) or not name for name in names)
    if not header:
        names = [f"column_{place}" for place in range(1, len(names) + 1)]
    columns = {name: ColumnSample(name) for name in names}
    for row in rows[1:] if header else rows:
        if len(row) == len(names):
            for name, value in zip(names, row, strict=True):
                columns[name].values.append(value)
    return Table("csv", columns, delimiter, header)


def _split(lines: list[str], delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"no CSV ({error}); expected CSV, JSON Lines or Parquet. Check the file") from error


def _json_rows(source: Source, lines: list[str]) -> list[dict[str, Any]]:
    rows = []
    for line in lines[:MOST_ROWS]:
        try:
            row = load_json(line)
        except Refused:
            continue
        if isinstance(row, dict):
            rows.append(row)
    if not rows:
        raise DataError(f"{source.name}: none of its first lines is a JSON object; expected one a line. Check the file")
    return rows


def _parquet_rows(source: Source) -> list[dict[str, Any]]:
    with source.on_disk() as path:
        try:
            batch = next(pq.ParquetFile(path).iter_batches(batch_size=MOST_ROWS), None)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{source.name}: damaged Parquet ({error}); expected a table. Check the file") from error
    frame = None if batch is None else pl.from_arrow(batch)
    if not isinstance(frame, pl.DataFrame):
        raise DataError(f"{source.name}: no rows; expected a table with some. Check the file")
    return frame.with_columns(pl.selectors.temporal().cast(pl.String)).to_dicts()


def _records(kind: str, rows: list[dict[str, Any]]) -> Table:
    flat = [flattened(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    lists: dict[str, dict[str, ColumnSample]] = {}
    columns: dict[str, ColumnSample] = {}
    for name in names:
        values = [row.get(name) for row in flat]
        objects = [each for value in values if isinstance(value, list) for each in value if isinstance(each, dict)]
        if objects:
            lists[name] = _columns(objects)
        else:
            columns[name] = ColumnSample(name, [_shown(value) for value in values])
    return Table(kind, columns, lists=lists)


def _columns(objects: Iterable[dict[str, Any]]) -> dict[str, ColumnSample]:
    return _records("jsonl", list(objects)).columns


def _shown(value: Any) -> str | None:
    try:
        return as_text(value)
    except (Refused, TypeError):
        return str(value)
