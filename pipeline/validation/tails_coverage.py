"""Tails against a known truth: quantiles, the mean beyond them and the share within a limit, by three estimators.

The world: four instances whose queues are drawn anew for every request, prompts of twelve lengths, and prefix hits;
log-normal costs whose spread grows with the queue. So every candidate's CDF is known, and the truth is their mean over
many states.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from lodestar.pipeline.estimation.blocks import block_of
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.tails import TailEstimate, tail_measures
from lodestar.pipeline.validation.scored import Answer, Progress, Scored, scored
from lodestar.pipeline.validation.square_logs import drawn, square_log

__all__ = ["tails_coverage"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_INSTANCES, _DECISIONS, _STATES, _SLO_MS = 4, 10_000, 400_000, 250.0
_PROMPTS, _QUEUES = 12, 10
_HITS: Final = 0.3  # share of the candidates
#: Name → by how much the model's log cost is off on a hit, which it may not know of.
_MODELS: Final = {"a good model": 0.0, "a model blind to hits": 0.4}


@dataclass(frozen=True, slots=True)
class _World:
    """Of every request and instance, shape (n, 4): kind of candidate, and what both policies give it."""

    kind: Ints
    logging: Floats
    target: Floats


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Of every kind of candidate, (prompt, hit, queue): log-mean and log-sd of its cost, and whether it is a hit."""

    log_mean: Floats
    log_sd: Floats
    hit: NDArray[np.bool_]

    @classmethod
    def all(cls) -> _Kinds:
        prefill_ms, hit, queue = (
            each.ravel()
            for each in np.meshgrid(np.geomspace(30, 300, _PROMPTS), [0, 1], np.arange(_QUEUES), indexing="ij")
        )
        log_mean = np.log(prefill_ms * np.where(hit, 0.4, 1.0) + 60 * queue)
        return cls(log_mean, 0.15 + 0.12 * np.log1p(queue), hit > 0)


def tails_coverage(repetitions: int = 300, seed: int = 0, progress: Progress | None = None) -> list[Scored]:
    """Score the CDFs of snipw, dm and dr on logs of 10,000 decisions of 4 candidates.

    The policy takes the shortest queue, corrected for hits; the log prefers such instances, and explores.

    Args:
        repetitions: logs a model.
        seed: of the logs.
        progress: told what is done, how much of it, and of how much.
    """
    truth, rows = _truth(), []
    for place, (model, off) in enumerate(_MODELS.items()):
        found: dict[tuple[str, str], list[Answer | None]] = defaultdict(list)
        for done in range(repetitions):
            for each in tail_measures(_logged(10_000_000 * seed + done, off), block_of(_DECISIONS), _SLO_MS):
                found[each.measure, each.estimator].append(_answer(each))
            if progress:
                progress("tails", place * repetitions + done + 1, len(_MODELS) * repetitions)
        rows += [
            scored(f"{measure}, {model}", name, each, truth[measure])
            for (measure, name), each in found.items()
            if measure in truth
        ]
    return rows


def _answer(told: TailEstimate) -> Answer | None:
    if told.value is None or told.low is None or told.high is None:
        return None
    return Answer(told.value, told.low, told.high)


def _world(random: np.random.Generator, n: int) -> _World:
    queue = np.minimum(random.geometric(0.35, (n, _INSTANCES)) - 1, _QUEUES - 1)
    prompt, hit = random.integers(0, _PROMPTS, (n, 1)), random.random(queue.shape) < _HITS
    preference = (1 + queue) ** -1.5 * np.where(hit, 1.8, 1.0)
    score = np.log1p(queue) - 0.8 * hit
    logging = 0.7 * preference / preference.sum(axis=1)[:, None] + 0.3 / _INSTANCES
    least = score == score.min(axis=1)[:, None]
    return _World((2 * prompt + hit) * _QUEUES + queue, logging, least / least.sum(axis=1)[:, None])


def _logged(seed: int, off: float) -> OneStepInput:
    random = np.random.default_rng(seed)
    made, kinds = _world(random, _DECISIONS), _Kinds.all()
    column = drawn(random, made.logging)
    chosen = made.kind[np.arange(_DECISIONS), column]
    log_cost = kinds.log_mean[chosen] + kinds.log_sd[chosen] * random.normal(size=_DECISIONS)
    log = square_log(np.exp(log_cost), column, made.logging)
    predicted = np.exp(kinds.log_mean + off * kinds.hit + 0.03 * np.sin(5 * kinds.log_mean))
    return OneStepInput(log, made.target.ravel(), predicted[made.kind].ravel())


def _truth() -> dict[str, float]:
    """Return every measure of the policy, from the CDFs of many states."""
    made, kinds, grid = _world(np.random.default_rng(2**31), _STATES), _Kinds.all(), np.geomspace(8.0, 8000.0, 2000)
    share = np.bincount(made.kind.ravel(), made.target.ravel(), len(kinds.hit)) / _STATES
    reached = ndtr((np.log(grid)[:, None] - kinds.log_mean) / kinds.log_sd) @ share
    found = {"slo": float(np.interp(_SLO_MS, grid, reached))}
    for level in (0.5, 0.9, 0.99):
        found[f"p{100 * level:g}"] = float(np.interp(level, reached, grid))
    beyond = np.concatenate([[found["p90"]], grid[grid > found["p90"]]])
    left = np.trapezoid(1 - np.interp(beyond, grid, reached), beyond)
    return found | {"cvar90": found["p90"] + float(left) / (1 - 0.9)}
