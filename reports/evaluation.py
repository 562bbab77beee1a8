"""An evaluation in the terminal, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.reports.evaluation_grids import evaluation_grids
from lodestar.reports.evaluation_summary import summary_grid
from lodestar.reports.numbers import number
from lodestar.reports.tables import grid_table, sentences

__all__ = ["evaluation_tables", "judged_on", "model_names"]


def evaluation_tables(document: Mapping[str, Any]) -> RenderableType:
    """Draw all tables of an evaluation.

    Args:
        document: ``Evaluation.to_dict()``.
    """
    heading = Text().append("Model ").append(document["model"], style="bold").append(" on ")
    heading.append(document["dataset"], style="bold")
    if document["against"]:
        heading.append(" against ").append(document["against"], style="bold")
    parts: list[RenderableType] = [heading.append("\n")]
    for target, found in document["targets"].items():
        parts.append(sentences(target.removesuffix("_ms").upper(), judged_on(found)))
        parts += [grid_table(grid) for grid in evaluation_grids(target, found, model_names(document)).values()]
    for title, items in (("Not judged", document["skipped"]), ("What the log left out", document["notes"])):
        if items:
            parts.append(sentences(title, items))
    parts.append(grid_table(summary_grid(document)))  # the last lines are what a terminal shows
    return Group(*parts)


def model_names(document: Mapping[str, Any]) -> dict[str, str]:
    """Return what the models are called."""
    return {name: document[name] for name in ("model", "against") if document[name]}


def judged_on(found: Mapping[str, Any]) -> dict[str, str]:
    """Say which rows a target was judged on, by which model, and what was left out."""
    told = {"model": found["judged"]}
    if found["against_judged"]:
        told["against"] = found["against_judged"]
    told["rows"] = (
        f"{number(found['rows'])} of {number(found['requests'])} requests, "
        f"{number(found['first_request'])} to {number(found['last_request'])}"
    )
    if found["censored"]:
        told["rows"] += f", {number(found['censored'])} of them cut off"
    if found["excluded"]:
        told["without a row"] = ", ".join(f"{number(count)} with {why}" for why, count in found["excluded"].items())
    if not found["ranking"]["model"]["decisions"]:
        told["ranking"] = "not judged: the log has no decision with two candidates or more"
    if found["controls"]["note"]:
        told["controls"] = found["controls"]["note"]
    return told
