"""Columns of text to the canonical frames, by a mapping file: units, scales, null markers, times."""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

from lodestar.data import schema as s
from lodestar.data.mapping.recipe import ARRIVED_AT, COUNTS, NANOSECONDS, TEXTS, Column, Recipe
from lodestar.data.parsing.delimited import time_of
from lodestar.data.reading import LINE, no_rejects, not_whole, rejects_of
from lodestar.data.reasons import Reason

__all__ = ["Converted", "converted_columns"]

AT_NS: Final = "at_ns"
ZONE: Final = r"(Z|[+-]\d\d:?\d\d)$"
NAIVE: Final = "%Y-%m-%d %H:%M:%S%.f"
MOST_NS: Final = 9.2e18


class Converted(NamedTuple):
    """Typed columns, and the rejects of the rows that one of them cannot hold."""

    frame: pl.DataFrame
    rejects: pl.DataFrame


def converted_columns(text: pl.DataFrame, columns: dict[str, Column], recipe: Recipe) -> Converted:
    """Turn `line` and a column of text for each field into typed columns; times become nanoseconds in `at_ns`.

    >>> recipe = Recipe("csv", "", {}, {})
    >>> text = pl.DataFrame({"line": [2, 3], "ttft_ms": ["0.25", "soon"]})
    >>> frame, rejects = converted_columns(text, {"ttft_ms": Column("ttft", "s")}, recipe)
    >>> frame.rows(), rejects["detail"].to_list()
    ([(2, 250.0)], ["column 'ttft': 'soon' is no number"])
    """
    names = [name for name in columns if name in text.columns]
    clean = text.with_columns(_without_null(name, columns[name], recipe).alias(name) for name in names)
    typed = clean.select(
        *(name for name in clean.columns if name not in names),
        *(_typed(name, columns[name]).alias(AT_NS if name == ARRIVED_AT else name) for name in names),
    )
    steps = [_complaint(clean, typed, name, columns[name]) for name in names]
    rejects = pl.concat([no_rejects(), *steps]).unique(LINE, keep="first", maintain_order=True)
    return Converted(typed.join(rejects, on=LINE, how="anti", maintain_order="left"), rejects)


def _without_null(name: str, column: Column, recipe: Recipe) -> pl.Expr:
    stripped = pl.col(name).str.strip_chars()
    return pl.when(~stripped.is_in([*recipe.null, *column.null])).then(stripped)


def _typed(name: str, column: Column) -> pl.Expr:
    value = pl.col(name)
    if name == ARRIVED_AT:
        return _nanoseconds(value, column)
    if name == s.BLOCK_IDS:
        # As a list in JSON, or as numbers between blanks or commas.
        return value.str.extract_all(r"[^\s,\[\]]+").list.eval(pl.element().cast(pl.Int64, strict=False))
    if name in TEXTS:
        return (
            value.replace_strict(dict(column.values), default=None, return_dtype=pl.String) if column.values else value
        )
    return value.cast(pl.Float64, strict=False) * column.factor(name)


def _nanoseconds(value: pl.Expr, column: Column) -> pl.Expr:
    if column.unit == "iso":
        return _iso_ns(value, column)
    times = NANOSECONDS[(column.unit or "").rsplit("_", 1)[-1]]
    as_float = value.cast(pl.Float64, strict=False) * times
    # Decimals are exact to the nanosecond, which a float of today's nanoseconds is not.
    exact = (value.cast(pl.Decimal(38, 9), strict=False) * times).cast(pl.Int64, strict=False)
    return pl.when(as_float.abs() < MOST_NS).then(pl.coalesce(exact, as_float.round().cast(pl.Int64, strict=False)))


def _iso_ns(value: pl.Expr, column: Column) -> pl.Expr:
    zone = column.zone or "UTC"
    if column.layout:
        found = time_of(value, column.layout)
        return found.dt.epoch("ns") if "%z" in column.layout else _utc_ns(found, zone)
    text = value.str.replace("T", " ", literal=True).str.replace(r"Z$", "+00:00")
    zoned = time_of(text, "%Y-%m-%d %H:%M:%S%.f%#z").dt.epoch("ns")
    return pl.when(value.str.contains(ZONE)).then(zoned).otherwise(_utc_ns(time_of(text, NAIVE), zone))


def _utc_ns(naive: pl.Expr, zone: str) -> pl.Expr:
    """Hours that a change of clocks repeats or leaves out are no time that can be told."""
    return naive.dt.replace_time_zone(zone, ambiguous="null", non_existent="null").dt.epoch("ns")


def _complaint(clean: pl.DataFrame, typed: pl.DataFrame, name: str, column: Column) -> pl.DataFrame:
    """Return the rejects of a column: what it holds is not of its kind."""
    value = typed[AT_NS if name == ARRIVED_AT else name]
    both = pl.DataFrame({LINE: clean[LINE], "text": clean[name], "value": value})
    known, got = pl.col("text").is_not_null(), pl.col("value")
    if name in TEXTS:
        wrong = [(Reason.WRONG_VALUE, known & got.is_null(), "is in none of its values")]
    elif name == ARRIVED_AT:
        wrong = [(Reason.WRONG_TYPE, known & got.is_null(), f"is no time in {column.layout or column.unit}")]
    elif name == s.BLOCK_IDS:
        odd = got.list.eval(pl.element().is_null()).list.any()
        wrong = [(Reason.WRONG_TYPE, known & odd.fill_null(False), "holds what is no whole number")]
    else:
        wrong = [(Reason.WRONG_TYPE, known & got.is_null(), "is no number"), (Reason.NOT_FINITE, ~got.is_finite(), "")]
        wrong += [(Reason.WRONG_TYPE, not_whole("value"), "is no whole number")] if name in COUNTS else []
    found = [_rejects(both.filter(broken), reason, column, what) for reason, broken, what in wrong]
    return pl.concat(found)


def _rejects(bad: pl.DataFrame, reason: Reason, column: Column, what: str) -> pl.DataFrame:
    shown = pl.format(
        "column '{}': '{}' {}", pl.lit(column.column), pl.col("text").str.slice(0, 80), pl.lit(what or "is not finite")
    )
    return rejects_of(bad[LINE], reason, bad.select(shown).to_series())
