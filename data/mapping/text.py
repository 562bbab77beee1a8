"""What CSV, JSON Lines and Parquet have in common once read by a mapping file: columns of text, named by field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

import polars as pl

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.mapping.recipe import INSTANCE_HOLE, Column, Recipe
from lodestar.data.reading import LINE
from lodestar.data.sources.source import printable

__all__ = [
    "TextPart",
    "columns_found",
    "instances_in",
    "missing",
    "named_by_field",
    "no_candidates",
    "wide_candidates",
    "wide_columns",
]


class TextPart(NamedTuple):
    """A part of a source as text: `line` and a column a field; `line`, `instance` and a column a candidate's field."""

    rows: pl.DataFrame
    candidates: pl.DataFrame
    rejects: pl.DataFrame
    lines: int
    raw: Callable[[pl.Series], list[str | None]]


def named_by_field(columns: pl.DataFrame, fields: Mapping[str, Column]) -> pl.DataFrame:
    """Choose the columns of the fields, by the names of the fields."""
    return columns.select(LINE, *(pl.col(column.column).alias(name) for name, column in fields.items()))


def columns_found(header: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the wanted columns, all of which the header must have."""
    lacking = next((name for name in wanted if name not in header), None)
    if lacking is not None:
        raise missing(lacking, header)
    return list(wanted)


def missing(name: str, known: Sequence[str]) -> DataError:
    """Make the error for a column that is not there, with the closest match.

    >>> str(missing("tft", ["id", "ttft"]))
    "column 'tft' is missing; did you mean 'ttft'? Found: id, ttft. Correct the mapping"
    """
    close = get_close_matches(name, known, n=1)
    hint = f" did you mean {close[0]!r}?" if close else ""
    return DataError(
        f"column {name!r} is missing;{hint} Found: {printable(', '.join(known))[:300]}. Correct the mapping"
    )


def wide_columns(header: Sequence[str], recipe: Recipe) -> dict[str, dict[str, str]]:
    """Return instance → field → column: an instance is what fits {instance} in the columns of every field."""
    if recipe.candidate_list is not None or not recipe.candidate_fields:
        return {}
    found = {field: instances_in(header, column.column) for field, column in recipe.candidate_fields.items()}
    first = next(iter(found.values()))
    everywhere = [instance for instance in first if all(instance in of for of in found.values())]
    if not everywhere:
        patterns = ", ".join(column.column for column in recipe.candidate_fields.values())
        there = printable(", ".join(header))[:300]
        raise DataError(f"no instance has all of the columns {patterns}; found {there}. Correct [candidates]")
    return {instance: {field: of[instance] for field, of in found.items()} for instance in everywhere}


def instances_in(names: Sequence[str], pattern: str) -> dict[str, str]:
    """Return what stands at {instance} in the names that fit a pattern → the name.

    >>> instances_in(["pod-a/hit", "pod-b/hit", "hit"], "{instance}/hit")
    {'pod-a': 'pod-a/hit', 'pod-b': 'pod-b/hit'}
    """
    before, after = pattern.split(INSTANCE_HOLE, 1)
    return {
        name[len(before) : len(name) - len(after)]: name
        for name in names
        if name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
    }


def wide_candidates(columns: pl.DataFrame, wide: dict[str, dict[str, str]], recipe: Recipe) -> pl.DataFrame:
    """Make a row of each candidate, of columns that come once for each instance."""
    frames = [
        columns.select(LINE, pl.lit(instance).alias(s.INSTANCE), *(pl.col(name).alias(f) for f, name in of.items()))
        for instance, of in wide.items()
    ]
    return pl.concat([no_candidates(recipe), *frames]).sort(LINE, maintain_order=True)


def no_candidates(recipe: Recipe) -> pl.DataFrame:
    """Make the frame of candidates without rows."""
    return pl.DataFrame(
        schema={LINE: pl.Int64, s.INSTANCE: pl.String} | dict.fromkeys(recipe.candidate_fields, pl.String)
    )
