"""The direct method: what the latency model says."""

from __future__ import annotations

from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, direct_values

__all__ = ["dm"]


def dm(rows: OneStepInput) -> Valued:
    """Estimate V = 1/n Σ q̂(xᵢ, π) with q̂(x, π) = Σₐ π(a|x) q̂(x, a).

    Estimand: one-step, logged states; NOT the policy's performance. Right only as far as the model is: a policy that
    looks at what the model does not see is valued wrongly, and the standard error does not show it.

    Args:
        rows: logged decisions with predictions, and what the policy would have done.
    """
    values = direct_values(rows)
    return Valued(float(values.mean()), values)
