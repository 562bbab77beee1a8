"""Doubly robust: the model's value, corrected by the weighted residuals of what was logged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, refuse_unshared, weights
from lodestar.pipeline.estimation.shrinkage import check_lambda, corrected

__all__ = ["dr"]


def dr(rows: OneStepInput, lambda_: float = math.inf) -> Valued:
    """Estimate V = 1/n Σ [q̂(xᵢ, π) + min(wᵢ, λ) (yᵢ − q̂(xᵢ, aᵢ))].

    Estimand: one-step, logged states; NOT the policy's performance. Without λ, right if either the model or the
    propensities are, where the model was not fitted to these same rows. Reference: Dudík, Langford and Li 2011.

    Args:
        rows: logged decisions with predictions, and what the policy would have done.
        lambda_: the largest weight; what is cut off counts as the model predicts.
    """
    check_lambda("dr", lambda_)
    w = refuse_unshared(weights(rows), "dr")
    if math.isinf(lambda_):
        return replace(corrected(rows, w, lambda_), lambda_=None)
    return corrected(rows, np.minimum(w, lambda_), lambda_)
