"""Sub-Gaussian doubly robust: the correction with large weights shrunk smoothly."""

from __future__ import annotations

from lodestar.pipeline.estimation.blocks import block_of
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, refuse_unshared, weights
from lodestar.pipeline.estimation.shrinkage import check_lambda, corrected, sub_gaussian
from lodestar.pipeline.estimation.slope import SHARES, tuned

__all__ = ["sg_dr"]


def sg_dr(rows: OneStepInput, lambda_: float | None = None, block: int | None = None) -> Valued:
    """Estimate V = 1/n Σ [q̂(xᵢ, π) + ŵᵢ (yᵢ − q̂(xᵢ, aᵢ))] with ŵ = w / (1 − λ + λ w).

    Estimand: one-step, logged states; NOT the policy's performance. λ = 0 is dr; with λ = 1 every residual of a
    decision that the policy might make counts alike. Reference: Metelli, Russo and Restelli 2021.

    Args:
        rows: logged decisions with predictions, and what the policy would have done.
        lambda_: from 0 to 1; None: chosen by SLOPE.
        block: consecutive decisions that count as one in SLOPE; None: as many as `block_of` says.
    """
    if lambda_ is None:
        block = block_of(rows.log.decisions) if block is None else block
        return tuned(lambda each: sg_dr(rows, each), SHARES, block)
    check_lambda("sg-dr", lambda_, most=1.0)
    w = refuse_unshared(weights(rows), "sg-dr")
    return corrected(rows, sub_gaussian(w, lambda_), lambda_)
