"""Datasets that mix logging policies: how the decisions of several loggers are weighted.

Naive: every decision by the propensity of its own logger, as if there were one: the estimators as they are.
Balanced: every decision by the mean propensity of all loggers, so that what one of them shuns is not rare if another
chooses it. The best of the three where all propensities are known.
Weighted: an estimate for each logger, averaged by inverse variance. For logs of the own logger's propensity alone.

Estimand: one-step, logged states; NOT the policy's performance. References: Agarwal, Basu, Schnabel and Joachims 2017;
Kallus, Saito and Uehara 2021.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import (
    OneStepInput,
    Valued,
    direct_values,
    refuse_unshared,
    residuals,
    weights,
)

__all__ = ["balanced", "stratified", "weighted_dr", "weighted_ipw", "weighted_snipw"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ALIKE: Final = 1e-12  # relative; what differs by less is the same but for rounding


def balanced(rows: OneStepInput, probabilities: Floats) -> OneStepInput:
    """Return the input with p(a|x) = Σ_k n_k/n p_k(a|x) as propensity: any estimator of it is the balanced one.

    ``stratified(dr(balanced(rows, probabilities)), rows.log)`` is obp's ``multi_bal_dr``. mipw needs the same mean over
    every candidate, so there is no balanced one.

    Args:
        rows: decisions with their logger.
        probabilities: that each logger would have made each logged choice, shape (loggers, n).

    >>> log = LoggedDecisions(
    ...     np.ones(2), np.array([0, 2, 4]), np.array([0, 2]), np.array([0.1, 0.9]), logger=np.array([0, 1])
    ... )
    >>> rows = OneStepInput(log, np.array([1.0, 0.0, 1.0, 0.0]))
    >>> balanced(rows, np.array([[0.1, 0.1], [0.9, 0.9]])).log.propensity
    array([0.5, 0.5])
    """
    log = rows.log
    share = _counts(log) / log.decisions
    if probabilities.shape != (len(share), log.decisions):
        raise DataError(
            f"probabilities have shape {probabilities.shape}; expected ({len(share)}, {log.decisions}), the "
            "probability that each logger would have made each choice"
        )
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-9)).all():
        raise DataError("the probability of a logger is none; expected 0 to 1 for every logged choice")
    own = probabilities[_loggers(log), np.arange(log.decisions)]
    if not np.allclose(own, log.propensity, rtol=1e-6, atol=1e-12):
        raise DataError(
            "the probability of a decision by its own logger is not its propensity; expected the same number"
        )
    return replace(rows, log=replace(log, propensity=share @ probabilities, logging=None))


def stratified(valued: Valued, log: LoggedDecisions) -> Valued:
    """Return the estimate with the influence about each logger's mean: how many decisions each made is given.

    The standard error then leaves out that the loggers' own estimates differ, which with balanced weights they do.
    """
    of_logger = _means(valued.influence, log)[_loggers(log)]
    whole = None if valued.whole is None else stratified(valued.whole, log)
    return replace(valued, influence=valued.influence - of_logger, whole=whole)


def weighted_ipw(rows: OneStepInput) -> Valued:
    """Estimate V = Σ_k ω_k V_k with V_k the mean of w y over the decisions of logger k, obp's ``multi_weighted_ipw``.

    ω_k is proportional to n_k / var_k(w y).
    """
    costs = refuse_unshared(weights(rows), "weighted ipw") * rows.log.cost
    return _weighted(rows.log, np.zeros(rows.log.decisions), costs, costs)


def weighted_snipw(rows: OneStepInput) -> Valued:
    """Estimate V = Σ_k ω_k V_k with V_k = Σ w y / Σ w over the decisions of logger k.

    ω_k is proportional to n_k over the variance of the linearised ratio, w (y − V_k) / mean(w). Not in obp.
    """
    log, w = rows.log, refuse_unshared(weights(rows), "weighted snipw")
    mean = _means(w, log)
    _refuse_alike(mean, "weight")
    value = (_means(w * log.cost, log) / mean)[_loggers(log)]
    linearised = value + w * (log.cost - value) / mean[_loggers(log)]
    return _weighted(log, np.zeros(log.decisions), linearised, linearised)


def weighted_dr(rows: OneStepInput) -> Valued:
    """Estimate V = 1/n Σ q̂(xᵢ, π) + Σ_k ω_k mean_k(w (y − q̂)), obp's ``multi_weighted_dr``.

    ω_k is proportional to n_k / var_k(q̂(x, π) + w (y − q̂)).
    """
    w = refuse_unshared(weights(rows), "weighted dr")
    _refuse_alike(_means(w, rows.log), "weight")
    direct, correction = direct_values(rows), w * residuals(rows)
    return _weighted(rows.log, direct, correction, direct + correction)


def _weighted(log: LoggedDecisions, direct: Floats, correction: Floats, spread: Floats) -> Valued:
    """Add the mean of `direct` and the loggers' means of `correction`, by inverse variance of `spread`."""
    counts, logger = _counts(log), _loggers(log)
    variance = _means((spread - _means(spread, log)[logger]) ** 2, log)
    _refuse_alike(np.where(variance > _ALIKE**2 * _means(spread**2, log), variance, 0.0), "contribution")
    omega = counts / variance
    omega /= omega.sum()
    means = _means(correction, log)
    influence = direct + (omega * log.decisions / counts)[logger] * (correction - means[logger])
    return Valued(float(direct.mean() + omega @ means), influence)


def _refuse_alike(spread: Floats, what: str) -> None:
    """Refuse a logger without any spread, which inverse variance would trust alone."""
    if not (spread > 0).all():
        raise DataError(
            f"every {what} of logger {int(np.argmin(spread))} is the same, often 0 as the policy shares none of its "
            "decisions, and inverse variance would trust it alone; leave it out, or use the balanced form"
        )


def _loggers(log: LoggedDecisions) -> Ints:
    if log.logger is None:
        raise DataError("the log does not say which logger decided; expected a number from 0 for every decision")
    return log.logger


def _counts(log: LoggedDecisions) -> Floats:
    logger = _loggers(log)
    if logger.min() < 0 or not (counts := np.bincount(logger)).all():
        raise DataError(f"loggers {np.unique(logger).tolist()}; expected every number from 0 on, each with decisions")
    return counts.astype(np.float64)


def _means(values: Floats, log: LoggedDecisions) -> Floats:
    """Return the mean over the decisions of each logger, shape (loggers,)."""
    return np.asarray(np.bincount(_loggers(log), weights=values) / _counts(log))
