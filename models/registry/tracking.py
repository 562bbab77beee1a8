"""Training runs in the workspace's MLflow store: parameters, metrics, data, model, and the registry."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

# Before MLflow is imported: a workspace keeps to itself, and stdout belongs to the command.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import lightgbm as lgb
import mlflow
import mlflow.pyfunc
import polars as pl
from mlflow.data.polars_dataset import from_polars
from mlflow.entities import Metric, RunStatus
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from lodestar import __version__
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.candidate import TRAINING_SHARE, Outcome
from lodestar.models.importance import importance_svg
from lodestar.models.latency import LatencyModel
from lodestar.models.registry import registered
from lodestar.models.registry.promotion import Verdict
from lodestar.models.rows import Rows

__all__ = ["EXPERIMENT", "log_outcome", "log_verdict", "quiet", "registered_name", "tracked_run", "use_store"]

EXPERIMENT: Final = "lodestar"
_AHEAD: Final = "each request predicted by the model that existed when it arrived"
_NEWEST: Final = f"without the newest {1 - TRAINING_SHARE:.0%}"
#: Outcome's mode → a tag of the run: its metrics are not those of the model that it registers, which has seen all rows.
METRICS_OF: Final = {
    "fitted": f"the same recipe fitted {_NEWEST} of the requests, measured on those",
    "extended": f"the same extension fitted {_NEWEST} of the new requests, measured on those",
    "windowed": f"the same window fitted {_NEWEST} of the new requests, measured on those",
    "refitted": f"the same leaf refit made {_NEWEST} of the new requests, measured on those",
}


@contextlib.contextmanager
def tracked_run(workspace: Workspace, name: str, tags: dict[str, str]) -> Iterator[str]:
    """Open a run in the workspace's store, below the run that is open now if there is one; yield its id.

    The first use of a store creates its tables, which takes a second or two.
    """
    with quiet():
        use_store(workspace)
        parent = mlflow.active_run()
        run = mlflow.start_run(
            experiment_id=_experiment_id(workspace), run_name=name, tags=tags, nested=parent is not None
        )
    status = RunStatus.FAILED
    try:
        yield run.info.run_id
        status = RunStatus.FINISHED
    except KeyboardInterrupt:
        status = RunStatus.KILLED
        raise
    finally:
        with quiet():
            mlflow.end_run(RunStatus.to_string(status))


def use_store(workspace: Workspace) -> None:
    """Point MLflow at the workspace."""
    mlflow.set_tracking_uri(workspace.tracking_uri)
    mlflow.set_registry_uri(workspace.tracking_uri)


def log_outcome(dataset: str, target: str, outcome: Outcome, source: str) -> dict[str, Any]:
    """Log one target into the open run and register the model, whatever its verdict.

    Aliases move when the version is kept (`lodestar.models.registry.releases`): what is in use is said in one place.
    """
    if outcome.trained is None or outcome.metrics is None or outcome.rows is None or outcome.verdict is None:
        return {}
    with quiet():
        record = outcome.trained.record
        mlflow.log_params({**record["parameters"], "seed": record["seed"], "target": target, "mode": outcome.mode})
        mlflow.set_tags({"dataset": dataset, "target": target, "metrics_of": METRICS_OF.get(outcome.mode, _AHEAD)})
        log_verdict(outcome.verdict)
        _log_metrics(outcome)
        _log_input(outcome.rows, dataset, target, source)
        mlflow.log_text(importance_svg(outcome.trained.model), "feature-importance.svg")
        mlflow.log_table(_columns(outcome.metrics["by_load"]), "by-load.json")
        mlflow.log_dict(outcome.trained.model.to_dict(), f"{target}.json")
        return _register(outcome.trained.model, registered_name(dataset, target), outcome.verdict)


def log_verdict(verdict: Verdict) -> None:
    """Log a verdict into the open run: tags, ``gate.<check>.mean``, ``.low``, ``.high``, ``.passed``, verdict.json."""
    mlflow.set_tags({"promoted": str(verdict.promoted).lower(), "verdict": verdict.reason})
    numbers = {f"gate.mae_ms.{name}": value for name, value in (verdict.mae_ms or {}).items()}
    for check in verdict.checks:
        passed = None if check.passed is None else float(check.passed)
        found = {"mean": check.value, "low": check.low, "high": check.high, "passed": passed}
        name = _storable(check.name)
        numbers |= {f"gate.{name}.{what}": x for what, x in found.items() if x is not None}
    mlflow.log_metrics(numbers)
    mlflow.log_dict(verdict.to_dict(), "verdict.json")


def registered_name(dataset: str, target: str) -> str:
    """Name a model in the registry.

    >>> registered_name("sharing09", "ttft_ms")
    'sharing09-ttft_ms'
    """
    return f"{dataset}-{target}"


def _experiment_id(workspace: Workspace) -> str:
    found = mlflow.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    return str(mlflow.create_experiment(EXPERIMENT, artifact_location=workspace.mlflow_artifacts.as_uri()))


def _log_metrics(outcome: Outcome) -> None:
    metrics = outcome.metrics or {}
    flat = {f"{who}.{name}": value for who in ("model", "constant", "linear") for name, value in metrics[who].items()}
    for quantile, values in metrics["quantiles"].items():
        flat |= {f"{quantile}.{name}": value for name, value in values.items()}
    mlflow.log_metrics({name: value for name, value in flat.items() if value is not None})
    _log_curve(outcome)


def _log_curve(outcome: Outcome) -> None:
    """Log the error by boosting round in one batch: one at a time costs milliseconds each."""
    run = mlflow.active_run()
    if outcome.curve is None or run is None:
        return
    now_ms, curves = int(time.time() * 1000), {"training": outcome.curve.training, "held_out": outcome.curve.held_out}
    points = [
        Metric(f"rmse_log.{name}", value, now_ms, step)
        for name, values in curves.items()
        for step, value in enumerate(values, start=1)
    ]
    client = mlflow.MlflowClient()
    for first in range(0, len(points), 1000):  # the store takes a thousand at once
        client.log_batch(run.info.run_id, metrics=points[first : first + 1000])


def _log_input(rows: Rows, dataset: str, target: str, source: str) -> None:
    frame = pl.DataFrame(rows.features, schema=list(FEATURE_NAMES)).with_columns(pl.Series(target, rows.latency_ms))
    mlflow.log_input(from_polars(frame, source=source, name=dataset, targets=target), context="training")


def _columns(table: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [line[name] for line in table] for name in table[0]} if table else {"waiting_requests": []}


def _register(model: LatencyModel, name: str, verdict: Verdict) -> dict[str, Any]:
    """Register a model that takes the features by name and returns ms, as code and text files: nothing is pickled."""
    inputs = Schema([ColSpec(DataType.double, feature) for feature in FEATURE_NAMES])
    with tempfile.TemporaryDirectory() as directory:
        model.save(Path(directory), registered.STEM)
        info = mlflow.pyfunc.log_model(
            name="latency",
            python_model=registered.__file__,
            artifacts={registered.FILES: directory},
            signature=ModelSignature(inputs, Schema([ColSpec(DataType.double, model.target)])),
            # Stated, because finding them out starts a process that takes seconds.
            pip_requirements=[
                f"lodestar-router=={__version__}",
                f"lightgbm=={lgb.__version__}",
                f"mlflow=={mlflow.__version__}",
            ],
        )
    tags = {"promoted": str(verdict.promoted).lower(), "verdict": verdict.reason}
    tags |= {f"check.{_storable(check.name)}": check.said for check in verdict.checks}
    version = mlflow.register_model(info.model_uri, name, tags=tags)
    return {"registered_model": name, "registered_version": int(version.version)}


def _storable(name: str) -> str:
    """Write a check's name as MLflow takes it, which allows no plus sign.

    >>> _storable("coverage.6+")
    'coverage.6 or more'
    """
    return name.replace("+", " or more")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's and alembic's notices off both streams; errors are raised as ever."""
    levels = {name: logging.getLogger(name).level for name in ("mlflow", "alembic")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
