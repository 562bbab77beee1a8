"""Self-normalised importance weighting: the logged costs of the decisions that the policy shares."""

from __future__ import annotations

import numpy as np

from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, refuse_unshared, weights

__all__ = ["snipw"]


def snipw(rows: OneStepInput) -> Valued:
    """Estimate V = Σ wᵢ yᵢ / Σ wᵢ with wᵢ = π(aᵢ|xᵢ) / pᵢ.

    Estimand: one-step, logged states; NOT the policy's performance. Needs right propensities that are above 0 wherever
    the policy may choose, and no model. The standard error linearises the ratio: φ = w (y − V) / mean(w).
    Reference: Swaminathan and Joachims 2015.

    Args:
        rows: logged decisions and what the policy would have done.
    """
    w = refuse_unshared(weights(rows), "snipw")
    value = float(np.sum(w * rows.log.cost) / np.sum(w))
    return Valued(value, w * (rows.log.cost - value) / w.mean())
