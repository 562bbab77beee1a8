"""The direct CDF: what the latency model says of the policy's choices."""

from __future__ import annotations

from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.tails.cdf import GridCdf, grid_cdf
from lodestar.pipeline.estimation.tails.conditional import OnGrid, block_cdfs

__all__ = ["direct_cdf"]


def direct_cdf(rows: OneStepInput, model: OnGrid, block: int) -> GridCdf:
    """Make F(t) = 1/n Σᵢ Σₐ π(a|xᵢ) F̂(t | xᵢ, a).

    Estimand: one-step, logged states; NOT the policy's performance. It needs no weights and is right only as far as
    the model is, which its standard error does not show. Reference: Huang et al. 2021 (OPRA).

    Args:
        rows: logged decisions, and what the policy would have done.
        model: the conditional CDF of every candidate on a grid of costs t.
        block: consecutive decisions that count as one.
    """
    return grid_cdf(model.grid, block_cdfs(model, rows.log, rows.target, block), rows.log.decisions, block)
