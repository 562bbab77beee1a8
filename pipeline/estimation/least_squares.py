"""A linear model of the cost: for logs that no latency model is fitted to, and for estimators that fit their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.cross_fitting import FOLDS, cross_fitted
from lodestar.pipeline.estimation.logged import LoggedDecisions

__all__ = ["Linear", "linear_costs", "weighted_least_squares"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_NEGLIGIBLE: Final = 1e-10  # directions that vary less, relative to the widest, are no information but rounding


@dataclass(frozen=True, slots=True)
class Linear:
    """cost = intercept + features · coefficients; coefficients have shape (k,)."""

    intercept: float
    coefficients: Floats

    def predict(self, features: Floats) -> Floats:
        """Return the cost of every row, shape (r, k) → (r,)."""
        return np.asarray(self.intercept + features @ self.coefficients)


def weighted_least_squares(features: Floats, cost: Floats, weight: Floats, ridge: float = 0.0) -> Linear:
    """Minimise Σ weight (cost − intercept − features · β)² + ridge |β|²; the intercept is not penalised.

    Of several minima, the one with the smallest coefficients of standardised features. The same as scikit-learn's
    LinearRegression, or Ridge with alpha = `ridge`, with sample weights.

    Args:
        features: shape (r, k).
        cost: shape (r,).
        weight: 0 or more, shape (r,).
        ridge: penalty of the squared coefficients.

    >>> model = weighted_least_squares(np.array([[0.0], [1.0], [9.0]]), np.array([1.0, 3.0, 0.0]), np.array([1, 1, 0]))
    >>> round(model.intercept, 9), model.coefficients.round(9).tolist()
    (1.0, [2.0])
    """
    if not ridge >= 0:
        raise ConfigError(f"ridge {ridge:g} does not fit; expected 0 or more")
    counted = weight > 0
    if not counted.any():
        raise DataError("no row has weight, so there is nothing to fit; use dr with a model of this dataset")
    features, cost, weight = features[counted], cost[counted], weight[counted]
    if not np.isfinite(features).all():
        raise DataError("a feature of a chosen candidate is not finite; fill it in, or leave the feature out")
    middle, middle_cost = np.average(features, axis=0, weights=weight), float(np.average(cost, weights=weight))
    root = np.sqrt(weight)[:, None]
    table = np.column_stack([root * (features - middle), root[:, 0] * (cost - middle_cost)])
    if ridge > 0:
        penalty = np.sqrt(ridge) * np.eye(features.shape[1], features.shape[1] + 1)
        table = np.vstack([table, penalty])
    triangle = np.asarray(np.linalg.qr(table, mode="r"))  # as exact as all rows, and small
    scale = np.linalg.norm(triangle[:, :-1], axis=0)
    scale[scale <= _NEGLIGIBLE * np.sqrt(weight @ features**2)] = np.inf  # a constant, which the intercept has
    solved = np.linalg.lstsq(triangle[:, :-1] / scale, triangle[:, -1], rcond=_NEGLIGIBLE)[0] / scale
    return Linear(middle_cost - float(middle @ solved), solved)


def linear_costs(
    log: LoggedDecisions, features: Floats, weight: Floats | None = None, folds: int = FOLDS, gap: int = 0
) -> Floats:
    """Return a predicted cost of every candidate, shape (c,), by linear models of other blocks of time.

    Args:
        log: the decisions, in order of arrival.
        features: of every candidate, shape (c, k).
        weight: of every decision in the fit, shape (n,); None: all count alike.
        folds: blocks of time.
        gap: decisions before and after a block that its model does not learn from either.

    >>> log = LoggedDecisions(np.array([1.0, 3.0, 5.0, 7.0]), np.arange(5), np.arange(4), np.ones(4))
    >>> linear_costs(log, np.array([[0.0], [1.0], [2.0], [3.0]]), folds=2).round(9).tolist()
    [1.0, 3.0, 5.0, 7.0]
    """
    of_chosen = features[log.chosen]
    counts = np.ones(log.decisions) if weight is None else weight

    def fit(training: Bools) -> Callable[[slice], Floats]:
        model = weighted_least_squares(of_chosen[training], log.cost[training], counts[training])
        return lambda candidates: model.predict(features[candidates])

    return cross_fitted(fit, log, folds, gap)
