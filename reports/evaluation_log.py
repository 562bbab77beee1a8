"""An evaluation as an MLflow run: metrics flat, tables as tables, and the page to read in MLflow's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lodestar.data.workspace import Workspace
from lodestar.models.registry.tracking import quiet, tracked_run
from lodestar.reports.evaluation import model_names
from lodestar.reports.evaluation_grids import evaluation_grids
from lodestar.reports.grids import Grid
from lodestar.reports.mlflow_log import metric_name

__all__ = ["flat_metrics", "log_evaluation"]


def log_evaluation(workspace: Workspace, document: Mapping[str, Any], page: str) -> str:
    """Log one evaluation as a run beside the trainings, and return the run's id.

    Metrics are named ``<target>/<what>``, as in ``ttft_ms/model/mae_ms``; the ends of their intervals end in ``.low``
    and ``.high``. A character that MLflow does not take in a name becomes an underscore.

    Args:
        workspace: whose MLflow store takes the run.
        document: ``Evaluation.to_dict()``, which is logged too.
        page: what `evaluation_page` returned.
    """
    import mlflow

    name = f"evaluate {document['model']} on {document['dataset']}"
    tags = {"kind": "evaluation", "dataset": document["dataset"], "model": document["model"]}
    tags |= {"trained_on": document["trained_on"]} | ({"against": document["against"]} if document["against"] else {})
    with tracked_run(workspace, name, tags) as run_id, quiet():
        mlflow.log_params({"seed": document["seed"], **{key: tags[key] for key in tags if key != "kind"}})
        for target, found in document["targets"].items():
            mlflow.set_tag(f"{target}.judged", found["judged"])
            for grid_name, grid in evaluation_grids(target, found, model_names(document)).items():
                if grid.rows:
                    mlflow.log_table(_table(grid), f"{target}/{grid_name}.json")
        # After the tables: to log one, MLflow reads the whole run twice.
        mlflow.log_metrics({metric_name(name): value for name, value in flat_metrics(document)})
        mlflow.log_dict(dict(document), "evaluation.json")
        mlflow.log_text(page, "evaluation.html")
    return run_id


def flat_metrics(document: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every figure that is one number for a target, with the ends of its interval."""
    for target, found in document["targets"].items():
        yield f"{target}/rows", float(found["rows"])
        yield f"{target}/censored", float(found["censored"])
        for name in ("predictors", "quantiles", "ranking", "controls"):
            prefix = target if name in ("predictors", "quantiles") else f"{target}/{name}"
            yield from _numbers(prefix, found[name] or {})
        for row in found["slices"]:
            place = f"{target}/{row['by']}/{row['slice']}"
            kept = {key: row[key] for key in ("rows", "mae_ms", "bias_ms", "p90_coverage")}
            yield from _numbers(place, kept)
        for row in found["saturation"]:
            yield from _numbers(f"{target}/saturation/{row['where']}", {"bias_ms": row["bias_ms"]})
        for row in found["differences"]:
            yield from _numbers(f"{target}/difference", {row["metric"]: row["difference"]})


def _numbers(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Walk nested figures; one with an interval has its ends beside it."""
    for name, value in values.items():
        if isinstance(value, int | float):  # True and False among them
            yield f"{prefix}/{name}", float(value)
        elif isinstance(value, Mapping) and "low" in value and "high" in value:
            ends = {"": value["value"], ".low": value["low"], ".high": value["high"]}
            yield from ((f"{prefix}/{name}{end}", float(each)) for end, each in ends.items() if each is not None)
        elif isinstance(value, Mapping):
            yield from _numbers(f"{prefix}/{name}", value)


def _table(grid: Grid) -> dict[str, list[str]]:
    """Return a grid as columns of text, as MLflow's table view shows them."""
    columns: dict[str, list[str]] = {}
    for column in grid.columns:
        title = f"{column.title} ({column.unit})" if column.unit else column.title or " "
        columns[title] = [f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in column.cells]
    return columns
