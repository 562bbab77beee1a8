"""Train the predictors of a dataset, in full or from its new requests only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lodestar.data.workspace import Workspace
from lodestar.models.candidate import Outcome, full_fit
from lodestar.models.current import Trained, load_current, save_current
from lodestar.models.dataset import TrainingData, load_training_data
from lodestar.models.incremental import update
from lodestar.models.latency import TARGETS
from lodestar.models.parameters import Parameters
from lodestar.models.tracking import log_outcome, tracked_run

__all__ = ["TrainReport", "train"]


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training did.

    Attributes:
        dataset: its name.
        version: of the models that are current now; None where there are none.
        targets: target → mode, reason, verdict, trees, metrics on the newest requests, and the run.
        skipped: target → why nothing could be learned.
        notes: what the log left out and how it was inferred.
        seconds: wall time.
    """

    dataset: str
    version: str | None
    targets: dict[str, dict[str, Any]]
    skipped: dict[str, str]
    notes: dict[str, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def train(
    workspace: Workspace,
    dataset: str,
    *,
    incremental: bool = False,
    seed: int = 0,
    parameters: Parameters | None = None,
    targets: Sequence[str] = TARGETS,
) -> TrainReport:
    """Fit each target, keep the models that are no worse than the current ones, and log everything to MLflow.

    `incremental` learns from the requests that are newer than the current model, and does nothing where there are none.
    Without `parameters`, those of the current model are used again (they may have been tuned), else the defaults.
    """
    started = time.monotonic()
    data, current = load_training_data(workspace, dataset, targets), load_current(workspace, dataset)
    outcomes: dict[str, Outcome] = {}
    for target in data.rows:
        before = current.get(target)
        outcomes[target] = (
            update(data, target, before, seed) if incremental else _fit_again(data, target, parameters, seed, before)
        )
    # In this order: a process that is killed in between leaves a run without a model in use, never the reverse.
    logged = _track(workspace, data, outcomes)
    version = _promote(workspace, dataset, current, outcomes)
    described = {target: _describe(outcome) | logged.get(target, {}) for target, outcome in outcomes.items()}
    return TrainReport(dataset, version, described, data.skipped, data.notes, time.monotonic() - started)


def _fit_again(
    data: TrainingData, target: str, parameters: Parameters | None, seed: int, current: Trained | None
) -> Outcome:
    if parameters is not None:
        return full_fit(data, target, parameters, seed, current, "asked for, with the parameters given")
    if current is not None:
        kept = Parameters(**current.record["parameters"])
        return full_fit(data, target, kept, seed, current, "asked for, with the parameters of the current model")
    return full_fit(data, target, Parameters(), seed, None, "asked for, with the default parameters")


def _promote(
    workspace: Workspace, dataset: str, current: dict[str, Trained], outcomes: dict[str, Outcome]
) -> str | None:
    promoted = {
        target: outcome.trained
        for target, outcome in outcomes.items()
        if outcome.promoted and outcome.trained is not None
    }
    merged = current | promoted
    return save_current(workspace, dataset, merged) if merged else None


def _track(workspace: Workspace, data: TrainingData, outcomes: dict[str, Outcome]) -> dict[str, dict[str, Any]]:
    """Log one run a target that was fitted; a call with nothing new leaves no trace."""
    logged: dict[str, dict[str, Any]] = {}
    for target, outcome in outcomes.items():
        if outcome.trained is None:
            continue
        tags = {"dataset": data.dataset, "data_fingerprint": data.fingerprint}
        with tracked_run(workspace, f"{outcome.mode} {data.dataset} {target}", tags) as run_id:
            logged[target] = {"run_id": run_id} | log_outcome(data.dataset, target, outcome, str(workspace.database))
    return logged


def _describe(outcome: Outcome) -> dict[str, Any]:
    trees = outcome.trained.model.trees if outcome.trained else None
    window = outcome.trained.record["window"] if outcome.trained else None
    return {
        "mode": outcome.mode,
        "reason": outcome.reason,
        "promoted": outcome.promoted,
        "verdict": outcome.verdict.to_dict() if outcome.verdict else None,
        "trees": trees,
        "window": window,
        "metrics": outcome.metrics,
    }
