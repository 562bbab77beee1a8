"""The commands about policies: list them, and score logged decisions by them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.pipeline.console import Dataset, Home, Json, Policies, Seed, emit, progress_bar, say_first_use

__all__ = ["policies_app"]

policies_app = typer.Typer(name="policies", rich_markup_mode=None)


@policies_app.callback(invoke_without_command=True)
def policies(context: typer.Context, home: Home = None, as_json: Json = False, seed: Seed = 0) -> None:
    """List the routing policies that replay knows, or score logged decisions by them."""
    if context.invoked_subcommand is not None:
        return
    from lodestar.pipeline.listings import policy_rows, policy_table
    from lodestar.pipeline.replay.policy_plugins import plugin_rows

    ours = policy_rows()
    rows = [*ours, *plugin_rows({row["policy"] for row in ours})]
    emit(as_json, rows, lambda: policy_table(rows))


@policies_app.command()
def score(
    dataset: Dataset,
    policy: Policies,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="File for the probability of every candidate: .parquet, .jsonl or .csv."),
    ] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Say how likely policies would have made the logged decisions."""
    say_first_use()
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.scoring import score_dataset
    from lodestar.reports.scores import score_tables

    with progress_bar("score"):
        found = score_dataset(Workspace.open(home), dataset, policy, to)
    emit(as_json, found, lambda: score_tables(found))
