"""The self-normalised weighted CDF: the logged costs of the decisions that the policy shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.blocks import block_se
from lodestar.pipeline.estimation.one_step import OneStepInput, weights

__all__ = ["WeightedCdf", "weighted_cdf"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WeightedCdf:
    """Costs with weights, some of them above 0.

    Attributes:
        cost: of every decision, shape (n,).
        weight: of every decision, shape (n,).
        block: consecutive decisions that count as one.
        ascending: the costs in order, shape (n,).
        reached: weight at or below each of these, shape (n,).
    """

    cost: Floats
    weight: Floats
    block: int
    ascending: Floats
    reached: Floats

    def quantile(self, level: float) -> float:
        """Return inf {t: F(t) ≥ level}, one of the costs."""
        at = np.searchsorted(self.reached, level * self.reached[-1] * (1 - 1e-12))
        return float(self.ascending[at])

    def level_error(self, cost: float) -> float:
        """Return the standard error of F at a cost, of the linearised ratio: φ = w (1{y ≤ t} − F) / mean(w)."""
        return self.share(cost)[1]

    def error_below(self, cost: float) -> float:
        """Return the standard error of F just below a cost."""
        return self.level_error(float(np.nextafter(cost, -np.inf)))

    def share(self, cost: float) -> tuple[float, float]:
        """Return F at a cost with its standard error."""
        within = (self.cost <= cost).astype(np.float64)
        value = float(self.weight @ within / self.weight.sum())
        return value, self._error(within - value)

    def beyond(self, level: float) -> tuple[float, float]:
        """Return the mean of the tail above the quantile, Q + Σ w (y − Q)⁺ / ((1 − q) Σ w), with its standard error."""
        start = self.quantile(level)
        excess = np.maximum(self.cost - start, 0.0) / (1 - level)
        mean = float(self.weight @ excess / self.weight.sum())
        return start + mean, self._error(excess - mean)

    def _error(self, of_decision: Floats) -> float:
        return block_se(self.weight * of_decision / self.weight.mean(), self.block)


def weighted_cdf(rows: OneStepInput, block: int) -> WeightedCdf:
    """Make F(t) = Σ wᵢ 1{yᵢ ≤ t} / Σ wᵢ with wᵢ = π(aᵢ|xᵢ) / pᵢ.

    Estimand: one-step, logged states; NOT the policy's performance. A tail that the log never went into is missing
    from it, and the policy looks better than it is: see `support`. Reference: Chandak et al. 2021 (UnO).

    >>> from lodestar.pipeline.estimation.logged import LoggedDecisions
    >>> log = LoggedDecisions(np.array([3.0, 1.0, 2.0, 9.0]), np.arange(5), np.arange(4), np.array([1, 1, 0.5, 1]))
    >>> cdf = weighted_cdf(OneStepInput(log, np.ones(4)), block=1)  # weights 1, 1, 2, 1
    >>> cdf.quantile(0.5), cdf.share(2.0)[0], round(cdf.beyond(0.6)[0], 9)
    (2.0, 0.6, 6.0)
    """
    weight = weights(rows)
    order = np.argsort(rows.log.cost, kind="stable")
    return WeightedCdf(rows.log.cost, weight, block, rows.log.cost[order], np.cumsum(weight[order]))
