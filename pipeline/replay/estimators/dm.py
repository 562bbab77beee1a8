"""The direct method: what the latency model says."""

from __future__ import annotations

from lodestar.pipeline.replay.estimators.one_step import OneStepEstimate, OneStepInput, direct_values, estimate

__all__ = ["dm"]


def dm(rows: OneStepInput, policy: str, block: int) -> OneStepEstimate:
    """Estimate V = 1/n Σ q̂(xᵢ, π) with q̂(x, π) = Σₐ π(a|x) q̂(x, a).

    Estimand: one-step, logged states; NOT the policy's performance. Right only as far as the model is: a policy that
    looks at what the model does not see is valued wrongly, and the standard error does not show it.

    Args:
        rows: logged decisions and what the policy would have done.
        policy: its name.
        block: consecutive requests that count as one for the standard error.
    """
    values = direct_values(rows)
    return estimate(rows, policy, "dm", float(values.mean()), values, block)
