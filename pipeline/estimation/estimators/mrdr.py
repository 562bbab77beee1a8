"""More robust doubly robust: dr with a model fitted to make its own variance small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.cross_fitting import FOLDS
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.least_squares import linear_costs
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, refuse_unshared, weights

__all__ = ["mrdr", "mrdr_weights"]

Floats = NDArray[np.float64]


def mrdr_weights(rows: OneStepInput) -> Floats:
    """Return how much each decision counts in the fit, obp's π(a|x) (1 − p) / p², shape (n,).

    A decision that the logging policy was sure of counts for nothing: no other choice is to be predicted from it.
    """
    p = np.minimum(rows.log.propensity, 1.0)
    return np.asarray(rows.target[rows.log.chosen] * (1 - p) / p**2)


def mrdr(rows: OneStepInput, folds: int = FOLDS, gap: int = 0) -> Valued:
    """Estimate V as dr does, with q̂ = b₀ + b₁ predicted + Σ bⱼ featureⱼ by weighted least squares.

    Estimand: one-step, logged states; NOT the policy's performance. The coefficients minimise
    Σ π(aᵢ|xᵢ) (1 − pᵢ) / pᵢ² (yᵢ − q̂(xᵢ, aᵢ))², and every block of time is predicted by a fit to the others.
    Reference: Farajtabar, Chow and Ghavamzadeh 2018.

    Args:
        rows: logged decisions with predictions or features or both, and what the policy would have done.
        folds: blocks of time.
        gap: decisions before and after a block that its fit leaves out.
    """
    given = [each for each in (rows.predicted, rows.features) if each is not None]
    if not given:
        raise DataError("mrdr fits a model, and neither a prediction nor features are given; train one, or use snipw")
    refuse_unshared(weights(rows), "mrdr")
    try:
        fitted = linear_costs(rows.log, np.column_stack(given), mrdr_weights(rows), folds, gap)
    except DataError as error:
        raise DataError(f"mrdr cannot fit its model: {error}") from error
    return dr(replace(rows, predicted=fitted))
