"""What the one-step estimators share: their input, their result, weights, and what the model says.

Estimand: *one-step, logged states*. The value is the mean cost if ONE decision were made by the policy while every
other decision, and so every queue and cache, stayed as logged. It is NOT the policy's performance: a policy that
decides for all requests meets other queues and other caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.near_overload import Worth, worth_of

__all__ = [
    "ESTIMAND",
    "OneStepInput",
    "Tried",
    "Valued",
    "direct_values",
    "missing_weight",
    "refuse_unshared",
    "requests_worth",
    "residuals",
    "weights",
]

ESTIMAND: Final = "one-step, logged states"

_LITTLE: Final = 0.01  # of the weight
_LUCK: Final = 2.0  # standard errors

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OneStepInput:
    """Logged decisions, what a policy would have done in each, and what is known of every candidate.

    Attributes:
        log: the decisions, of n requests with c candidates.
        target: probability that the policy gives every candidate, shape (c,).
        predicted: cost that a model foretells for every candidate, fitted to other requests, shape (c,); NaN is fine
            where the policy never goes and the log never went. None: no model.
        features: of every candidate, to fit a further model by, shape (c, k); None: none.
        embedding: a cell of like candidates, such as (hit, queue, hardware), numbered from 0, shape (c,); None: none.
    """

    log: LoggedDecisions
    target: Floats
    predicted: Floats | None = None
    features: Floats | None = None
    embedding: Ints | None = None
    # What several estimators need is computed once; a changed input is another one, with nothing in here.
    _known: dict[str, Floats] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a policy that is no probability, and what is not one a candidate."""
        self.log.check_probabilities(self.target, "target probability")
        c = self.log.candidates
        for name, values in (("predicted", self.predicted), ("embedding", self.embedding)):
            if values is not None and values.shape != (c,):
                raise DataError(f"{name} has shape {values.shape}; expected ({c},), one value a candidate")
        if self.features is not None and (self.features.ndim != 2 or len(self.features) != c):
            raise DataError(f"features have shape {self.features.shape}; expected ({c}, k), one row a candidate")


@dataclass(frozen=True, slots=True)
class Tried:
    """One hyper-parameter that was tried, and whether it was accepted.

    Attributes:
        lambda_: the hyper-parameter, by obp's name.
        value: the estimate that it gives, in the unit of the cost.
        half_width: of the interval about that.
        accepted: whether its value agrees with all that have wider intervals.
    """

    lambda_: float
    value: float
    half_width: float
    accepted: bool


@dataclass(frozen=True, slots=True)
class Valued:
    """A value and what each decision contributes to its error.

    Attributes:
        value: the estimate, in the unit of the cost.
        influence: its linearised part of every decision, shape (n,): the error of `value` is that of its mean.
        lambda_: the hyper-parameter it was made with, by obp's name; None where there is none.
        notes: what a reader must know of it, sentences without a full stop.
        path: every hyper-parameter that was tried, widest interval first; empty where it was given.
        whole: the same with whole weights, where SLOPE chose to shrink them; None: they are whole, or it had no choice.
    """

    value: float
    influence: Floats
    lambda_: float | None = None
    notes: tuple[str, ...] = ()
    path: tuple[Tried, ...] = ()
    whole: Valued | None = None


def weights(rows: OneStepInput) -> Floats:
    """Return the importance weight of every logged decision: target probability over propensity, shape (n,).

    >>> log = LoggedDecisions(np.ones(1), np.array([0, 2]), np.zeros(1, int), np.array([0.25]))
    >>> weights(OneStepInput(log, np.array([0.5, 0.5])))
    array([2.])
    """
    if not rows.log.has_propensities:
        raise DataError("the log holds no propensities, so its decisions cannot be weighed; use dm, or log them")
    return _once(rows, "weights", lambda: rows.target[rows.log.chosen] / rows.log.propensity)


def refuse_unshared(w: Floats, estimator: str) -> Floats:
    """Return the weights, shape (n,), unless all are 0: a policy that makes none of the logged decisions.

    Importance weighting alone would value it at a cost of 0, the best there is; with a model, at what the model says,
    as if the log had borne it out.
    """
    if not w.any():
        raise DataError(
            f"the policy shares none of the {len(w)} logged decisions, so {estimator} has nothing to average; "
            "use dm, or log a policy that explores"
        )
    return w


def missing_weight(w: Floats) -> tuple[str, ...]:
    """Say so where the mean weight is below 1 by more than luck: what is missing from Σ w y counts as a cost of 0.

    The log never makes these choices of the policy, or so rarely that it did not. Weights less 1 have no memory, so the
    error is that of independent ones.

    >>> missing_weight(np.array([0.5, 1.5])), missing_weight(np.full(100, 0.75))
    ((), ('the mean weight is 0.75, and what is missing to 1 counts as a cost of 0, which flatters the policy',))
    """
    mean = float(w.mean())
    if 1 - mean <= max(_LITTLE, _LUCK * float(w.std()) / len(w) ** 0.5):
        return ()
    return (
        f"the mean weight is {mean:.3g}, and what is missing to 1 counts as a cost of 0, which flatters the policy",
    )


def direct_values(rows: OneStepInput) -> Floats:
    """Return the model's value of every decision: Σ target probability × predicted cost, shape (n,)."""
    predicted = _predicted(rows)
    values = _once(
        rows, "direct values", lambda: rows.log.sums(rows.target * np.where(rows.target > 0, predicted, 0.0))
    )
    if not np.isfinite(values).all():
        raise DataError(
            "the prediction is not finite for a candidate that the policy may choose; expected one for each. "
            "Train a model for this dataset, or use snipw, which needs none"
        )
    return values


def residuals(rows: OneStepInput) -> Floats:
    """Return measured minus predicted cost of every chosen candidate, shape (n,)."""
    predicted = _predicted(rows)
    found = _once(rows, "residuals", lambda: rows.log.cost - predicted[rows.log.chosen])
    if not np.isfinite(found).all():
        raise DataError("the prediction is not finite for a chosen candidate; expected one for each")
    return found


def requests_worth(rows: OneStepInput) -> Worth:
    """Return how many independent requests the log is worth; by instances where they are known."""
    log = rows.log
    found = _once(rows, "requests worth", lambda: np.array(worth_of(log.cost, log.instance)[1:]))
    return Worth(log.decisions, *found.tolist())


def _predicted(rows: OneStepInput) -> Floats:
    if rows.predicted is None:
        raise DataError("no prediction is given; train a model for this dataset, or use snipw, which needs none")
    return rows.predicted


def _once(rows: OneStepInput, name: str, compute: Callable[[], Floats]) -> Floats:
    if name not in rows._known:
        found = np.asarray(compute())
        found.setflags(write=False)
        rows._known[name] = found
    return rows._known[name]
