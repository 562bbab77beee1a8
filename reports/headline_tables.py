"""The result of `lodestar headline` in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.reports.headline import Document
from lodestar.reports.headline_grids import brief_claims_grid, convergence_grid, ranges_grid
from lodestar.reports.headline_page import short
from lodestar.reports.tables import grid_table

__all__ = ["headline_tables"]


def headline_tables(document: Document) -> RenderableType:
    """Return the ranges beside the paper's, the targets, convergence, and what is missed."""
    learners = list(dict.fromkeys(row["policy"] for row in document["learning"]))
    parts: list[RenderableType] = [grid_table(ranges_grid(document, learners))]
    parts.append(grid_table(brief_claims_grid(document, document["settings"]["policy"])))
    parts.append(grid_table(convergence_grid(document)))
    parts.append(Text("\n".join(short(document)) + "\n"))
    if files := document.get("files"):
        parts.append(Text("\n".join(f"{kind}  {path}" for kind, path in files.items()), overflow="fold"))
    return Group(*parts)
