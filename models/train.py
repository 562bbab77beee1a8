"""Train the predictors of a dataset, in full or from its new requests only."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lodestar.data.errors import ConfigError
from lodestar.data.workspace import Workspace
from lodestar.models.candidate import Outcome, full_fit
from lodestar.models.dataset import TrainingData, load_training_data
from lodestar.models.latency import TARGETS
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.catch_up import CaughtUp, catch_up, state_after
from lodestar.models.refresh.chain import load_state, only_one, save_state
from lodestar.models.refresh.due import EVERY_ROWS, require_every
from lodestar.models.refresh.strategies import AUTO, require_strategy
from lodestar.models.refresh.update import BatchLosses, Options
from lodestar.models.registry.current import Trained, load_current, read_index

__all__ = ["TrainReport", "train"]


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training did.

    Attributes:
        dataset: its name.
        version: the newest that is kept, in use or not; None where there is none.
        targets: target → mode, reason, verdict, trees, metrics on the newest requests, errors of the batch, the run.
        skipped: target → why nothing could be learned.
        notes: what was read, what the log left out and how it was inferred.
        seconds: wall time.
    """

    dataset: str
    version: str | None
    targets: dict[str, dict[str, Any]]
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def train(
    workspace: Workspace,
    dataset: str,
    *,
    incremental: bool = False,
    strategy: str = AUTO,
    every: int = EVERY_ROWS,
    seed: int = 0,
    parameters: Parameters | None = None,
    targets: Sequence[str] = TARGETS,
) -> TrainReport:
    """Fit each target, put what passes the gate in use, and log everything to MLflow.

    `incremental` reads the requests that came since the last call, predicts them by the models that existed when they
    were decided, and learns from them by `strategy` once `every` rows wait, or sooner where errors drift. It does
    nothing where nothing is new. It goes on with every target that it brought up to date before, and begins with those
    of `targets` that it did not. A full fit waits until no other training of the dataset is at work.

    Without `parameters`, those of the current model are used again (they may have been tuned), else the defaults.

    Raises:
        ConfigError: a strategy or number of rows that cannot be, or `parameters` for an incremental training.
        DataError: the log has too few labelled requests.
    """
    started = time.monotonic()
    require_strategy(strategy)
    require_every(every)
    if incremental:
        _require_no(parameters)
        report = _caught_up(workspace, dataset, targets, Options(strategy, every, seed))
    else:
        report = _fitted(workspace, dataset, targets, parameters, seed)
    return TrainReport(**(asdict(report) | {"seconds": time.monotonic() - started}))


def _fitted(
    workspace: Workspace, dataset: str, targets: Sequence[str], parameters: Parameters | None, seed: int
) -> TrainReport:
    """Fit all anew, once no other training of the dataset is at work: each builds on what the one before left."""
    with only_one(workspace, dataset, wait=True):
        return _fitted_alone(workspace, dataset, targets, parameters, seed)


def _fitted_alone(
    workspace: Workspace, dataset: str, targets: Sequence[str], parameters: Parameters | None, seed: int
) -> TrainReport:
    data, current = load_training_data(workspace, dataset, targets), load_current(workspace, dataset)
    outcomes = {target: _fit_again(data, target, parameters, seed, current.get(target)) for target in data.rows}
    # Before anything is kept: what a model has seen is part of its record.
    state = state_after(data, outcomes, load_state(workspace, dataset), current)
    logged = _track(workspace, data, outcomes)
    version = _keep(workspace, dataset, outcomes, logged)
    save_state(workspace, dataset, state)
    return TrainReport(dataset, version, _described(outcomes, logged), data.skipped, data.notes)


def _caught_up(workspace: Workspace, dataset: str, targets: Sequence[str], options: Options) -> TrainReport:
    """Bring every target up to date; in this order, so that a process that is killed leaves it all to be done again.

    It leaves a run without a model in use, or a model in use whose update is not remembered, which the next call finds.
    """
    with only_one(workspace, dataset) as alone:
        if not alone:
            told = "another training of this dataset is at work: nothing done"
            return TrainReport(
                dataset, _version(workspace, dataset), _described(dict.fromkeys(targets, Outcome("unchanged", told)))
            )
        current, state = load_current(workspace, dataset), load_state(workspace, dataset)
        done = catch_up(workspace, dataset, targets, current, state, options)
        logged = _log_batch(workspace, dataset, done)
        version = _keep(workspace, dataset, done.outcomes, logged)
        if done.state is not None:
            save_state(workspace, dataset, done.state)
    return TrainReport(dataset, version, _described(done.outcomes, logged, done.losses), done.skipped, done.notes)


def _require_no(parameters: Parameters | None) -> None:
    """Refuse parameters where a model goes on from what it is."""
    if parameters is not None:
        raise ConfigError(
            f"parameters {parameters.to_dict()} for an incremental training: it goes on with those of the model; "
            "expected none. Train in full with them first"
        )


def _fit_again(
    data: TrainingData, target: str, parameters: Parameters | None, seed: int, current: Trained | None
) -> Outcome:
    if parameters is not None:
        return full_fit(data, target, parameters, seed, current, "asked for, with the parameters given")
    if current is not None:
        kept = Parameters(**current.record["parameters"])
        return full_fit(data, target, kept, seed, current, "asked for, with the parameters of the current model")
    return full_fit(data, target, Parameters(), seed, None, "asked for, with the default parameters")


# MLflow takes seconds to load, which a call every minute that finds nothing new need not wait for.


def _track(workspace: Workspace, data: TrainingData, outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
    """Log one run a target."""
    from lodestar.models.registry.tracking import log_outcome, tracked_run

    logged: dict[str, dict[str, Any]] = {}
    for target, outcome in outcomes.items():
        tags = {"dataset": data.dataset, "data_fingerprint": data.fingerprint}
        with tracked_run(workspace, f"{outcome.mode} {data.dataset} {target}", tags) as run_id:
            logged[target] = {"run_id": run_id} | log_outcome(data.dataset, target, outcome, str(workspace.database))
    return logged


def _log_batch(workspace: Workspace, dataset: str, done: CaughtUp) -> dict[str, dict[str, Any]]:
    """Log what was scored and fitted; a call with nothing new leaves no trace."""
    if not done.losses and all(outcome.trained is None for outcome in done.outcomes.values()):
        return {}
    from lodestar.models.refresh.log_batches import log_batch

    return log_batch(workspace, dataset, done.fingerprint, done.outcomes, done.losses)


def _keep(
    workspace: Workspace,
    dataset: str,
    outcomes: Mapping[str, Outcome],
    logged: Mapping[str, Mapping[str, Any]],
) -> str | None:
    if all(outcome.trained is None for outcome in outcomes.values()):
        return _version(workspace, dataset)
    from lodestar.models.registry.releases import keep

    return keep(workspace, dataset, outcomes, logged)


def _version(workspace: Workspace, dataset: str) -> str | None:
    versions = read_index(workspace, dataset).versions
    return versions[-1]["version"] if versions else None


def _described(
    outcomes: Mapping[str, Outcome],
    logged: Mapping[str, Mapping[str, Any]] | None = None,
    losses: Mapping[str, BatchLosses] | None = None,
) -> dict[str, dict[str, Any]]:
    return {
        target: _describe(outcome)
        | ({"batch": asdict(losses[target])} if losses and target in losses else {})
        | dict((logged or {}).get(target, {}))
        for target, outcome in outcomes.items()
    }


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
