"""The search for a policy's best settings on one part of a workload: Optuna's TPE, pruned over seeds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.cluster import Outcome
from lodestar.pipeline.replay.routing.contract import Policy, Space
from lodestar.pipeline.replay.tuning.text import named_settings, spaces_of, with_settings

__all__ = ["Found", "Search", "objective_of", "quiet", "search"]

Floats = NDArray[np.float64]

_TRIALS_BEFORE_PRUNING: Final = 5
_FIGURES: Final = 4  # of a value that is tried: no replay tells more apart, and a text that replays it stays short


class Replays(Protocol):
    """What a policy is tried on: a cluster, or several draws of one, told apart by the seed."""

    def replay(self, policy: Policy, *, seed: int) -> Outcome:
        """Replay the policy once."""
        ...


@dataclass(frozen=True, slots=True)
class Search:
    """One search to do: all that it depends on, so that it gives the same wherever and beside whatever it runs.

    Attributes:
        cluster: the instances, and the part of the workload.
        policy: as it was named; its settings are the first trial.
        seeds: of the replays of each trial, the same for all, so that trials differ by their settings alone.
        first: request from which on they count.
        objective: see `objective_of`.
        trials: settings to try.
        seed: of the sampler.
        told: called after each trial; what it raises ends the search.
    """

    cluster: Replays
    policy: Policy
    seeds: range
    first: int
    objective: str
    trials: int
    seed: int
    told: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Found:
    """The best settings, and how many were tried.

    Attributes:
        policy: with these settings.
        complete: trials replayed under every seed.
        pruned: trials given up after a seed or more, because most others were better by then.
    """

    policy: Policy
    complete: int
    pruned: int


def search(task: Search) -> Found:
    """Try settings one after the other, each chosen by what those before it gave.

    The first trial that is as good as any wins, so that the settings stay as they are where nothing is better.
    """
    sampler = optuna.samplers.TPESampler(seed=task.seed)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_TRIALS_BEFORE_PRUNING)
    study = optuna.create_study(sampler=sampler, pruner=pruner, direction="minimize")
    study.enqueue_trial(_first(task.policy))
    tried: dict[int, Policy] = {}

    def value(trial: optuna.Trial) -> float:
        settings = _suggested(trial, task.policy)
        # The first is tried as it was named, which no rounding may change.
        tried[trial.number] = policy = _changed(task.policy, settings) if trial.number else task.policy
        return _value(trial, task, policy)

    study.optimize(value, n_trials=task.trials, callbacks=[lambda *_: task.told()])
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return Found(tried[study.best_trial.number], len(complete), len(trials) - len(complete))


def objective_of(ttft_ms: Floats, objective: str) -> float:
    """Return what is made as small as possible: the mean of TTFT, or its 99th percentile.

    A request that got no first token counts as the slowest that did: to lose requests must never look like speed.

    >>> objective_of(np.array([1.0, 3.0, np.nan]), "mean")
    2.3333333333333335
    """
    there = ttft_ms[~np.isnan(ttft_ms)]
    if not len(there):
        return float("inf")
    values = np.where(np.isnan(ttft_ms), there.max(), ttft_ms) if len(there) < ttft_ms.size else there
    return float(values.mean() if objective == "mean" else np.quantile(values, 0.99))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's lines out of the user's terminal."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def _value(trial: optuna.Trial, task: Search, policy: Policy) -> float:
    """Replay under one seed after the other, as long as it is not worse than most."""
    values: list[float] = []
    for step, seed in enumerate(task.seeds):
        outcome = task.cluster.replay(policy, seed=seed)
        values.append(objective_of(outcome.ttft_ms[task.first :], task.objective))
        trial.report(float(np.mean(values)), step)
        if step + 1 < len(task.seeds) and trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(values))


def _suggested(trial: optuna.Trial, policy: Policy) -> dict[str, float]:
    named = named_settings(policy)
    return {
        name: type(named[name])(_suggest(trial, name, space, named[name])) for name, space in spaces_of(policy).items()
    }


def _changed(policy: Policy, settings: dict[str, float]) -> Policy:
    try:
        return with_settings(policy, settings)
    except ConfigError as error:  # settings that do not go together
        raise optuna.TrialPruned from error


def _first(policy: Policy) -> dict[str, float]:
    """Return the settings as they were named, as far as the sampler can know them."""
    first = {}
    for name, space in spaces_of(policy).items():
        named = named_settings(policy)[name]
        low, high = _range(space, named)
        first[name] = min(high, max(low, round(named) if space.whole else named))
    return first


def _range(space: Space, named: float) -> tuple[float, float]:
    """Return where to search: in the space, which a user's own value outside it widens."""
    low = space.low if space.log and named <= 0 else min(space.low, named)
    high = max(space.high, named)
    return (round(low), round(high)) if space.whole else (low, high)


def _suggest(trial: optuna.Trial, name: str, space: Space, named: float) -> float:
    low, high = _range(space, named)
    if space.whole:
        return trial.suggest_int(name, round(low), round(high), log=space.log)
    value = trial.suggest_float(name, low, high, log=space.log)
    return min(high, max(low, float(f"{value:.{_FIGURES}g}")))
