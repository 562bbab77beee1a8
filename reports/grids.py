"""A table as text in cells, to be drawn in the terminal or in the HTML report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Cell", "Column", "Grid", "Mark"]

Mark = Literal["", "best", "good", "bad"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its text, smaller lines below it, and whether it is the column's best, good news or bad news."""

    text: str
    note: str = ""
    mark: Mark = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: heading, unit and cells. Names stand left, numbers right."""

    title: str
    unit: str
    cells: list[Cell]
    left: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """One table: a title, columns of equal length, and sentences below, of which warnings stand out.

    >>> Grid("t", [Column("policy", "", [Cell("random")]), Column("TTFT", "ms", [Cell("2,731")])]).rows
    [(Cell(text='random', note='', mark=''), Cell(text='2,731', note='', mark=''))]
    """

    title: str
    columns: list[Column]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """The cells row by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))
