"""What the one-step estimators share: their input, their result, weights and block standard errors.

Estimand: *one-step, logged states*. The value is the mean cost if ONE decision were made by the policy while every
other decision, and so every queue and cache, stayed as logged. It is NOT the policy's performance: a policy that
decides for all requests meets other queues and other caches. Nothing is clipped: with a cost, clipping weights makes a
policy look better than it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError

__all__ = [
    "ESTIMAND",
    "OneStepEstimate",
    "OneStepInput",
    "block_se",
    "direct_values",
    "estimate",
    "residuals",
    "weights",
]

ESTIMAND: Final = "one-step, logged states"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OneStepInput:
    """Logged decisions and what a policy would have done in each, over padded candidates.

    Attributes:
        cost_ms: logged latency of the chosen candidate, shape (n,), in order of arrival.
        chosen: column of the chosen candidate, shape (n,).
        propensity: probability that the logging policy gave it, shape (n,).
        target_probability: what the policy gives every candidate, 0 for what is none, shape (n, m).
        predicted_ms: the model's latency for every candidate, shape (n, m); NaN is fine where it is not needed.
    """

    cost_ms: Floats
    chosen: Ints
    propensity: Floats
    target_probability: Floats
    predicted_ms: Floats

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_values(self)


@dataclass(frozen=True, slots=True)
class OneStepEstimate:
    """The value of one policy by one estimator, on logged states.

    Attributes:
        policy: the policy that is valued.
        estimator: ``dm``, ``snips`` or ``dr``.
        value_ms: the estimate.
        se_ms: block standard error for the value over traffic like the logged one.
        ess: effective sample size (Σw)² / Σw², 0 where no logged decision has weight.
        mean_weight: 1 within its noise, or the propensities are wrong.
        max_weight: the largest weight of one request.
    """

    policy: str
    estimator: str
    value_ms: float
    se_ms: float
    ess: float
    mean_weight: float
    max_weight: float

    def to_dict(self) -> dict[str, object]:
        """Return the fields with the estimand beside them, ready for JSON."""
        return {**asdict(self), "estimand": ESTIMAND}


def weights(rows: OneStepInput) -> Floats:
    """Return the importance weight of every logged decision: target probability over propensity.

    >>> half = np.full((1, 2), 0.5)
    >>> weights(OneStepInput(np.ones(1), np.zeros(1, int), np.array([0.25]), half, half))
    array([2.])
    """
    return np.asarray(_chosen(rows.target_probability, rows) / rows.propensity)


def direct_values(rows: OneStepInput) -> Floats:
    """Return the model's value of every decision: Σ target probability × predicted latency, in ms."""
    needed = rows.target_probability > 0
    if not np.isfinite(rows.predicted_ms[needed]).all():
        raise DataError(
            "predicted_ms is not finite for a candidate that the policy may choose; expected a prediction for each. "
            "Train a model for this dataset, or use snips, which needs none"
        )
    return np.asarray(np.sum(rows.target_probability * np.where(needed, rows.predicted_ms, 0.0), axis=1))


def residuals(rows: OneStepInput) -> Floats:
    """Return measured minus predicted latency of every chosen candidate, in ms."""
    predicted = _chosen(rows.predicted_ms, rows)
    if not np.isfinite(predicted).all():
        raise DataError("predicted_ms is not finite for a chosen candidate; expected a prediction for each")
    return rows.cost_ms - predicted


def block_se(influence: Floats, block: int) -> float:
    """Return the standard error of a mean from its influence values, by blocks of consecutive requests.

    With blocks of equal length this is sd(block means) / √blocks; a shorter last block counts by its length.

    >>> round(block_se(np.array([1.0, 3.0, 5.0, 7.0]), block=2), 3)
    2.0
    """
    blocks = -(-len(influence) // block) if block >= 1 else 0
    if blocks < 2:
        raise ConfigError(f"block {block} does not fit; expected at least two blocks in {len(influence)} requests")
    sums = np.add.reduceat(influence - influence.mean(), np.arange(0, len(influence), block))
    return float(np.sqrt(blocks / (blocks - 1) * np.sum(sums**2)) / len(influence))


def estimate(
    rows: OneStepInput, policy: str, estimator: str, value_ms: float, influence: Floats, block: int
) -> OneStepEstimate:
    """Put a value, its block standard error and the diagnostics of the weights together."""
    w = weights(rows)
    squares = float(np.sum(w**2))
    return OneStepEstimate(
        policy=policy,
        estimator=estimator,
        value_ms=value_ms,
        se_ms=block_se(influence, block),
        ess=float(np.sum(w)) ** 2 / squares if squares > 0 else 0.0,
        mean_weight=float(np.mean(w)),
        max_weight=float(np.max(w)),
    )


def _chosen(table: Floats, rows: OneStepInput) -> Floats:
    return np.take_along_axis(table, rows.chosen[:, None], axis=1)[:, 0]


def _check_shapes(rows: OneStepInput) -> None:
    n = len(rows.cost_ms)
    wide = rows.target_probability.shape
    if n == 0 or len(wide) != 2 or wide[0] != n or rows.predicted_ms.shape != wide:
        raise DataError(
            f"{n} decisions with target_probability {wide} and predicted_ms {rows.predicted_ms.shape}; "
            "expected both to have one row a decision and one column a candidate"
        )
    for name, shape in (("chosen", rows.chosen.shape), ("propensity", rows.propensity.shape)):
        if shape != (n,):
            raise DataError(f"{name} has shape {shape}; expected ({n},), one value a decision")


def _check_values(rows: OneStepInput) -> None:
    if not np.isfinite(rows.cost_ms).all():
        raise DataError("cost_ms is not finite for every decision; leave out the requests that did not finish")
    if not ((rows.propensity > 0) & (rows.propensity <= 1)).all():
        raise DataError("propensity must lie above 0 and at most at 1; log it, or name a --logging-policy")
    if not ((rows.chosen >= 0) & (rows.chosen < rows.target_probability.shape[1])).all():
        raise DataError("chosen must be a column of target_probability; leave out decisions that are not logged")
    if not (rows.target_probability >= 0).all():  # NaN fails here too
        raise DataError("target_probability must be 0 or more for every candidate, and 0 for what is none")
    total = rows.target_probability.sum(axis=1)
    if not np.allclose(total, 1, atol=1e-6):
        worst = float(total[np.argmax(np.abs(total - 1))])
        raise DataError(f"target_probability of one decision sums to {worst:.6g}; expected 1 over its candidates")
