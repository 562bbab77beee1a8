"""Importance weighting: logged costs, weighted by how much likelier the policy makes each decision."""

from __future__ import annotations

import math

import numpy as np

from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, missing_weight, refuse_unshared, weights
from lodestar.pipeline.estimation.shrinkage import check_lambda, weighted_costs

__all__ = ["ipw"]


def ipw(rows: OneStepInput, lambda_: float = math.inf, centred: bool = True) -> Valued:
    """Estimate V = 1/n Σ wᵢ yᵢ with wᵢ = π(aᵢ|xᵢ) / pᵢ; with a finite `lambda_`, V = c + 1/n Σ min(wᵢ, λ) (yᵢ − c).

    Estimand: one-step, logged states; NOT the policy's performance. Unbiased without λ, where propensities are right
    and above 0 wherever the policy may choose; noisier than snipw, as a constant cost is valued at its mean weight.
    With λ, weight that is cut off counts as the mean logged cost c. Reference: Horvitz and Thompson 1952.

    Args:
        rows: logged decisions and what the policy would have done.
        lambda_: the largest weight.
        centred: take c as the mean logged cost; else as 0, obp's form, which flatters policies where costs are
            positive.
    """
    check_lambda("ipw", lambda_)
    w = refuse_unshared(weights(rows), "ipw")
    if math.isinf(lambda_):
        values = w * rows.log.cost
        return Valued(float(values.mean()), values, notes=missing_weight(w))
    return weighted_costs(rows, np.minimum(w, lambda_), lambda_, centred)
