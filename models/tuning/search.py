"""The trials of a study: drawn one at a time by any number of processes, measured block by block, kept at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from lodestar.models.tuning.folds import BLOCKS, Fold, pieces
from lodestar.models.tuning.journal import trials_of
from lodestar.models.tuning.locks import claim, is_held, sole
from lodestar.models.tuning.pruning import clearly_worse
from lodestar.models.tuning.space import Space
from lodestar.models.tuning.speed import Speed

__all__ = ["STOPPED", "Search", "finished", "is_default", "measured_in_full", "search"]

Floats = NDArray[np.float64]

STOPPED: Final = "stopped_after_blocks"  # marks a trial that was given up early; its value is an estimate
_CLAIM: Final = "claim"
_DRAW: Final = "draw"
_FINISHED: Final = (TrialState.COMPLETE, TrialState.PRUNED)
_POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Search:
    """All that the trials of a study have in common.

    Attributes:
        target: latency.
        space: what may be chosen.
        folds: each trial is fitted and measured on all of them.
        heads: whether the loss needs quantile heads.
        seed: of the draws, and of every fit.
        speed: of this machine.
        limit_us: no trial that takes longer for a decision wins.
        claims: directory of the locks that living processes hold.
    """

    target: str
    space: Space
    folds: list[Fold]
    heads: bool
    seed: int
    speed: Speed
    limit_us: float
    claims: Path


def search(study: optuna.Study, task: Search, trials: int, told: Callable[[int], None]) -> int:
    """Run trials until the study has so many finished ones; return how many were found whose process had died.

    Other processes may do the same at the same time: together they run as many as asked for, and each returns when all
    are finished. `told` hears of the finished number whenever it is looked up.
    """
    given_up = 0
    with claim(task.claims) as own:
        while True:
            told(len(finished(study)))  # with no trial at hand that would be lost if it raises
            with sole(task.claims / f"{study.study_name}.lock"):
                given_up += _give_up_dead(study, task)
                done = len(finished(study))
                open_now = trials - done - len(trials_of(study, TrialState.RUNNING))
                trial = _ask(study, task, own) if open_now > 0 else None
            if trial is not None:
                _run(study, task, trial)
            elif done < trials:
                time.sleep(_POLL_S)
            else:
                told(done)
                return given_up


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that were measured, in full or until they were given up, or refused as too slow."""
    return trials_of(study, *_FINISHED)


def is_default(trial: FrozenTrial) -> bool:
    """Whether it is the trial of the default parameters."""
    return bool(trial.user_attrs.get(_DRAW) == 0)


def measured_in_full(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that can win, the best first: fast enough, and measured on every block."""
    complete = [trial for trial in trials_of(study, TrialState.COMPLETE) if STOPPED not in trial.user_attrs]
    return sorted(complete, key=lambda trial: (trial.value, trial.number))


def _ask(study: optuna.Study, task: Search, own: str) -> optuna.Trial:
    """Draw a trial and claim it; the caller holds the study's lock, so that an unclaimed one has lost its process.

    Draws are numbered, a lost one is drawn again, and the number seeds the sampler: one process that is killed and
    resumed draws what it would have drawn without the kill. Draw 0 is the defaults.
    """
    used = {trial.user_attrs[_DRAW] for trial in trials_of(study, *_FINISHED, TrialState.RUNNING)}
    draw = next(number for number in count() if number not in used)
    if draw == 0 and not trials_of(study, TrialState.WAITING):
        study.enqueue_trial(task.space.defaults())
    study.sampler = optuna.samplers.TPESampler(seed=_seed(task, draw))
    trial = study.ask()
    trial.set_user_attr(_DRAW, draw)
    trial.set_user_attr(_CLAIM, own)
    return trial


def _seed(task: Search, draw: int) -> int:
    return int(np.random.SeedSequence([task.seed, draw]).generate_state(1)[0])


def _give_up_dead(study: optuna.Study, task: Search) -> int:
    """Mark the trials whose process died as failed."""
    dead = [trial for trial in trials_of(study, TrialState.RUNNING) if not _lives(trial, task.claims)]
    for trial in dead:
        study.tell(trial.number, state=TrialState.FAIL)
    return len(dead)


def _lives(trial: FrozenTrial, claims: Path) -> bool:
    name = trial.user_attrs.get(_CLAIM)
    return name is not None and is_held(claims / name)


def _run(study: optuna.Study, task: Search, trial: optuna.Trial) -> None:
    """Measure a trial and store it; one that fails leaves no running trial behind."""
    try:
        chosen = task.space.suggest(trial)
        decision_us = task.speed.decision_us(chosen["rounds"], chosen["num_leaves"])
        trial.set_user_attr("decision_us", decision_us)
        trial.set_constraint("decision_us", decision_us - task.limit_us)
        if decision_us > task.limit_us:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, _value(study, task, trial, chosen))
    except BaseException:
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise


def _value(study: optuna.Study, task: Search, trial: optuna.Trial, chosen: dict[str, Any]) -> float:
    """Return the mean loss over all blocks; of a trial that is given up, the best one's plus the mean difference."""
    best = next(iter(measured_in_full(study)), None)
    found: dict[int, float] = {}
    order = np.random.default_rng([task.seed, trial.user_attrs[_DRAW]]).permutation(len(task.folds))
    for at in order.tolist():
        fold = task.folds[at]
        parameters = task.space.parameters(chosen, len(fold.earlier))
        losses = pieces(fold.fitted(parameters, task.target, task.seed, task.heads), BLOCKS)
        for block, loss in enumerate(losses.tolist(), start=at * BLOCKS):
            trial.report(loss, block)
            found[block] = loss
        if best is not None and len(found) < len(best.intermediate_values):
            difference = np.array([loss - best.intermediate_values[block] for block, loss in found.items()])
            if clearly_worse(difference):
                trial.set_user_attr(STOPPED, len(found))
                return float(best.value + difference.mean())
    return float(np.mean(list(found.values())))
