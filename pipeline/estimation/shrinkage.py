"""Weights that are cut or shrunk: how their estimate is made without flattering a policy, and what was cut off.

Costs are positive and lower is better, so weight that is thrown away counts as a cost of 0: the value falls, and the
policy looks better than it is. Two remedies are here. In the doubly robust estimators the weight multiplies a residual,
and what is cut off counts as the model's prediction. In the others the costs are centred: what is cut off counts as the
mean logged cost, and adding a constant to all costs adds just that constant to the value. Neither is unbiased; the note
says how far the value was moved, and where that flatters the policy.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, direct_values, residuals, weights

__all__ = ["check_lambda", "corrected", "sub_gaussian", "weighted_costs"]

Floats = NDArray[np.float64]


def check_lambda(estimator: str, lambda_: float, most: float = math.inf) -> None:
    """Refuse a hyper-parameter that is out of range.

    >>> check_lambda("sg-dr", 2.0, most=1.0)
    Traceback (most recent call last):
    lodestar.data.errors.ConfigError: lambda_ 2 of sg-dr does not fit; expected a number from 0 to 1
    """
    if not 0 <= lambda_ <= most:
        raise ConfigError(f"lambda_ {lambda_:g} of {estimator} does not fit; expected a number from 0 to {most:g}")


def sub_gaussian(w: Floats, lambda_: float) -> Floats:
    """Return w / (1 − λ + λ w), shape (n,); a weight of 0 stays 0, also with λ = 1, which makes all others 1.

    >>> sub_gaussian(np.array([0.0, 0.5, 3.0]), 0.5).tolist()
    [0.0, 0.6666666666666666, 1.5]
    """
    return np.divide(w, 1 - lambda_ + lambda_ * w, out=np.zeros_like(w), where=w > 0)


def corrected(rows: OneStepInput, shrunk: Floats, lambda_: float) -> Valued:
    """Estimate V = 1/n Σ [q̂(xᵢ, π) + ŵᵢ (yᵢ − q̂(xᵢ, aᵢ))] with weights ŵ that may be shrunk, shape (n,)."""
    off = residuals(rows)
    values = direct_values(rows) + shrunk * off
    return Valued(float(values.mean()), values, lambda_, _notes(weights(rows), shrunk, off, lambda_))


def weighted_costs(rows: OneStepInput, shrunk: Floats, lambda_: float, centred: bool) -> Valued:
    """Estimate V = c + 1/n Σ ŵᵢ (yᵢ − c) with shrunk weights ŵ, shape (n,), and the mean logged cost c.

    The influence is that of V with c estimated too: φ = ŵ (y − c) + (1 − mean(ŵ)) y. Where `centred` is false, c is 0:
    obp's form, for comparison with it alone.
    """
    cost = rows.log.cost
    if not centred:
        values = shrunk * cost
        raw = ("costs are not centred: weight that is cut off counts as a cost of 0, which flatters the policy",)
        return Valued(float(values.mean()), values, lambda_, raw if (shrunk != weights(rows)).any() else ())
    centre = float(cost.mean())
    off = cost - centre
    values = shrunk * off
    influence = values + (1 - float(shrunk.mean())) * off
    return Valued(centre + float(values.mean()), influence, lambda_, _notes(weights(rows), shrunk, off, lambda_))


def _notes(w: Floats, shrunk: Floats, off: Floats, lambda_: float) -> tuple[str, ...]:
    """Say how much weight was cut off, and which way that moved the value; nothing where all were kept."""
    cut = w - shrunk
    if not cut.any():
        return ()
    moved = -float(np.mean(cut * off))
    share = float(np.maximum(cut, 0).sum() / w.sum())
    which = (
        f"lowers the value by {-moved:.4g}, which flatters the policy"
        if moved < 0
        else f"raises the value by {moved:.4g}"
    )
    return (f"lambda_ {lambda_:g} cuts off {share:.1%} of the weight and {which}",)
