"""Self-normalised importance weighting: the logged costs of the decisions that the policy shares."""

from __future__ import annotations

import numpy as np

from lodestar.data.errors import DataError
from lodestar.pipeline.replay.estimators.one_step import OneStepEstimate, OneStepInput, estimate, weights

__all__ = ["snips"]


def snips(rows: OneStepInput, policy: str, block: int) -> OneStepEstimate:
    """Estimate V = Σ wᵢ yᵢ / Σ wᵢ with wᵢ = π(aᵢ|xᵢ) / pᵢ.

    Estimand: one-step, logged states; NOT the policy's performance. Needs right propensities that are above 0 wherever
    the policy may choose, and no model. The standard error linearises the ratio: φ = w (y − V) / mean(w).
    Reference: Swaminathan and Joachims 2015.

    Args:
        rows: logged decisions and what the policy would have done.
        policy: its name.
        block: consecutive requests that count as one for the standard error.
    """
    w = weights(rows)
    if not w.sum() > 0:
        raise DataError(
            f"policy {policy!r} shares none of the {len(w)} logged decisions, so snips has nothing to average; "
            "use dm, or log a policy that explores"
        )
    value_ms = float(np.sum(w * rows.cost_ms) / np.sum(w))
    return estimate(rows, policy, "snips", value_ms, w * (rows.cost_ms - value_ms) / w.mean(), block)
