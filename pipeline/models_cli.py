"""The commands about trained models: list their versions and verdicts, and choose by hand what is in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from lodestar.pipeline.console import Dataset, Home, Json, Seed, emit, progress_bar

if TYPE_CHECKING:
    from lodestar.data.workspace import Workspace
    from lodestar.models.registry.version_index import Index

__all__ = ["models_app"]


class _Listing(TyperGroup):
    """A group whose ``list`` need not be named: ``lodestar models DATASET`` lists the versions of a dataset."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name first where it is left out."""
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named else ["list", *args])


models_app = typer.Typer(name="models", cls=_Listing, rich_markup_mode=None)

Version = Annotated[str, typer.Argument(help="Version, or the beginning of its name.")]


@models_app.callback()
def models() -> None:
    """List versions of models with their verdicts, promote one by hand, or roll back."""


@models_app.command("list")
def list_versions(
    dataset: Annotated[str | None, typer.Argument(help="Name of a dataset; all that have models if left out.")] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """List versions, what is in use, and verdicts; the word list can be left out."""
    from lodestar.data.store import open_store, require_dataset
    from lodestar.data.workspace import Workspace
    from lodestar.models.registry.current import modelled_datasets, read_index
    from lodestar.reports.models import model_rows, models_tables

    workspace = Workspace.open(home)
    names = modelled_datasets(workspace) if dataset is None else [dataset]
    if dataset is not None and dataset not in modelled_datasets(workspace):
        with open_store(workspace) as con:
            require_dataset(con, dataset)
    rows = [row for name in names for row in model_rows(name, read_index(workspace, name))]
    emit(as_json, rows, lambda: models_tables(rows))


@models_app.command()
def show(dataset: Dataset, version: Version, home: Home = None, as_json: Json = False, seed: Seed = 0) -> None:
    """Show the whole verdict of a version, check by check."""
    from lodestar.data.workspace import Workspace
    from lodestar.models.registry.current import no_champion, read_index
    from lodestar.models.registry.version_index import resolved
    from lodestar.reports.models import model_rows, version_tables

    workspace = Workspace.open(home)
    index = read_index(workspace, dataset)
    if not index.versions:
        raise no_champion(workspace, dataset)
    name = resolved(index, version)["version"]
    rows = [row for row in model_rows(dataset, index) if row["version"] == name]
    emit(as_json, rows, lambda: version_tables(rows))


@models_app.command()
def promote(
    dataset: Dataset,
    version: Annotated[
        str | None, typer.Argument(help="Version, or the beginning of its name; the newest one if left out.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="Only this latency, as in ttft_ms; again for more.", show_default="all it has"),
    ] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Put a version in use by hand, whatever the gate said of it."""
    from lodestar.data.workspace import Workspace
    from lodestar.models.registry.releases import promote as run

    workspace = Workspace.open(home)
    _change("promote", workspace, dataset, lambda: run(workspace, dataset, version, target or None), as_json)


@models_app.command()
def rollback(
    dataset: Dataset,
    to: Annotated[
        str | None, typer.Option("--to", help="Version that was in use before.", show_default="the one before")
    ] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Put the models that were in use before back in use."""
    from lodestar.data.workspace import Workspace
    from lodestar.models.registry.releases import roll_back

    workspace = Workspace.open(home)
    _change("roll back", workspace, dataset, lambda: roll_back(workspace, dataset, to), as_json)


def _change(title: str, workspace: Workspace, dataset: str, change: Callable[[], Index], as_json: bool) -> None:
    """Change what is in use, and say what was and what is."""
    from lodestar.models.registry.current import champions
    from lodestar.reports.models import change_text

    before = champions(workspace, dataset)
    with progress_bar(title):
        reign = change().reigns[-1]
    done = {"dataset": dataset, "why": reign.why, "before": before, "champions": reign.champions}
    emit(as_json, done, lambda: change_text(dataset, before, reign.champions, reign.why))
