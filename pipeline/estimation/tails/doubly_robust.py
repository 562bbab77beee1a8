"""The doubly robust CDF: what the model says, corrected by where the logged costs fell."""

from __future__ import annotations

import numpy as np

from lodestar.pipeline.estimation.one_step import OneStepInput, weights
from lodestar.pipeline.estimation.tails.cdf import GridCdf, grid_cdf
from lodestar.pipeline.estimation.tails.conditional import OnGrid, block_cdfs

__all__ = ["doubly_robust_cdf"]


def doubly_robust_cdf(rows: OneStepInput, model: OnGrid, block: int) -> GridCdf:
    """Make F(t) = 1/n Σᵢ [Σₐ π(a|xᵢ) F̂(t | xᵢ, a) + wᵢ (1{yᵢ ≤ t} − F̂(t | xᵢ, aᵢ))].

    Estimand: one-step, logged states; NOT the policy's performance. At every t it is right if either the model or the
    propensities are. Reference: Huang et al. 2021 (OPRA), doubly robust CDF.

    Args:
        rows: logged decisions, and what the policy would have done.
        model: the conditional CDF of every candidate, fitted to other blocks than it is used for, on a grid of costs t
            that goes up to where all is reached.
        block: consecutive decisions that count as one.
    """
    log, grid, w = rows.log, model.grid, weights(rows)
    corrected = rows.target.astype(np.float64)
    corrected[log.chosen] -= w
    sums = block_cdfs(model, log, corrected, block)
    cell = np.searchsorted(grid, log.cost)  # the first t at or above the cost; one more for what is above all
    place, shape = np.arange(log.decisions) // block * (len(grid) + 1) + cell, (len(sums), len(grid) + 1)
    fallen = np.bincount(place, w, shape[0] * shape[1]).reshape(shape)
    sums += np.cumsum(fallen, axis=1)[:, :-1]
    return grid_cdf(grid, sums, log.decisions, block)
