"""Whether a log can carry a tail: how many requests it weighs like there, and what the policy does that it never saw.

Weights renormalise: where the log never followed the policy into its slow requests, nothing in the weighted costs is
missing, and the P99 is too low, which flatters. A small tail effective sample size shows a tail of few heavy requests.
One of none shows in the policy's own choices: those that the log was to make fewer than three times, which it never
makes in one of twenty logs (rule of three).

Where many requests share one cost, a quantile may lie among them: then what is beyond them does not move it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.blocks import block_se, blocks_in
from lodestar.pipeline.estimation.intervals.linearised import t_quantile
from lodestar.pipeline.estimation.one_step import OneStepInput, weights

__all__ = ["LEAST_ESS", "LEAST_TAIL_ESS", "Support", "effective_size", "support_of", "unseen_ratio"]

Floats = NDArray[np.float64]

LEAST_ESS: Final = 100.0  # below which only the direct estimate speaks
LEAST_TAIL_ESS: Final = 30.0
_VISITS: Final = 3.0  # that the log was to make, fewer of which leave choices unseen


@dataclass(frozen=True, slots=True)
class Support:
    """What a log carries of a policy.

    Attributes:
        weight: of every decision, shape (n,).
        cost: of every decision, shape (n,).
        ess: effective sample size of all weights.
        unseen: share of the policy's decisions that the log cannot speak for.
        errors: how many block standard errors a 95 % interval is wide to each side, by Student's t.
    """

    weight: Floats
    cost: Floats
    ess: float
    unseen: float
    errors: float

    def beyond(self, cost: float) -> float:
        """Return the effective sample size of the decisions that cost more: the tail ESS."""
        return effective_size(self.weight[self.cost > cost])

    def at(self, cost: float) -> float:
        """Return the effective sample size of the decisions that cost exactly as much."""
        return effective_size(self.weight[self.cost == cost])

    def within(self, cost: float) -> float:
        """Return the effective sample size of the decisions that cost no more."""
        return effective_size(self.weight[self.cost <= cost])


def support_of(rows: OneStepInput, block: int) -> Support:
    """Weigh a log by a policy; `block` consecutive decisions count as one, two blocks at least."""
    weight = weights(rows)
    errors = t_quantile(blocks_in(len(weight), block), 0.95)
    return Support(weight, rows.log.cost, effective_size(weight), unseen_ratio(rows, block), errors)


def effective_size(weight: Floats) -> float:
    """Return how many requests of equal weight say as much: (Σw)² / Σw², 0 where there is no weight.

    >>> effective_size(np.array([1.0, 1.0, 0.0])), effective_size(np.zeros(0))
    (2.0, 0.0)
    """
    largest = float(weight.max(initial=0.0))
    if largest == 0:
        return 0.0
    shares = weight / largest  # whose squares neither overflow nor vanish
    return float(np.sum(shares)) ** 2 / float(np.sum(shares**2))


def unseen_ratio(rows: OneStepInput, block: int) -> float:
    """Return which share of the policy's decisions the log cannot speak for.

    Where the log holds the probability of every candidate: the largest share of the policy's choices that the logging
    policy was to make fewer than three times over the whole log, those of the largest weight first. Where it holds
    that of the choice alone: by how much the mean weight is below 1, beyond two standard errors.

    >>> from lodestar.pipeline.estimation.logged import LoggedDecisions
    >>> half = LoggedDecisions(np.ones(8), np.arange(0, 17, 2), np.arange(0, 16, 2), np.ones(8), np.tile([1.0, 0.0], 8))
    >>> unseen_ratio(OneStepInput(half, np.tile([0.75, 0.25], 8)), block=1)
    0.25
    """
    logging = rows.log.logging
    if logging is None:
        w = weights(rows)
        return max(0.0, 1.0 - float(w.mean()) - 2.0 * block_se(w, block))
    for ratio in (1000.0, 100.0, 10.0, 1.0):  # to sort no more than needed
        heavy = np.flatnonzero(rows.target > ratio * logging)
        if logging[heavy].sum() >= _VISITS:
            break
    target, logged = rows.target[heavy], logging[heavy]
    order = np.argsort(logged / target, kind="stable")
    rare = np.cumsum(logged[order]) < _VISITS
    return float(target[order][rare].sum() / rows.log.decisions)
