"""Doubly robust: the model's value, corrected by the weighted residuals of what was logged."""

from __future__ import annotations

from lodestar.pipeline.replay.estimators.one_step import (
    OneStepEstimate,
    OneStepInput,
    direct_values,
    estimate,
    residuals,
    weights,
)

__all__ = ["dr"]


def dr(rows: OneStepInput, policy: str, block: int) -> OneStepEstimate:
    """Estimate V = 1/n Σ [q̂(xᵢ, π) + wᵢ (yᵢ − q̂(xᵢ, aᵢ))].

    Estimand: one-step, logged states; NOT the policy's performance. Right if either the model or the propensities are,
    where the model was not fitted to these same rows. Reference: Dudík, Langford and Li 2011.

    Args:
        rows: logged decisions and what the policy would have done.
        policy: its name.
        block: consecutive requests that count as one for the standard error.
    """
    values = direct_values(rows) + weights(rows) * residuals(rows)
    return estimate(rows, policy, "dr", float(values.mean()), values, block)
