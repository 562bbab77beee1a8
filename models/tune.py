"""Search for better parameters: forward in time, in small steps, resumable at any point."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

import mlflow
import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from lodestar.data.errors import ConfigError
from lodestar.data.schema import TTFT_MS
from lodestar.data.workspace import Workspace
from lodestar.models.candidate import TRAINING_SHARE
from lodestar.models.dataset import load_training_data
from lodestar.models.fit import fit, require_rows
from lodestar.models.metrics import mae_ms
from lodestar.models.parameters import Parameters
from lodestar.models.rivals import linear_rival
from lodestar.models.rows import Rows
from lodestar.models.tracking import tracked_run
from lodestar.models.train import TrainReport, train

__all__ = ["FOLDS", "TuneReport", "folds", "tune"]

FOLDS: Final = 4  # each trains on all before it, and is measured on the next tenth of the window
FIRST_SHARE: Final = 0.6
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What a search found.

    Attributes:
        dataset: its name.
        target: that was tuned.
        study: name in the workspace's journal; it holds the trials of this very data.
        trials: finished trials in the study now, the pruned among them.
        trials_before: of these, finished before this call.
        pruned: of these, stopped after a fold that was worse than most.
        interrupted: trials that an earlier call left unfinished; they were given up.
        best_value: mean over the folds of MAE over that of linear regression.
        default_value: the same for the default parameters.
        best_parameters: of the best trial.
        training: what became of the model trained with them.
    """

    dataset: str
    target: str
    study: str
    trials: int
    trials_before: int
    pruned: int
    interrupted: int
    best_value: float
    default_value: float | None
    best_parameters: dict[str, Any]
    training: TrainReport

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def tune(
    workspace: Workspace,
    dataset: str,
    trials: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    target: str = TTFT_MS,
) -> TuneReport:
    """Search until the study has `trials` finished trials, then train with the best parameters and judge as ever.

    Stop it whenever you like: the next call goes on from the trials that finished. The newest requests, on which the
    trained model is judged, take no part in the search. `progress` is told how many trials finished since it was last
    told, those of earlier calls first. Tune a dataset from one process at a time: unfinished trials are taken for those
    of a process that died.
    """
    if trials < 1:
        raise ConfigError(f"--trials {trials}: nothing to search; expected 1 or more")
    data = load_training_data(workspace, dataset, (target,))
    parts = folds(_searchable(data.rows[target], target))
    with _quiet():
        study = _study(workspace, f"{dataset}-{target}-{data.fingerprint[:12]}", seed)
        interrupted = _give_up_running(study)
        before = _finished(study)
        _enqueue_defaults(study)
        tags = {"dataset": dataset, "target": target, "data_fingerprint": data.fingerprint}
        with tracked_run(workspace, f"tune {dataset} {target}", tags):
            if progress:
                progress(before)
            _search(study, parts, target, trials - before, seed, progress)
            best = _parameters(study.best_trial.params, len(data.rows[target]))
            _log_search(study)
            training = train(workspace, dataset, seed=seed, parameters=best, targets=(target,))
    return TuneReport(
        dataset=dataset,
        target=target,
        study=study.study_name,
        trials=_finished(study),
        trials_before=before,
        pruned=len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))),
        interrupted=interrupted,
        best_value=study.best_value,
        default_value=_default_value(study),
        best_parameters=best.to_dict(),
        training=training,
    )


def _searchable(rows: Rows, target: str) -> Rows:
    """Leave out the newest requests; fails where the first fold would have too few to learn from."""
    training = rows.split_share(TRAINING_SHARE)[0]
    held_out = f"holding out the newest {1 - TRAINING_SHARE:.0%} and those unfinished at the cut"
    require_rows(training, target, held_out)
    require_rows(folds(training)[0][0], target, f"{held_out}, before the first measurement of the search")
    return training


def folds(rows: Rows) -> list[tuple[Rows, Rows]]:
    """Split forward in time: train on all that finished before a cut, measure on the stretch that follows it."""
    first, end = int(rows.request_index[0]), int(rows.request_index[-1]) + 1
    cuts = [first + round((end - first) * share) for share in np.linspace(FIRST_SHARE, 1.0, FOLDS + 1)]
    pairs = []
    for cut, stop in pairwise(cuts):
        training, later = rows.split(cut)
        pairs.append((training, later.only(later.request_index < stop)))
    return [pair for pair in pairs if len(pair[1])]


def _suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "num_leaves": trial.suggest_int("num_leaves", 4, 31, log=True),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 10, 200, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.005, 0.1, log=True),
        "lambda_l2": trial.suggest_float("lambda_l2", 0.01, 100.0, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1.0),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
        "rounds": trial.suggest_int("rounds", 20, 100),
        "window_share": trial.suggest_float("window_share", 0.3, 1.0),
    }


def _parameters(suggested: dict[str, Any], rows: int) -> Parameters:
    """Turn the share of the window into a number of rows: each fold has its own, and a later training keeps the best's.

    On a dataset that has grown since, it is the same number of rows and thus a smaller share.
    """
    share = suggested["window_share"]
    others = {name: value for name, value in suggested.items() if name != "window_share"}
    return Parameters(**others, window_requests=None if share >= 1.0 else round(share * rows))


def _search(
    study: optuna.Study,
    parts: list[tuple[Rows, Rows]],
    target: str,
    remaining: int,
    seed: int,
    progress: Callable[[int], None] | None,
) -> None:
    rivals = [mae_ms(later.latency_ms, linear_rival(earlier, later.features)) for earlier, later in parts]

    def objective(trial: optuna.Trial) -> float:
        suggested, ratios = _suggest(trial), []
        for step, ((earlier, later), rival_ms) in enumerate(zip(parts, rivals, strict=True)):
            model, _ = fit(earlier, target, _parameters(suggested, len(earlier)), seed)
            ratios.append(mae_ms(later.latency_ms, model.predict(later.features)) / rival_ms)
            trial.report(float(np.mean(ratios)), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(ratios))

    if remaining > 0:
        study.optimize(objective, n_trials=remaining, callbacks=[lambda *_: progress(1)] if progress else None)


def _study(workspace: Workspace, name: str, seed: int) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(workspace.studies)))
    study = optuna.create_study(study_name=name, storage=storage, direction="minimize", load_if_exists=True)
    # A resumed search must not draw its first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    return study


def _finished(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=_FINISHED))


def _give_up_running(study: optuna.Study) -> int:
    """Mark the trials of a process that died as failed; they count for nothing."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in running:
        study.tell(trial.number, state=TrialState.FAIL)
    return len(running)


def _enqueue_defaults(study: optuna.Study) -> None:
    """Try the defaults first: the best found is then no worse than they are."""
    tried = study.get_trials(deepcopy=False, states=(*_FINISHED, TrialState.WAITING))
    if any(trial.user_attrs.get("defaults") for trial in tried):
        return
    defaults = Parameters().to_dict()
    names = ("num_leaves", "min_data_in_leaf", "learning_rate", "lambda_l2", "feature_fraction", "bagging_fraction")
    params = {name: defaults[name] for name in (*names, "rounds")} | {"window_share": 1.0}
    study.enqueue_trial(params, user_attrs={"defaults": True})


def _default_value(study: optuna.Study) -> float | None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((trial.value for trial in complete if trial.user_attrs.get("defaults")), None)


def _log_search(study: optuna.Study) -> None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    mlflow.log_metrics({"best_value": study.best_value, "trials": _finished(study)})
    mlflow.log_params({f"best.{name}": value for name, value in study.best_params.items()})
    table = [{"number": trial.number, "value": trial.value, **trial.params} for trial in complete]
    mlflow.log_text(json.dumps(table, indent=2), "trials.json")


@contextmanager
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
