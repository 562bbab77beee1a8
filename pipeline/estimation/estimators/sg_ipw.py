"""Sub-Gaussian importance weighting: large weights shrunk smoothly, small ones raised."""

from __future__ import annotations

from lodestar.pipeline.estimation.blocks import block_of
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, refuse_unshared, weights
from lodestar.pipeline.estimation.shrinkage import check_lambda, sub_gaussian, weighted_costs
from lodestar.pipeline.estimation.slope import SHARES, tuned

__all__ = ["sg_ipw"]


def sg_ipw(rows: OneStepInput, lambda_: float | None = None, centred: bool = True, block: int | None = None) -> Valued:
    """Estimate V = c + 1/n Σ ŵᵢ (yᵢ − c) with ŵ = w / (1 − λ + λ w) and the mean logged cost c.

    Estimand: one-step, logged states; NOT the policy's performance. λ = 0 leaves the weights, λ = 1 makes all alike.
    Weight that is cut off counts as the mean logged cost. Reference: Metelli, Russo and Restelli 2021.

    Args:
        rows: logged decisions and what the policy would have done.
        lambda_: from 0 to 1; None: chosen by SLOPE.
        centred: take c as the mean logged cost; else as 0, obp's form, which flatters policies where costs are
            positive.
        block: consecutive decisions that count as one in SLOPE; None: as many as `block_of` says.
    """
    if lambda_ is None:
        block = block_of(rows.log.decisions) if block is None else block
        return tuned(lambda each: sg_ipw(rows, each, centred), SHARES, block)
    check_lambda("sg-ipw", lambda_, most=1.0)
    w = refuse_unshared(weights(rows), "sg-ipw")
    return weighted_costs(rows, sub_gaussian(w, lambda_), lambda_, centred)
