"""The command `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestar.pipeline.console import Home, Json, Seed, emit, progress_bar, say_first_use

if TYPE_CHECKING:
    from lodestar.data.workspace import Workspace
    from lodestar.models.evaluation.evaluation import Evaluation

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="DATASET (its models in use), DATASET@challenger, DATASET@VERSION, or the directory of an artifact."
        ),
    ],
    dataset: Annotated[str, typer.Argument(help="Name of the ingested dataset to judge on.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", help="ttft_ms, tpot_ms or e2e_ms; again for more.", show_default="all that the model has"
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="A second model, to compare on the same rows.")
    ] = None,
    newest: Annotated[
        float | None,
        typer.Option("--newest", help="Keep only this newest share of the requests.", show_default="all unseen"),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=0, help="Fits with other seeds, and with shuffled labels, as controls.")
    ] = 3,
    to: Annotated[Path | None, typer.Option("--to", help="HTML file to write tables and figures to as well.")] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Judge a model on requests that it has not seen, from all sides."""
    say_first_use()
    from lodestar.data.workspace import Workspace
    from lodestar.models.evaluation.evaluation import Settings, evaluate_model
    from lodestar.reports.evaluation import evaluation_tables

    workspace = Workspace.open(home)
    settings = Settings(tuple(target or ()), against, newest, seeds, seed)
    with progress_bar("evaluate") as update:
        found = evaluate_model(workspace, model, dataset, settings, lambda what: update(0, what=f"evaluate {what}"))
        document = _kept(workspace, found, to)
    emit(as_json, document, lambda: evaluation_tables(document))


def _kept(workspace: Workspace, found: Evaluation, to: Path | None) -> dict[str, Any]:
    """Write the page where it was asked for, log the evaluation, and return it with where it lies."""
    from lodestar.reports.evaluation_log import log_evaluation
    from lodestar.reports.evaluation_page import evaluation_page

    document = found.to_dict()
    page = evaluation_page(document, found.shap)
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(page, encoding="utf-8")
    run_id = log_evaluation(workspace, document, page)
    return {**document, "to": None if to is None else str(to), "run_id": run_id}
