"""Logs of independent decisions whose true value is known: every number of candidates, costs and propensities drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.intervals.bounds import Bounds

__all__ = ["SETTINGS", "BanditLogs", "Setting", "bandit_logs"]

Floats = NDArray[np.float64]

#: Every cost lies in them.
COSTS: Final = Bounds(0.0, 1.0)

_CANDIDATES: Final = 8
_LEAST, _SPREAD, _NOISE = 0.45, 0.25, 0.3  # a cost is least + spread · u + noise, u in 0 to 1 and noise within ± noise
_LOGS_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Setting:
    """How the logging policy draws: softmax of a score that knows nothing, and of a dislike of what the target takes.

    Attributes:
        name: by the share of the log that counts.
        spread: of the scores, uniform within ± this.
        dislike: by how much the score of the target's choice is lower.
    """

    name: str
    spread: float
    dislike: float

    @property
    def largest_weight(self) -> float:
        """1 over the least propensity that the target's choice could have."""
        return 1 + (_CANDIDATES - 1) * math.exp(2 * self.spread + self.dislike)


#: From a uniform logging policy to one that seldom does what the target does.
SETTINGS: Final = (Setting("uniform", 0.0, 0.0), Setting("uneven", 1.0, 0.35), Setting("averse", 1.0, 1.15))


@dataclass(frozen=True, slots=True)
class BanditLogs:
    """As many logs as were asked for.

    Attributes:
        cost: of each decision, shape (logs, n).
        weight: importance weight of the target, which always takes the candidate that it likes most, shape (logs, n).
        direct: what a wrong model says of the target's choice, shape (logs, n).
        predicted: what it says of the logged choice, shape (logs, n).
        expected: true mean cost of the target's choice in each state, shape (logs, n).
        truth: its mean over all states.
    """

    cost: Floats
    weight: Floats
    direct: Floats
    predicted: Floats
    expected: Floats
    truth: float


def bandit_logs(setting: Setting, logs: int, seed: int, decisions: int = 2000) -> BanditLogs:
    """Draw logs of 8 candidates a decision; the target takes the one with the least expected cost, which is known.

    The least of 8 uniform numbers is 1/9 on average, which gives the truth without any sampling.

    >>> made = bandit_logs(SETTINGS[0], logs=2, seed=0, decisions=500)
    >>> made.cost.shape, round(made.truth, 4), float(made.weight.max())
    ((2, 500), 0.4778, 8.0)
    """
    parts = [
        _drawn(setting, min(_LOGS_AT_ONCE, logs - first), np.random.default_rng([seed, first]), decisions)
        for first in range(0, logs, _LOGS_AT_ONCE)
    ]
    cost, weight, direct, predicted, expected = (np.concatenate(each) for each in zip(*parts, strict=True))
    return BanditLogs(cost, weight, direct, predicted, expected, _LEAST + _SPREAD / (_CANDIDATES + 1))


def _drawn(setting: Setting, logs: int, random: np.random.Generator, n: int) -> tuple[Floats, ...]:
    shape = (logs, n, _CANDIDATES)
    expected = _LEAST + _SPREAD * random.random(shape)
    target = expected.argmin(axis=2)[..., None]
    score = random.uniform(-setting.spread, setting.spread, shape)
    np.put_along_axis(score, target, np.take_along_axis(score, target, 2) - setting.dislike, 2)
    raised = np.exp(score)
    running = raised.cumsum(axis=2)
    chosen = (random.random((logs, n, 1)) * running[..., -1:] > running).sum(axis=2)[..., None]
    propensity = np.take_along_axis(raised, chosen, 2) / running[..., -1:]
    weight = np.where(chosen == target, 1 / propensity, 0.0)[..., 0]
    of_target, of_chosen = (np.take_along_axis(expected, place, 2)[..., 0] for place in (target, chosen))
    cost = of_chosen + random.uniform(-_NOISE, _NOISE, (logs, n))
    return cost, weight, _wrong(of_target), _wrong(of_chosen), of_target


def _wrong(expected: Floats) -> Floats:
    """Return what a model says that sees half of the differences and is off by a tenth."""
    return 0.5 * expected + 0.35
