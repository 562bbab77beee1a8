"""Logs of independent decisions under policies that take the k-th cheapest candidate, whose true values are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.validation.square_logs import drawn, square_log

__all__ = ["CANDIDATES", "DECISIONS", "RankedLog", "ranked_log", "true_cost"]

Floats = NDArray[np.float64]

#: Of every decision.
CANDIDATES: Final = 7
#: Of every log.
DECISIONS: Final = 2400

_LEAST, _SPREAD = 40.0, 100.0  # the expected cost is least + spread · an exponential number
_NOISE: Final = 0.5  # standard deviation of the logarithm of a cost


@dataclass(frozen=True, slots=True)
class RankedLog:
    """A log, and what nobody but the judge knows of it.

    Attributes:
        log: its decisions; costs are lognormal about what is expected.
        expected: cost of every candidate, shape (c,).
    """

    log: LoggedDecisions
    expected: Floats

    def rows(self, rank: int | None, predicted: Floats | None = None) -> OneStepInput:
        """Return the input of estimators for the policy that takes the rank-th cheapest; None: any, as likely.

        >>> made = ranked_log(seed=0, spread=1.0)
        >>> dearest = made.rows(CANDIDATES)
        >>> bool((made.expected[dearest.target == 1] == made.expected.reshape(DECISIONS, -1).max(axis=1)).all())
        True
        """
        if rank is None:
            return OneStepInput(self.log, np.full(self.log.candidates, 1 / CANDIDATES), predicted)
        target = np.zeros((DECISIONS, CANDIDATES))
        taken = self.expected.reshape(target.shape).argsort(axis=1)[:, rank - 1]
        target[np.arange(DECISIONS), taken] = 1.0
        return OneStepInput(self.log, target.ravel(), predicted)


def ranked_log(seed: int, spread: float) -> RankedLog:
    """Draw a log of a policy that knows nothing of the costs: softmax of scores uniform within ± `spread`."""
    random = np.random.default_rng(seed)
    shape = DECISIONS, CANDIDATES
    expected = _LEAST + _SPREAD * random.exponential(size=shape)
    raised = np.exp(random.uniform(-spread, spread, shape))
    probability = raised / raised.sum(axis=1, keepdims=True)
    column = drawn(random, probability)
    cost = expected[np.arange(DECISIONS), column] * random.lognormal(-(_NOISE**2) / 2, _NOISE, DECISIONS)
    return RankedLog(square_log(cost, column, probability), expected.ravel())


def true_cost(rank: int | None) -> float:
    """Return the mean cost of the policy of that rank; None: of one that takes any candidate.

    The k-th least of K exponential numbers is Σ_{j<k} 1 / (K − j) on average (Rényi 1953).

    >>> true_cost(1) == 40 + 100 / 7, true_cost(None)
    (True, 140.0)
    """
    if rank is None:
        return _LEAST + _SPREAD
    return _LEAST + _SPREAD * sum(1 / (CANDIDATES - j) for j in range(rank))
