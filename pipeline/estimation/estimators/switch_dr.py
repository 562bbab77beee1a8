"""SWITCH: doubly robust where the weight is moderate, the model alone where it is large."""

from __future__ import annotations

import numpy as np

from lodestar.pipeline.estimation.blocks import block_of
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, refuse_unshared, weights
from lodestar.pipeline.estimation.shrinkage import check_lambda, corrected
from lodestar.pipeline.estimation.slope import CLIPS, tuned

__all__ = ["switch_dr"]


def switch_dr(rows: OneStepInput, lambda_: float | None = None, block: int | None = None) -> Valued:
    """Estimate V = 1/n Σ [q̂(xᵢ, π) + wᵢ 1{wᵢ ≤ λ} (yᵢ − q̂(xᵢ, aᵢ))].

    Estimand: one-step, logged states; NOT the policy's performance. λ = ∞ is dr, λ = 0 is dm.
    Reference: Wang, Agarwal and Dudík 2017.

    Args:
        rows: logged decisions with predictions, and what the policy would have done.
        lambda_: the largest weight that corrects the model; None: chosen by SLOPE.
        block: consecutive decisions that count as one in SLOPE; None: as many as `block_of` says.
    """
    if lambda_ is None:
        block = block_of(rows.log.decisions) if block is None else block
        return tuned(lambda each: switch_dr(rows, each), CLIPS, block)
    check_lambda("switch-dr", lambda_)
    w = refuse_unshared(weights(rows), "switch-dr")
    return corrected(rows, np.where(w <= lambda_, w, 0.0), lambda_)
