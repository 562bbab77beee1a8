"""Grids as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from lodestar.reports.grids import Cell, Column, Grid

__all__ = ["markdown"]


def markdown(grid: Grid, whole: bool = False) -> Iterator[str]:
    """Write a grid as the lines of a table in Markdown.

    Args:
        grid: the table.
        whole: whether units, and what stands below the text of a cell, come too, in brackets.

    >>> columns = [Column("policy", "", [Cell("random")], left=True), Column("TTFT", "ms", [Cell("2,731")])]
    >>> list(markdown(Grid("t", columns)))
    ['| policy | TTFT |', '| --- | ---: |', '| random | 2,731 |']
    """
    yield f"| {' | '.join(_title(column, whole) for column in grid.columns)} |"
    yield f"| {' | '.join('---' if column.left else '---:' for column in grid.columns)} |"
    for row in grid.rows:
        yield f"| {' | '.join(_text(cell, whole) for cell in row)} |"


def _title(column: Column, whole: bool) -> str:
    return f"{column.title} ({column.unit})" if whole and column.unit else column.title or " "


def _text(cell: Cell, whole: bool) -> str:
    return f"{cell.text} ({cell.note})" if whole and cell.note else cell.text
