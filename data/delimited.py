"""CSV lines to columns, with the reason for every line that does not fit its header."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Final

import polars as pl

from lodestar.data.errors import DataError
from lodestar.data.reading import LINE, not_whole, rejects_of

__all__ = ["numbers", "raw_of", "split_csv"]

QUOTE: Final = '"'


def split_csv(lines: pl.DataFrame, required: tuple[str, ...] = ()) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split `line`, `raw` (header first) into text columns plus `line`, and the rejects: `line`, `reason`.

    >>> frame = pl.DataFrame({"line": [1, 2, 3], "raw": ["a,b", "1,2", "3"]})
    >>> columns, rejects = split_csv(frame)
    >>> columns.rows(), rejects.rows()
    ([(2, '1', '2')], [(3, 'expected 2 fields, found 1')])
    """
    header, body = _header(lines, required), lines.slice(1)
    quoted = body.filter(pl.col("raw").str.contains(QUOTE, literal=True))
    plain = body.filter(~pl.col("raw").str.contains(QUOTE, literal=True)).with_columns(
        pl.col("raw").str.split(",").alias("fields")
    )
    # Quotes are rare in logs of numbers, so only lines that hold one take Python's slower road.
    split = quoted.with_columns(pl.Series("fields", [_fields(raw) for raw in quoted["raw"]], dtype=pl.List(pl.String)))
    every = pl.concat([plain, split]).sort(LINE).with_columns(pl.col("fields").list.len().alias("found"))
    bad = every.filter(pl.col("found") != len(header))
    good = every.filter(pl.col("found") == len(header))
    columns = [pl.col("fields").list.get(i).str.strip_chars().alias(name) for i, name in enumerate(header)]
    reasons = bad.select(pl.format("expected {} fields, found {}", pl.lit(len(header)), "found"))
    return good.select(LINE, *columns), rejects_of(bad[LINE], reasons.to_series())


def numbers(frame: pl.DataFrame, columns: list[str], whole: tuple[str, ...] = ()) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Turn text columns into numbers (empty → NULL); rows with text that is no finite number become rejects.

    The columns in `whole` are Float64 too, but may only hold whole numbers.

    >>> good, rejects = numbers(pl.DataFrame({"line": [1, 2], "a": ["1.5", "x"]}), ["a"])
    >>> good.rows(), rejects.rows()
    ([(1, 1.5)], [(2, "column 'a': 'x' is no number")])
    """
    as_float = {name: pl.col(name).cast(pl.Float64, strict=False) for name in columns}
    finite = {name: value.is_finite().fill_null(pl.col(name).fill_null("") == "") for name, value in as_float.items()}
    reason = pl.coalesce(
        pl.when(~finite[name]).then(pl.format("column '{}': '{}' is no number", pl.lit(name), name)) for name in columns
    )
    judged = frame.with_columns(reason.alias("reason"))
    bad = judged.filter(pl.col("reason").is_not_null())
    good = judged.filter(pl.col("reason").is_null()).drop("reason")
    good = good.with_columns(value.alias(name) for name, value in as_float.items())
    fraction = pl.coalesce(
        pl.lit(None, dtype=pl.String),
        *(
            pl.when(not_whole(name)).then(pl.format("column '{}': {} is no whole number", pl.lit(name), name))
            for name in whole
        ),
    )
    uncountable = good.with_columns(fraction.alias("reason")).filter(pl.col("reason").is_not_null())
    return (
        good.join(uncountable, on=LINE, how="anti", maintain_order="left"),
        pl.concat([bad.select(LINE, "reason"), uncountable.select(LINE, "reason")]),
    )


def raw_of(lines: pl.DataFrame) -> Callable[[pl.Series], list[str]]:
    """Make the look-up of `Reading.raw` for a text file."""

    def look_up(wanted: pl.Series) -> list[str]:
        found = wanted.to_frame(LINE).join(lines, on=LINE, how="left", maintain_order="left")
        return found["raw"].to_list()

    return look_up


def _header(lines: pl.DataFrame, required: tuple[str, ...]) -> list[str]:
    header = [name.strip() for name in _fields(lines["raw"][0])]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"column {twice[0]!r} is there twice; expected it once. Remove one")
    missing = [name for name in required if name not in header]
    if missing:
        raise DataError(f"column {missing[0]!r} is missing; found {', '.join(header)[:200]}. Choose another --format")
    return header


def _fields(raw: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(raw)), [])
    except csv.Error:
        return []
