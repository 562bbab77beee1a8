"""What every command has in common: the options, where output goes, progress, and how errors end."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Home", "Json", "Seed", "emit", "progress_bar"]

Home = Annotated[
    Path | None,
    typer.Option("--home", envvar="LODESTAR_HOME", help="Workspace directory.", show_default="./.lodestar"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Makes the run repeatable.")]


def emit(as_json: bool, document: Any, table: Callable[[], RenderableType]) -> None:
    """Print a result: a table for people on stdout, or with --json the document there and the table on stderr."""
    from rich.console import Console

    Console(stderr=as_json).print(table())
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


@contextlib.contextmanager
def progress_bar(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show a bar with rate and time left on stderr; yields a function that sets (or adds to) what is done.

    Anything that libraries print on stdout in the meantime goes to stderr too.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with (
        contextlib.redirect_stdout(sys.stderr),
        Progress(*columns, console=Console(stderr=True), transient=True) as bar,
    ):
        task = bar.add_task(title, total=total, rate="")

        def update(add: int = 1, *, done: int | None = None, of: int | None = None, what: str | None = None) -> None:
            bar.update(
                task, advance=None if done is not None else add, completed=done, total=of, description=what or title
            )
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            bar.update(task, rate=f"{speed:,.1f}/s" if speed else "")

        yield update
