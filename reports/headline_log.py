"""The study of `lodestar headline` as an MLflow run: its claims as metrics, its page to read."""

from __future__ import annotations

from collections.abc import Iterator

from lodestar.data.workspace import Workspace
from lodestar.models.registry.tracking import quiet, tracked_run
from lodestar.reports.headline import Document
from lodestar.reports.headline_page import page
from lodestar.reports.headline_picture import picture
from lodestar.reports.mlflow_log import metric_name

__all__ = ["log_headline", "metrics_of"]


def log_headline(workspace: Workspace, document: Document) -> str:
    """Log one study beside the trainings, and return the run's id.

    Metrics are named ``<policy>/<cells>/<statistic>_over_<other>``; the ends of their intervals end in ``.low`` and
    ``.high``, and what the second half of the runs came to begins with ``second half/``.
    """
    import mlflow

    settings = document["settings"]
    with tracked_run(workspace, settings["command"], {"kind": "headline"}) as run_id, quiet():
        mlflow.log_params({name: value for name, value in settings.items() if name != "command"})
        mlflow.log_metrics({metric_name(name): value for name, value in metrics_of(document)})
        mlflow.log_dict({key: value for key, value in document.items() if key != "files"}, "headline.json")
        mlflow.log_text(page(document), "headline.md")
        mlflow.log_text(picture(document), "headline.svg")
    return run_id


def metrics_of(document: Document) -> Iterator[tuple[str, float]]:
    """Yield every claim's ratio with its interval, then every time of convergence that was reached.

    >>> row = {"policy": "p", "scope": "all cells", "versus": "best", "statistic": "mean"}
    >>> row |= {f"{part}_{end}": 1.5 for part in ("whole", "half") for end in ("ratio", "low", "high")}
    >>> [name for name, _ in metrics_of({"summary": [row], "convergence": []})][:2]
    ['p/all cells/mean_over_best', 'p/all cells/mean_over_best.low']
    """
    for row in document["summary"]:
        for part, prefix in (("whole", ""), ("half", "second half/")):
            name = f"{prefix}{row['policy']}/{row['scope']}/{row['statistic']}_over_{row['versus']}"
            yield name, row[f"{part}_ratio"]
            yield f"{name}.low", row[f"{part}_low"]
            yield f"{name}.high", row[f"{part}_high"]
    for row in document["convergence"]:
        for which in ("median_s", "worst_s"):
            if row[which] is not None:
                yield f"{row['policy']}/{row['what'].removesuffix('_s')}/{which}", row[which]
