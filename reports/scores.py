"""How often policies agree with the logged decisions, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import number, percent
from lodestar.reports.tables import grid_table

__all__ = ["score_tables"]


def score_tables(report: Mapping[str, Any]) -> RenderableType:
    """Draw what `score_dataset` returned: one row a policy, and below it what could not be scored and why."""
    rows = report["policies"]
    columns = [
        Column("policy", "", [Cell(row["policy"]) for row in rows], left=True),
        Column("mean probability", "of the logged choice", [Cell(number(row["mean_probability"], 4)) for row in rows]),
        Column("possible", "% of logged choices", [Cell(percent(row["possible_ratio"])) for row in rows]),
        Column("scored", "decisions", [Cell(number(row["scored"])) for row in rows]),
        Column("not scored", "requests", [Cell(number(sum(row["not_scored"].values()))) for row in rows]),
    ]
    warnings = [
        f"{row['policy']}: {number(count)} not scored: {why}"
        for row in rows
        for why, count in row["not_scored"].items()
    ]
    notes = [f"{row['policy']}: {note}" for row in rows for note in row["notes"]]
    notes += [f"inferred: {name}: {how}" for name, how in report["inferred"].items()]
    if report["to"]:
        notes.append(f"every candidate's probability is in {report['to']}")
    title = f"{number(report['decisions'])} logged decisions of {report['dataset']}, scored by policies"
    return grid_table(Grid(title, columns, notes, warnings))
