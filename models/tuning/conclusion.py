"""The end of a search: the best measured again, the winner trained, everything told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from lodestar.data.errors import ConfigError
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.registry.tracking import tracked_run
from lodestar.models.train import TrainReport, train
from lodestar.models.tuning.finalists import SEEDS, Finalist, finalists, losses_of, winner
from lodestar.models.tuning.folds import Fold, fresh_folds
from lodestar.models.tuning.journal import trials_of
from lodestar.models.tuning.report import TuneReport
from lodestar.models.tuning.search import STOPPED, finished, measured_in_full
from lodestar.models.tuning.speed import measured_us
from lodestar.models.tuning.task import MOST_ROWS, Task, store_lock
from lodestar.models.tuning.tracked import log_search
from lodestar.models.uncertainty.paired import paired_interval

__all__ = ["conclude"]

Floats = NDArray[np.float64]


def _of_winner(task: Task, chosen: Mapping[str, Any]) -> Parameters:
    """Turn the choice into parameters of a training, which has no larger window than the search has seen."""
    every = len(task.data.rows[task.search.target])
    parameters = task.search.space.parameters(chosen, min(every, MOST_ROWS))
    wider = parameters.window_requests is None and every > MOST_ROWS
    return replace(parameters, window_requests=MOST_ROWS) if wider else parameters


def conclude(task: Task, before: int, interrupted: int) -> TuneReport:
    """Measure the best again, say who won, and train with it."""
    study, its = task.study, task.search
    _require_a_fast_one(task)
    found = finalists(study, its, fresh_folds(task.rows, task.metric))
    won, reason = winner(found)
    parameters = _of_winner(task, won.chosen) if won else Parameters()
    training = _trained(task, found, parameters, reason)
    defaults = next((finalist for finalist in found if finalist.is_default), None)
    return TuneReport(
        dataset=task.data.dataset,
        target=its.target,
        metric=task.metric.name,
        meaning=task.metric.meaning,
        study=study.study_name,
        rows=len(task.rows),
        trials=len(finished(study)),
        trials_before=before,
        pruned=sum(STOPPED in trial.user_attrs for trial in finished(study)),
        infeasible=len(trials_of(study, TrialState.PRUNED)),
        interrupted=interrupted,
        best_value=measured_in_full(study)[0].values[0],
        default_value=defaults.searched if defaults else None,
        finalists=[asdict(finalist) for finalist in found],
        reason=reason,
        is_default=won is None,
        best_parameters=parameters.to_dict(),
        newest=_on_newest(task, found),
        decision=_decision(task, parameters),
        training=training,
    )


def _trained(task: Task, found: list[Finalist], parameters: Parameters, reason: str) -> TrainReport:
    """Train with the winner, as a run below that of the search."""
    dataset, target = task.data.dataset, task.search.target
    tags = {"dataset": dataset, "target": target, "data_fingerprint": task.data.fingerprint}
    tags |= {"metric": task.metric.name, "study": task.study.study_name, "reason": reason}
    with tracked_run(task.workspace, f"tune {dataset} {target}", tags):
        log_search(task.study, found, parameters.to_dict())
        with store_lock(task.workspace):
            return train(task.workspace, dataset, seed=task.search.seed, parameters=parameters, targets=(target,))


def _require_a_fast_one(task: Task) -> None:
    if not measured_in_full(task.study):
        times_us = [trial.user_attrs["decision_us"] for trial in finished(task.study)]
        raise ConfigError(
            f"--max-decision-us {task.search.limit_us:g}: the fastest of {len(times_us)} trials takes "
            f"{min(times_us):.3g} µs; expected one within the limit. Allow more time, or try more trials"
        )


def _on_newest(task: Task, found: list[Finalist]) -> dict[str, float]:
    """Measure the best finalist and the defaults on requests that took no part, with the fresh seeds."""
    fold = Fold(task.rows, task.newest, task.metric.on(task.rows, task.newest))
    by_default = _mean_losses(task, fold, task.search.space.defaults())
    best = next((finalist for finalist in found if not finalist.is_default), None)
    if best is None:
        return {"defaults": float(by_default.mean())}
    by_best = _mean_losses(task, fold, best.chosen)
    less = paired_interval(by_best - by_default)
    return {
        "trial": best.number,
        "best": float(by_best.mean()),
        "defaults": float(by_default.mean()),
        "low": less.low,
        "high": less.high,
    }


def _mean_losses(task: Task, fold: Fold, chosen: dict[str, Any]) -> Floats:
    seeds = range(task.search.seed + 1, task.search.seed + 1 + SEEDS)
    return np.asarray(np.mean([losses_of([fold], task.search, chosen, seed) for seed in seeds], axis=0))


def _decision(task: Task, parameters: Parameters) -> dict[str, float]:
    """Measure the winner's time, which no trial was judged by."""
    model, _ = fit(task.rows, task.search.target, parameters, task.search.seed, heads=False)
    return {
        "limit_us": task.search.limit_us,
        "estimated_us": task.search.speed.decision_us(parameters.rounds, parameters.num_leaves),
        "measured_us": measured_us(model, task.rows.features),
    }
