"""Self-normalised doubly robust: the correction divided by the mean weight."""

from __future__ import annotations

from lodestar.pipeline.estimation.one_step import (
    OneStepInput,
    Valued,
    direct_values,
    refuse_unshared,
    residuals,
    weights,
)

__all__ = ["sndr"]


def sndr(rows: OneStepInput) -> Valued:
    """Estimate V = 1/n Σ q̂(xᵢ, π) + Σ wᵢ rᵢ / Σ wᵢ with residuals rᵢ = yᵢ − q̂(xᵢ, aᵢ).

    Estimand: one-step, logged states; NOT the policy's performance. As dr, with less noise from weights whose mean is
    not 1. The standard error linearises the ratio R: φ = q̂(x, π) + w (r − R) / mean(w).
    Reference: Thomas and Brunskill 2016.

    Args:
        rows: logged decisions with predictions, and what the policy would have done.
    """
    direct, off, w = direct_values(rows), residuals(rows), refuse_unshared(weights(rows), "sndr")
    ratio = float((w * off).sum() / w.sum())
    return Valued(float(direct.mean()) + ratio, direct + w * (off - ratio) / w.mean())
