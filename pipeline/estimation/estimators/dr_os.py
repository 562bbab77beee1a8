"""Doubly robust with optimistic shrinkage: large weights shrunk towards the model's word."""

from __future__ import annotations

import math

import numpy as np

from lodestar.pipeline.estimation.blocks import block_of
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, refuse_unshared, weights
from lodestar.pipeline.estimation.shrinkage import check_lambda, corrected
from lodestar.pipeline.estimation.slope import SHRINKAGES, tuned

__all__ = ["dr_os"]


def dr_os(rows: OneStepInput, lambda_: float | None = None, block: int | None = None) -> Valued:
    """Estimate V = 1/n Σ [q̂(xᵢ, π) + ŵᵢ (yᵢ − q̂(xᵢ, aᵢ))] with ŵ = λ w / (w² + λ).

    Estimand: one-step, logged states; NOT the policy's performance. λ = ∞ is dr, λ = 0 is dm, which is why no λ is the
    default. Reference: Su, Dimakopoulou, Krishnamurthy and Dudík 2020.

    Args:
        rows: logged decisions with predictions, and what the policy would have done.
        lambda_: 0 or more, compared with squared weights; None: chosen by SLOPE.
        block: consecutive decisions that count as one in SLOPE; None: as many as `block_of` says.
    """
    if lambda_ is None:
        block = block_of(rows.log.decisions) if block is None else block
        return tuned(lambda each: dr_os(rows, each), SHRINKAGES, block)
    check_lambda("dr-os", lambda_)
    w = refuse_unshared(weights(rows), "dr-os")
    if math.isinf(lambda_):
        return corrected(rows, w, lambda_)
    if lambda_ == 0:  # 0 / 0 where a weight is 0
        return corrected(rows, np.zeros_like(w), lambda_)
    return corrected(rows, lambda_ * w / (w**2 + lambda_), lambda_)
