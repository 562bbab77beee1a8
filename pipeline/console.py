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
    from rich.console import Console, RenderableType

__all__ = ["Dataset", "Home", "Json", "Policies", "Seed", "emit", "progress_bar", "say_first_use"]

Home = Annotated[
    Path | None,
    typer.Option("--home", envvar="LODESTAR_HOME", help="Workspace directory.", show_default="./.lodestar"),
]
Dataset = Annotated[str, typer.Argument(help="Name of an ingested dataset.")]
Policies = Annotated[
    list[str],
    typer.Option(
        "--policy",
        help="Policy with settings, NAME,key=value, or FILE.py:CLASS; again for more: see lodestar policies.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Makes the run repeatable.")]


def emit(as_json: bool, document: Any, table: Callable[[], RenderableType]) -> None:
    """Print a result: a table for people on stdout, or with --json the document there and the table on stderr."""
    from rich.console import Console

    Console(stderr=as_json).print(table())
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


def say_first_use() -> None:
    """Say on stderr that compiling takes a while, where nothing has been compiled on this machine yet."""
    from lodestar.data.jit import is_first_use

    if is_first_use():
        sys.stderr.write("compiling for this machine: about a minute, once\n")
        sys.stderr.flush()


@contextlib.contextmanager
def progress_bar(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show a bar with rate and time left on stderr, where that is a terminal.

    Yields ``update(add=1, *, done=None, of=None, what=None)``, which adds to what is done, or sets it, its total and
    the title. Anything that libraries print on stdout in the meantime goes to stderr too.
    """
    from rich.console import Console

    console = Console(stderr=True)
    with contextlib.redirect_stdout(sys.stderr):
        if console.is_terminal:
            with _bar(console, title, total) as update:
                yield update
        else:
            yield lambda *_, **__: None


@contextlib.contextmanager
def _bar(console: Console, title: str, total: int | None) -> Iterator[Callable[..., None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, rate="")

        def update(add: int = 1, *, done: int | None = None, of: int | None = None, what: str | None = None) -> None:
            bar.update(
                task, advance=None if done is not None else add, completed=done, total=of, description=what or title
            )
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, rate=f"{speed:,.1f}/s" if speed else "")

        yield update
