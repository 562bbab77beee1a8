"""The commands of the public traces: list the catalogue, and get one into the workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.pipeline.console import Home, Json, Seed, emit, progress_bar

__all__ = ["traces_app"]

traces_app = typer.Typer(name="traces", rich_markup_mode=None)


@traces_app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    """List public traces of LLM serving, or get one."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@traces_app.command("list")
def list_(home: Home = None, as_json: Json = False, seed: Seed = 0) -> None:
    """List the public traces: licence, length, what each provides."""
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.traces_rows import catalogue_rows, catalogue_table

    rows = catalogue_rows(Workspace.open(home))
    emit(as_json, rows, lambda: catalogue_table(rows))


@traces_app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="A trace: see lodestar traces list.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="A mirror (a URL that ends in a slash, or a directory), another URL, or a copy of the file.",
            show_default="where its publisher has it",
        ),
    ] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Download a trace into the workspace, verify it, and say how to ingest it."""
    from lodestar.data.traces.catalogue import find_trace
    from lodestar.data.traces.download import get as run
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.traces_rows import fetched_sentences
    from lodestar.reports.tables import sentences

    trace = find_trace(name)
    with progress_bar(f"get {name}") as update:
        fetched = run(Workspace.open(home), trace, source, update).to_dict()
    emit(as_json, fetched, lambda: sentences(f"Trace {name} is in the workspace", fetched_sentences(fetched)))
