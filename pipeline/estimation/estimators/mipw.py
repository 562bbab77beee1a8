"""Marginalised importance weighting: candidates of the same kind count as one."""

from __future__ import annotations

import numpy as np

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, missing_weight, refuse_unshared

__all__ = ["mipw"]


def mipw(rows: OneStepInput) -> Valued:
    """Estimate V = 1/n Σ w(xᵢ, eᵢ) yᵢ with w(x, e) = Σₐ π(a|x) 1{e(x, a) = e} / Σₐ p(a|x) 1{e(x, a) = e}.

    Estimand: one-step, logged states; NOT the policy's performance. The weight is the ratio of how likely policy and
    logging policy choose a candidate of this embedding, such as (hit, queue, hardware): far smaller than that of one
    candidate. Unbiased only if candidates of one embedding cost the same; what differs between them is not seen, and
    the standard error does not show it. Reference: Saito and Joachims 2022.

    Args:
        rows: logged decisions with the logging probability and the embedding of every candidate, and what the policy
            would have done.
    """
    log, cell = rows.log, rows.embedding
    if cell is None:
        raise DataError(
            "mipw needs the embedding of every candidate; make one of hit, queue and hardware, or use snipw"
        )
    if log.logging is None:
        raise DataError(
            "mipw needs the logging probability of every candidate, and the log holds that of the choice alone; "
            "log all of them, or use snipw"
        )
    same = cell == np.repeat(cell[log.chosen], log.counts)
    w = refuse_unshared(log.sums(rows.target * same) / log.sums(log.logging * same), "mipw")
    values = w * log.cost
    return Valued(float(values.mean()), values, notes=missing_weight(w))
