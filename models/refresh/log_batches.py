"""The history of incremental training in MLflow: one run a dataset, a point a batch, and below it a run a refit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import mlflow
from mlflow.entities import Metric

from lodestar.data.workspace import Workspace
from lodestar.models.candidate import Outcome
from lodestar.models.refresh.update import BatchLosses
from lodestar.models.registry.tracking import EXPERIMENT, log_outcome, quiet, tracked_run, use_store

__all__ = ["PARENT_TAG", "log_batch", "parent_run"]

PARENT_TAG: Final = "lodestar.incremental"


@contextlib.contextmanager
def parent_run(workspace: Workspace, dataset: str) -> Iterator[str]:
    """Open the run of all incremental training of a dataset, found again by its tag; yield its id."""
    name, tags = f"incremental {dataset}", {"dataset": dataset, PARENT_TAG: dataset}
    with quiet():
        use_store(workspace)
        found = _parent_id(dataset)
    if found is None:
        with tracked_run(workspace, name, tags) as run_id:
            yield run_id
        return
    with quiet():
        mlflow.start_run(run_id=found, nested=mlflow.active_run() is not None)
    try:
        yield found
    finally:
        with quiet():
            mlflow.end_run()


def log_batch(
    workspace: Workspace,
    dataset: str,
    fingerprint: str,
    outcomes: Mapping[str, Outcome],
    losses: Mapping[str, BatchLosses],
) -> dict[str, dict[str, Any]]:
    """Add a point to each curve of the dataset's run, and a run below it for each target that was fitted.

    Returns:
        target → the run, and the model's name and version in the registry.
    """
    logged: dict[str, dict[str, Any]] = {}
    with parent_run(workspace, dataset) as parent_id:
        for target, outcome in outcomes.items():
            if target in losses:
                _log_curves(parent_id, f"{target}.", losses[target])
            if outcome.trained is None:
                continue
            tags = {"dataset": dataset, "data_fingerprint": fingerprint, "reason": outcome.reason}
            with tracked_run(workspace, f"{outcome.mode} {dataset} {target}", tags) as run_id:
                if target in losses:
                    _log_curves(run_id, "", losses[target])
                found = log_outcome(dataset, target, outcome, str(workspace.database))
                logged[target] = {"run_id": run_id, "parent_run_id": parent_id} | found
    return logged


def _parent_id(dataset: str) -> str | None:
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    runs = mlflow.MlflowClient().search_runs(
        [experiment.experiment_id], f"tags.`{PARENT_TAG}` = '{dataset}'", order_by=["start_time ASC"], max_results=1
    )
    return str(runs[0].info.run_id) if runs else None


def _log_curves(run_id: str, prefix: str, losses: BatchLosses) -> None:
    now_ms, values = int(time.time() * 1000), {"trees": float(losses.trees), "refit_s": losses.seconds}
    for who in ("challenger", "champion", "before", "after"):
        found = getattr(losses, who)
        if found is not None:
            values |= {f"{who}.{name}": float(value) for name, value in asdict(found).items() if value is not None}
    points = [Metric(f"{prefix}{name}", value, now_ms, losses.number) for name, value in values.items()]
    with quiet():
        mlflow.MlflowClient().log_batch(run_id, metrics=points)
