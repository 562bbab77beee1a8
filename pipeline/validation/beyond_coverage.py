"""Tests of two routers and the simulator as control variate, in a queue whose truth is simulated.

The world: three first-come-first-served servers of unequal speed (Lindley's recursion), Poisson arrivals, exponential
work; a router sees how long each server is busy, so that every decision moves what later requests wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lodestar.pipeline.estimation.beyond.control_variate import control_variate
from lodestar.pipeline.estimation.beyond.differences_in_q import differences_in_q
from lodestar.pipeline.estimation.beyond.switchback import switchback
from lodestar.pipeline.estimation.blocks import block_of
from lodestar.pipeline.estimation.estimators.dm import dm
from lodestar.pipeline.estimation.intervals.linearised import linearised_interval
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.validation.scored import Answer, Progress, Scored, scored
from lodestar.pipeline.validation.square_logs import square_log

__all__ = ["beyond_coverage"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rule = Callable[[Floats], Floats]

_SPEEDS: Final = np.array([1.2, 1.0, 0.8])
_SIMULATED: Final = _SPEEDS * [0.85, 1.0, 1.15]  # a simulator whose speeds are off by 15 %
_RATE: Final = 1.6  # arrivals in the time that a server of speed 1 takes for one
_REQUESTS, _PERIOD, _ONE_STEP = 12_000, 300, 3000
_ALONE, _WARM, _TRUTHS = 4000, 400, 1500  # requests of a run under one router, the first of which do not count; runs


class _Run(NamedTuple):
    """Cost, server and work of each request, shape (n, logs); waits before it, shape (n, logs, 3), where asked for."""

    cost: Floats
    server: Ints
    work: Floats
    waits: Floats


def beyond_coverage(repetitions: int = 300, seed: int = 0, progress: Progress | None = None) -> list[Scored]:
    """Score Differences-in-Q, switchback and the control variate.

    Two routers share 12,000 requests, by a coin for each or in turns of 300 requests; the truth is the difference of
    runs under one of them, by the same luck. The control variate values a policy on 3000 requests routed at random,
    with a simulator whose speeds are off by 15 %; the truth is the mean over all logs of what one decision would cost.

    Args:
        repetitions: logs a setting.
        seed: of the logs.
        progress: told what is done, how much of it, and of how much.
    """
    found: list[Scored] = []
    for done, (name, arms) in enumerate(_PAIRS.items()):
        found += _tests(name, arms, repetitions, seed)
        if progress:
            progress("beyond one step", done + 1, len(_PAIRS) + 1)
    found += _control_variates(repetitions, seed)
    if progress:
        progress("beyond one step", len(_PAIRS) + 1, len(_PAIRS) + 1)
    return found


def _uniform(wait: Floats) -> Floats:
    return np.full(wait.shape, 1 / wait.shape[-1])


def _soft(wait: Floats) -> Floats:
    preferred = np.exp(-wait)
    return np.asarray(preferred / preferred.sum(axis=-1, keepdims=True))


def _soonest(wait: Floats) -> Floats:
    cost = wait + 1 / _SPEEDS
    low = cost == cost.min(axis=-1, keepdims=True)
    return np.asarray(low / low.sum(axis=-1, keepdims=True))


#: Name → arm 0 and arm 1.
_PAIRS: Final[dict[str, tuple[Rule, Rule]]] = {
    "two good routers": (_soft, _soonest),
    "a bad and a good one": (_uniform, _soonest),
}


def _queue(arms: Sequence[Rule], arm: Ints, seed: int, seen: bool = False) -> _Run:
    """Route as many logs as `arm`, shape (n, logs), has columns, each request by its arm."""
    n, logs = arm.shape
    random, row = np.random.default_rng([seed, 7]), np.arange(logs)
    gap, work = random.exponential(1 / _RATE, (n, logs)), random.exponential(1.0, (n, logs))
    luck, wait = random.random((n, logs)), np.zeros((logs, len(_SPEEDS)))
    waits = np.empty((n if seen else 0, logs, len(_SPEEDS)))
    found = _Run(np.empty((n, logs)), np.empty((n, logs), np.int64), work, waits)
    for i in range(n):
        wait = np.maximum(wait - gap[i][:, None], 0.0)
        if seen:
            waits[i] = wait
        chance = arms[0](wait) if len(arms) == 1 else np.where(arm[i][:, None] == 1, arms[1](wait), arms[0](wait))
        found.server[i] = np.minimum((chance.cumsum(axis=1) < luck[i][:, None]).sum(axis=1), len(_SPEEDS) - 1)
        wait[row, found.server[i]] += work[i] / _SPEEDS[found.server[i]]
        found.cost[i] = wait[row, found.server[i]]
    return found


def _tests(name: str, arms: tuple[Rule, Rule], logs: int, seed: int) -> list[Scored]:
    alone = [_queue([rule], np.zeros((_ALONE, _TRUTHS), np.int64), 2**31).cost[_WARM:].mean() for rule in arms]
    truth = float(alone[1] - alone[0])
    coin = np.random.default_rng([seed, 8]).integers(0, 2, (_REQUESTS, logs))
    turns = np.repeat(np.random.default_rng([seed, 9]).permuted(_turns(logs), axis=0), _PERIOD, axis=0)
    cost = _queue(arms, coin, seed).cost
    by_coin = [differences_in_q(cost[:, k], coin[:, k]) for k in range(logs)]
    cost = _queue(arms, turns, seed + 1).cost
    period = np.arange(_REQUESTS) // _PERIOD
    by_turns = [switchback(cost[:, k], turns[:, k], period=period) for k in range(logs)]
    answers = {
        "plain difference": [_by_t(each.naive, each.naive_se, each.path.blocks) for each in by_coin],
        "Differences-in-Q": [_by_t(each.path.value, each.path.se, each.path.blocks) for each in by_coin],
        "switchback": [Answer(each.value, *each.interval()) for each in by_turns],
    }
    return [scored(name, estimator, each, truth) for estimator, each in answers.items()]


def _turns(logs: int) -> Ints:
    """Return as many turns of either arm, shape (turns, logs), still in order."""
    turns = _REQUESTS // _PERIOD
    return np.tile((np.arange(turns) % 2)[:, None], (1, logs)).astype(np.int64)


def _by_t(value: float, se: float, blocks: int) -> Answer:
    half = float(stdtrit(blocks - 1, 0.975)) * se
    return Answer(value, value - half, value + half)


def _control_variates(logs: int, seed: int) -> list[Scored]:
    run = _queue([_uniform], np.zeros((_ONE_STEP, logs), np.int64), seed + 2, seen=True)
    target = _soonest(run.waits)
    true_cost, simulated = (run.waits + run.work[..., None] / speeds for speeds in (_SPEEDS, _SIMULATED))
    truth, block = float(np.sum(target * true_cost, axis=2).mean()), block_of(_ONE_STEP)
    answers: dict[str, list[Answer]] = {"simulator alone": [], "control variate": []}
    for k in range(logs):
        rows = _one_step(run, target[:, k], simulated[:, k], k)
        for name, valued in (("simulator alone", dm(rows)), ("control variate", control_variate(rows).valued)):
            interval = linearised_interval(valued.value, valued.influence, block)
            answers[name].append(Answer(valued.value, interval.lower, interval.upper))
    return [scored("one step from logged states", name, each, truth) for name, each in answers.items()]


def _one_step(run: _Run, target: Floats, simulated: Floats, log: int) -> OneStepInput:
    logged = square_log(run.cost[:, log], run.server[:, log], _uniform(target))
    return OneStepInput(logged, target.ravel(), simulated.ravel())
