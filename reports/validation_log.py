"""A validation as an MLflow run: its targets and errors as metrics, its page and picture to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lodestar.data.workspace import Workspace
from lodestar.models.registry.tracking import quiet, tracked_run
from lodestar.reports.mlflow_log import metric_name
from lodestar.reports.validation_page import page
from lodestar.reports.validation_picture import picture
from lodestar.reports.validation_scores import score_metrics

__all__ = ["log_validation", "metrics_of"]


def log_validation(workspace: Workspace, document: Mapping[str, Any]) -> str:
    """Log one validation beside the trainings, and return the run's id."""
    import mlflow

    with tracked_run(workspace, document["command"], {"kind": "validation"}) as run_id, quiet():
        mlflow.log_params({"seed": document["seed"], "parts": ", ".join(document["seconds"])})
        mlflow.log_metrics({metric_name(name): value for name, value in metrics_of(document)})
        mlflow.log_dict({key: value for key, value in document.items() if key != "files"}, "validation.json")
        mlflow.log_text(page(document), "validation.md")
        mlflow.log_text(picture(document), "validation.svg")
    return run_id


def metrics_of(document: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the error of the replay for each policy, world and arm, and every coverage.

    >>> arm = {"cluster": "c", "arm": "a", "replayed": "p", "error_mean": 0.02}
    >>> list(metrics_of({"measured-arms": {"rows": [arm]}}))
    [('measured-arms/c/a/p/error_mean', 0.02)]
    """
    for row in document.get("queueing", {}).get("rows", []):
        yield f"queueing/{row['policy']}/replayed_error_mean", row["replayed"]["relative_error"]
        if row["derivative"]:
            yield f"queueing/{row['policy']}/derivative_z", row["derivative"]["z"]
    for row in document.get("load-balancing", {}).get("summary", []):
        if row.get("mape") is not None:
            yield f"load-balancing/{row['method']}/mape", row["mape"]
    for row in document.get("own-logs", {}).get("summary", []):
        yield f"own-logs/{row['world']}/mean_error", row["mean_error"]
    for row in document.get("measured-arms", {}).get("rows", []):
        if row["error_mean"] is not None:
            yield f"measured-arms/{row['cluster']}/{row['arm']}/{row['replayed']}/error_mean", row["error_mean"]
    for part in ("bandits", "tuned", "compared", "replayed", "limits"):
        for row in document.get("coverage", {}).get(part, []):
            yield f"coverage/{part}/{row['setting']}/{row['interval']}", row["coverage"]
    yield from score_metrics(document.get("coverage", {}))
