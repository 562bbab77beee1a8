"""The result of a replay in the terminal, readable at 80 columns and better at 120."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from textwrap import wrap
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from lodestar.reports.estimate_grids import estimate_grids
from lodestar.reports.evidence import gates_grid, measured_grid
from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import number
from lodestar.reports.policies import NARROW, WIDE, policy_grid
from lodestar.reports.ranks import ranks_grid
from lodestar.reports.result import Result
from lodestar.reports.said import said_once, sentence
from lodestar.reports.sweep import sweep_grid
from lodestar.reports.tuning import tuning_grid
from lodestar.reports.weights import verdicts

__all__ = ["grid_table", "policies_table", "replay_tables", "sentences", "verdict_text"]

WIDE_COLUMNS: Final = 110  # what the policy table needs in one piece
FEW_COLUMNS: Final = 4  # so few leave room for whole names in any terminal
_BETWEEN: Final = 2  # blanks from one column to the next
STYLES: Final = {"": "", "best": "bold cyan", "good": "green", "bad": "red"}
VERDICT_STYLES: Final = {"trusted": "bold white on green", "untrusted": "bold white on red"}


def replay_tables(result: Result) -> RenderableType:
    """Return all tables of a replay: verdict and policies first, one step apart."""
    parts: list[RenderableType] = [_heading(result), verdict_text(result), policies_table(result)]
    if result.get("tuning"):
        parts.append(grid_table(tuning_grid(result)))
    if result.get("sweep"):
        parts.append(grid_table(sweep_grid(result["sweep"])))
    if result.get("ranks"):
        parts.append(grid_table(ranks_grid(result)))
    if result.get("measured"):
        parts.append(grid_table(measured_grid(result)))
    if result["trust"]["gates"]:
        parts.append(grid_table(gates_grid(result)))
    parts.append(_origins(result))
    parts += _one_step(result)
    if result["trust"]["verdict"] == "untrusted":
        parts.append(verdict_text(result))  # the last lines are what a terminal shows
    return Group(*parts)


def policies_table(result: Result) -> RenderableType:
    """Draw what each policy came to, in one piece where there is room and in two where not."""
    return _PolicyTables(result)


def grid_table(grid: Grid) -> RenderableType:
    """Draw one grid as wide as the terminal lets it; names are shown as they are, never read as markup."""
    return _GridTable(grid)


def sentences(title: str, items: Mapping[str, str]) -> RenderableType:
    """Draw terms and what is to say of each; terms of which the same is to say stand together."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for said, terms in said_once(items.items()).items():
        table.add_row(Text("\n".join(terms)), Text(said))
    return Group(Text(f"{title}\n", style="bold"), table, Text())


def verdict_text(result: Result) -> Text:
    """Return the verdict of the trust gates in one loud word, with its reasons below."""
    trust = result["trust"]
    style = VERDICT_STYLES.get(trust["verdict"], "bold black on yellow")
    text = Text().append(f" {trust['verdict'].upper()} ", style=style).append(f" {_meaning(trust['verdict'])}\n")
    for reason in trust["reasons"]:
        text.append(f"  · {reason}\n")
    return text


@dataclass(frozen=True, slots=True)
class _GridTable:
    """A grid that folds its names where the terminal is narrow, and comes in pieces where it is narrower still.

    Numbers are never cut.
    """

    grid: Grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        roomy = options.max_width >= WIDE_COLUMNS or len(self.grid.columns) <= FEW_COLUMNS
        names = 28 if roomy else 14
        yield Text(f"{self.grid.title}\n", style="bold")
        for k, piece in enumerate(_pieces(self.grid, names, options.max_width)):
            yield from (Text(),) if k else ()
            yield _table(piece, names)
        yield from (Text(warning, style="yellow") for warning in self.grid.warnings)
        yield from (Text(note, style="dim") for note in self.grid.notes)
        yield Text()


@dataclass(frozen=True, slots=True)
class _PolicyTables:
    result: Result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = policy_grid(self.result, WIDE)
        needed = console.measure(_table(whole, names=28), options=options.update(max_width=10 * WIDE_COLUMNS)).maximum
        if options.max_width >= max(WIDE_COLUMNS, needed):
            yield grid_table(whole)
            return
        first, second = (policy_grid(self.result, columns) for columns in NARROW)
        yield grid_table(Grid(first.title, first.columns))
        title = f"The same replay, {self.result['trust']['verdict']}: TPOT, E2E, cache and SLO"
        yield grid_table(Grid(title, second.columns, second.notes, second.warnings))


def _pieces(grid: Grid, names: int, width: int) -> Iterator[Grid]:
    """Yield the grid whole if it fits, else in pieces that do, each with the names that its rows begin with."""
    first = list(takewhile(lambda column: column.left, grid.columns))
    least = sum(_width(column, names) for column in first)
    piece: list[Column] = []
    used = least
    for column in grid.columns[len(first) :]:
        needed = _width(column, names)
        if piece and used + needed > width + _BETWEEN:
            yield replace(grid, columns=[*first, *piece])
            piece, used = [], least
        piece.append(column)
        used += needed
    yield replace(grid, columns=[*first, *piece])


def _width(column: Column, names: int) -> int:
    """Return how much room a column needs, with what parts it from the next: names may wrap, numbers may not."""
    texts = [_header(column, names).plain, *(_drawn(cell, names).plain for cell in column.cells)]
    parts = [part for text in texts for part in (text.split() if column.left else text.splitlines())]
    return _BETWEEN + max(map(cell_len, parts), default=0)


def _table(grid: Grid, names: int) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in grid.columns:
        table.add_column(_header(column, names), justify="left" if column.left else "right", no_wrap=not column.left)
    for row in grid.rows:
        table.add_row(*(_drawn(cell, names) for cell in row))
    return table


def _one_step(result: Result) -> list[RenderableType]:
    """Draw a few estimators beside the closed loop, or say why there are none."""
    said = result.get("one_step_notes", [])
    if not result["one_step"]:
        return [Text(f"No one-step estimates: {'; '.join(said)}\n", style="dim")] if said else []
    grids = estimate_grids(result, brief=True)
    usable, doubted = verdicts(result.get("one_step_diagnostics", []))
    notes = [] if "gap" in grids else list(result.get("gap_notes", []))
    notes += said
    return [
        *(grid_table(grids[name]) for name in ("gap", "estimators") if name in grids),
        *(Text(each) for each in usable),
        *(Text(each, style="yellow") for each in doubted),
        *(Text(sentence(each), style="dim") for each in notes),
        Text("All estimators, tails and weights: lodestar estimate, or the report.\n", style="dim"),
    ]


def _heading(result: Result) -> Text:
    return Text().append("Replay of ").append(result["dataset"], style="bold").append(f" · {result['created_at']}\n")


def _meaning(verdict: str) -> str:
    return {
        "trusted": "the replay passed its gates",
        "untrusted": "do not act on these closed-loop numbers",
    }.get(verdict, "nothing measured to judge the replay by")


def _header(column: Column, names: int) -> Text:
    title = column.title if column.left else "\n".join(_folded(word, names) for word in column.title.split(" "))
    return Text(title).append(f"\n{column.unit}" if column.unit else "", style="dim")


def _drawn(cell: Cell, names: int) -> Text:
    text = Text(cell.text if " " in cell.text else _folded(cell.text, names), style=STYLES[cell.mark])
    return text.append(f"\n{cell.note}", style="not bold dim") if cell.note else text


def _folded(name: str, width: int) -> str:
    """Break a name behind its hyphens, colons, commas, slashes and equals signs, and a part that is too long anywhere.

    >>> _folded("epsilon:aibrix-prefix-cache,epsilon=0.2", 14).splitlines()
    ['epsilon:', 'aibrix-prefix-', 'cache,epsilon=', '0.2']
    >>> _folded("/home/me/mine.py:Mine", 14).splitlines()
    ['/home/me/', 'mine.py:Mine']
    """
    lines = [""]
    for part in re.findall(r"[^-:,=/]*[-:,=/]|[^-:,=/]+", name):
        for piece in wrap(part, width, break_on_hyphens=False):
            if len(lines[-1]) + len(piece) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(lines)


def _origins(result: Result) -> RenderableType:
    """Say what the replay stands on: the engine model and what the log left out."""
    engine = result["engine"]
    capacity = f"cache {number(engine['kv_capacity_tokens'])} tokens an instance"
    instances = {"instances": str(engine["instances"])} if engine.get("instances") else {}
    inferred = {f"inferred {what}": how for what, how in result["inferred"].items()}
    return sentences("What it stands on", {"engine model": f"{engine['source']}, {capacity}", **instances, **inferred})
