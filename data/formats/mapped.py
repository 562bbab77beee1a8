"""Any CSV, JSON Lines or Parquet file, by a mapping file that says which column is which field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.mapping.columns import AT_NS, converted_columns
from lodestar.data.mapping.csv_files import csv_text
from lodestar.data.mapping.json_files import json_text
from lodestar.data.mapping.parquet_files import parquet_text
from lodestar.data.mapping.recipe import ARRIVED_AT, Recipe, load_mapping
from lodestar.data.mapping.text import TextPart
from lodestar.data.parsing.records import Zero
from lodestar.data.reading import CANDIDATE_COLUMNS, LINE, ROW_COLUMNS, Format, Reading, as_columns, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["NAME", "mapped_format"]

NAME: Final = "mapped"
NANOSECONDS: Final = 1e9
READERS: Final = {"csv": csv_text, "jsonl": json_text, "parquet": parquet_text}
SHOWN: Final = 12  # characters of the mapping's sha256


def mapped_format(path: Path) -> Format:
    """Make the format that a mapping file describes; it is never sniffed, but named with ``--map``."""
    recipe = load_mapping(path)
    return Format(
        name=NAME,
        description=f"{recipe.kind} by the mapping file {path.name}",
        provides=_provides(recipe),
        sniff=lambda head: False,
        read=lambda source: _read(source, recipe),
        sample="the documented schema",
        key=recipe.sha256[:12],
    )


def _provides(recipe: Recipe) -> tuple[str, ...]:
    mapped = {*recipe.fields, *recipe.constants}
    told = {
        "arrivals": ARRIVED_AT in mapped,
        "blocks": s.BLOCK_IDS in mapped,
        "decisions": s.INSTANCE in mapped,
        "candidates": bool(recipe.candidate_fields),
        "propensities": s.PROBABILITY in recipe.candidate_fields,
        "outcomes": bool(mapped.intersection(s.OUTCOMES_LATENCIES)),
    }
    return tuple(what for what, there in told.items() if there)


def _read(source: Source, recipe: Recipe) -> Iterator[Reading]:
    """Read the rows: one a line of CSV or JSON Lines, or one a row of Parquet; notes say what the mapping decided."""
    zero = Zero()
    for part in READERS[recipe.kind](source, recipe):
        yield _reading(part, recipe, zero)


def _reading(part: TextPart, recipe: Recipe, zero: Zero) -> Reading:
    rows, bad_rows = converted_columns(part.rows, dict(recipe.fields), recipe)
    candidates, bad_candidates = converted_columns(part.candidates, dict(recipe.candidate_fields), recipe)
    bad_candidates = pl.concat([bad_candidates, _nameless(candidates)]).unique(LINE, keep="first", maintain_order=True)
    bad_candidates = bad_candidates.join(bad_rows, on=LINE, how="anti", maintain_order="left")
    rejects = pl.concat([part.rejects, bad_rows, bad_candidates])
    rows = _timed(rows.join(rejects, on=LINE, how="anti", maintain_order="left"), zero)
    rows = rows.with_columns(pl.lit(value).alias(name) for name, value in recipe.constants.items())
    # An instance of which a row says nothing was no candidate of it.
    said = pl.any_horizontal(*(pl.col(name).is_not_null() for name in recipe.candidate_fields), pl.lit(False))
    candidates = candidates.filter(said).join(rejects, on=LINE, how="anti", maintain_order="left")
    return Reading(
        rows=as_columns(rows, ROW_COLUMNS),
        candidates=as_columns(candidates, CANDIDATE_COLUMNS),
        rejects=rejects,
        lines=part.lines,
        raw=part.raw,
        clock=_clock(recipe),
        zero_s=zero.at_s,
        block_tokens=recipe.block_tokens,
        version=f"map {recipe.sha256[:SHOWN]}",
        notes=_notes(recipe),
    )


def _nameless(candidates: pl.DataFrame) -> pl.DataFrame:
    lines = candidates.filter(pl.col(s.INSTANCE).is_null())[LINE].unique(maintain_order=True)
    return rejects_of(lines, Reason.MISSING, ["a candidate names no instance"] * len(lines))


def _timed(rows: pl.DataFrame, zero: Zero) -> pl.DataFrame:
    if AT_NS not in rows.columns:
        return rows
    known = rows[AT_NS].drop_nulls()
    if len(known):
        zero.seconds_since(int(known[0]))
    # Two times may lie further apart than 64 bits of nanoseconds reach.
    since = pl.col(AT_NS).cast(pl.Int128) - pl.lit(zero.at_ns or 0, dtype=pl.Int128)
    return rows.with_columns((since.cast(pl.Float64) / NANOSECONDS).alias(s.ARRIVED_AT_S))


def _clock(recipe: Recipe) -> str | None:
    column = recipe.fields.get(ARRIVED_AT)
    if column is None:
        return None
    relative = (column.unit or "").startswith("relative")
    return f"map {recipe.sha256[:SHOWN]}" if relative else "unix"


def _notes(recipe: Recipe) -> tuple[str, ...]:
    fixed = [f"{name} is {value!r} in every row, by the mapping file" for name, value in recipe.constants.items()]
    column = recipe.fields.get(ARRIVED_AT)
    if column is not None and column.unit == "iso" and column.zone is None:
        fixed.append("times without a zone are taken as UTC")
    return tuple(fixed)
