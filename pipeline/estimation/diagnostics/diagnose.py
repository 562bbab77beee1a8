"""All diagnostics of a policy on a log, with one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.blocks import blocks_in
from lodestar.pipeline.estimation.diagnostics.balance import bucket_balance, instance_balance
from lodestar.pipeline.estimation.diagnostics.control_variates import control_variates
from lodestar.pipeline.estimation.diagnostics.groups import DRAW_BLOCKS, Groups
from lodestar.pipeline.estimation.diagnostics.mean_zero import Family
from lodestar.pipeline.estimation.diagnostics.prediction import (
    Coverage,
    Prediction,
    coverage,
    miscalibrated,
    prediction,
)
from lodestar.pipeline.estimation.diagnostics.propensity import Propensities, calibration, counts
from lodestar.pipeline.estimation.diagnostics.support import Support, expected_weights, support
from lodestar.pipeline.estimation.diagnostics.verdict import Verdict, judge
from lodestar.pipeline.estimation.diagnostics.weights import Weights, weigh
from lodestar.pipeline.estimation.json_ready import json_ready
from lodestar.pipeline.estimation.one_step import ESTIMAND, OneStepInput

__all__ = ["Diagnostics", "diagnose"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What to know before reading a one-step number.

    Attributes:
        verdict: what the numbers are good for.
        weights: how many requests they leave, and their mean.
        support: what of the policy's choices the log cannot show.
        balance: weights by instance, by bucket and by context.
        propensities: logged probabilities against choices, whatever the policy.
        prediction: the model on the logged choices; None where there is none.
        coverage: of foretold quantiles; empty where there are none.
        miscalibrated: where these are off by more than luck, one sentence; None where they are not.
        notes: what could not be looked at, and why.
    """

    verdict: Verdict
    weights: Weights
    support: Support
    balance: tuple[Family, ...]
    propensities: Propensities
    prediction: Prediction | None
    coverage: tuple[Coverage, ...]
    miscalibrated: str | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it with the estimand, ready for JSON."""
        return {"estimand": ESTIMAND, **json_ready(asdict(self))}


def diagnose(
    rows: OneStepInput,
    block: int,
    buckets: Mapping[str, Ints] | None = None,
    instance: Ints | None = None,
    quantiles: Mapping[float, Floats] | None = None,
) -> Diagnostics:
    """Look at the weights, the propensities and the model behind a policy's one-step numbers.

    Each family of tests fails by luck at most once in 200 logs, whatever the number of its groups.

    Args:
        rows: logged decisions and what the policy would have done.
        block: consecutive requests that count as one in errors of the model; draws have blocks of their own.
        buckets: name → bucket of each decision by what was known before the choice, such as load or time, numbered from
            0, shape (n,). Nothing of the chosen candidate may tell it: that is not balanced.
        instance: that each candidate is, numbered from 0, shape (c,); None: not known.
        quantiles: share, such as 0.9 → that quantile of the cost as foretold for the logged choice, shape (n,).

    >>> from lodestar.pipeline.estimation.logged import LoggedDecisions
    >>> random = np.random.default_rng(0)
    >>> chosen = 2 * np.arange(5000) + random.integers(0, 2, 5000)
    >>> log = LoggedDecisions(random.exponential(size=5000), np.arange(0, 10_001, 2), chosen, np.full(5000, 0.5))
    >>> print(diagnose(OneStepInput(log, np.tile([0.7, 0.3], 5000)), 200).verdict.sentence)
    usable: the logged decisions weigh like 4,308 of 5,000 (ESS 86 %); the weights are what the propensities say
    """
    log, buckets = rows.log, buckets or {}
    covered, blocks = coverage(log.cost, quantiles or {}, block, buckets), blocks_in(log.decisions, block)
    of = None if instance is None else _by_instance(rows, instance)
    expected, notes = expected_weights(rows), []
    weights, supported = weigh(log.cost, expected), support(rows, expected)
    balance = [] if of is None else [instance_balance(log, expected, of)]
    balance += [bucket_balance(expected, name, bucket) for name, bucket in buckets.items()]
    balance.append(control_variates(rows, expected))
    if log.logging is None:
        propensities = counts(log, of)
        notes.append(
            "whether the log ever makes all choices of the policy cannot be told: it holds the propensity of the "
            "choice alone; log the probability of every candidate"
        )
    else:
        propensities = calibration(log, log.logging, of)
    predicted: Prediction | None = None
    if rows.predicted is not None:
        try:
            predicted = prediction(rows, block, buckets)
        except DataError as error:
            notes.append(f"the model is not looked at: {error}")
    return Diagnostics(
        verdict=judge(weights, supported, [*propensities.families, *balance], predicted is not None),
        weights=weights,
        support=supported,
        balance=tuple(balance),
        propensities=propensities,
        prediction=predicted,
        coverage=covered,
        miscalibrated=miscalibrated(covered, blocks),
        notes=tuple(notes),
    )


def _by_instance(rows: OneStepInput, instance: Ints) -> Groups:
    if instance.shape != (rows.log.candidates,) or (instance < 0).any():
        raise DataError(
            f"instance has shape {instance.shape}; expected ({rows.log.candidates},), a number of 0 or more a candidate"
        )
    return Groups.of_candidates(instance, rows.log, DRAW_BLOCKS)
