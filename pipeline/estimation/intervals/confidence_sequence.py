"""Confidence sequences: intervals that hold at every number of decisions at once, so that one may look at any time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.intervals.boundary import running_lower
from lodestar.pipeline.estimation.intervals.bounds import Bounds
from lodestar.pipeline.estimation.intervals.interval import check_level

__all__ = [
    "RUNNING_AVERAGE",
    "ConfidenceSequence",
    "Foretold",
    "confidence_sequence",
    "difference_sequence",
]

Floats = NDArray[np.float64]

RUNNING_AVERAGE: Final = "running average of one-step values along this logged path"


@dataclass(frozen=True, slots=True)
class ConfidenceSequence:
    """Bounds after each decision, in the unit of the cost.

    Attributes:
        lower: after 1, 2, …, n decisions, shape (…, n).
        upper: the same.
        level: how often all of them hold at once.
        estimand: of what.
    """

    lower: Floats
    upper: Floats
    level: float
    estimand: str


@dataclass(frozen=True, slots=True)
class Foretold:
    """What was foretold of every decision from earlier requests alone, which makes sequences much narrower.

    A model that was fitted to this decision or to later ones, as a cross-fitted one is, gives bounds that do not hold.

    Attributes:
        value: of the policy, Σ π(a|x) q̂(x, a); of a policy less another where they are compared, shape (…, n).
        chosen: of the decision that was logged, within the bounds of the cost, shape (…, n).
        largest_weight: that any decision could have, such as 1 over the least propensity.
    """

    value: Floats
    chosen: Floats
    largest_weight: float


def confidence_sequence(
    cost: Floats, weight: Floats, bounds: Bounds, foretold: Foretold | None = None, level: float = 0.95
) -> ConfidenceSequence:
    """Bound the value of a policy after each decision, at all of them at once.

    Estimand: the average, over the decisions so far, of the cost that the policy would have had in each state of the
    log. Decisions may depend on all that came before, and the logging policy may change as it goes, as long as its
    propensities are right. It makes no claim on other traffic.

    Args:
        cost: of every decision in order of arrival, within the bounds, shape (…, n).
        weight: importance weight of every decision, shape (…, n).
        bounds: the least and the largest cost that any request could have.
        foretold: what earlier requests foretold; None: the weighted costs alone, which suits costs that fill their
            bounds and gives a wide upper bound where most costs lie near the least.
        level: how often all bounds should hold.

    Reference: Karampatziakis, Mineiro and Ramdas 2021, Off-policy confidence sequences; Waudby-Smith, Wu, Ramdas,
    Karampatziakis and Mineiro, arXiv:2210.10768. As vw-estimators 0.2.2, but with the guess of the mean kept at 1.

    >>> w, y = np.tile([0.5, 1.5], 5000), np.tile([0.2, 0.6, 0.4, 0.8], 2500)
    >>> found = confidence_sequence(y, w, Bounds(0.0, 1.0))
    >>> [f"{found.lower[n]:.2f} to {found.upper[n]:.2f}" for n in (99, 999, 9999)]
    ['0.41 to 0.67', '0.54 to 0.62', '0.58 to 0.60']
    """
    y = _scaled(cost, weight, bounds, level)
    if foretold is None:
        _check_weights(weight, np.inf)
        least, largest, scale = weight * y, weight * (1 - y), 1.0
    else:
        _check_weights(weight, foretold.largest_weight)
        value, chosen = _within(bounds, foretold.value, "value"), _within(bounds, foretold.chosen, "chosen")
        least = value + weight * (y - chosen)
        largest, scale = 1 - least, 1 + foretold.largest_weight
    error, span = (1 - level) / 2, bounds.largest - bounds.least
    lower, upper = running_lower(least, scale, error), 1 - running_lower(largest, scale, error)
    return ConfidenceSequence(
        bounds.least + span * np.clip(lower, 0.0, 1.0),
        bounds.least + span * np.clip(upper, 0.0, 1.0),
        level,
        RUNNING_AVERAGE,
    )


def difference_sequence(
    cost: Floats,
    weight: Floats,
    baseline_weight: Floats,
    bounds: Bounds,
    foretold: Foretold | None = None,
    level: float = 0.95,
) -> ConfidenceSequence:
    """Bound the value of a policy less that of a baseline after each decision, at all of them at once.

    What both share of a decision cancels. Against the logging policy itself the baseline's weights are 1.

    Args:
        cost: as in `confidence_sequence`.
        weight: importance weight of the policy, shape (…, n).
        baseline_weight: that of the baseline, shape (…, n).
        bounds: of any cost.
        foretold: as in `confidence_sequence`; its value is that of the policy less that of the baseline, and its
            largest weight that of either.
        level: how often all bounds should hold.

    >>> w, y = np.tile([0.5, 1.5], 5000), np.tile([0.7, 0.3], 5000)
    >>> found = difference_sequence(y, w, np.ones(10_000), Bounds(0.0, 1.0))
    >>> f"{found.lower[-1]:.2f} to {found.upper[-1]:.2f}"
    '-0.11 to -0.09'
    """
    y = _scaled(cost, weight, bounds, level)
    limit = np.inf if foretold is None else foretold.largest_weight
    for each in (weight, baseline_weight):
        _check_weights(each, limit)
    if baseline_weight.shape != weight.shape:
        raise DataError(f"baseline weight has shape {baseline_weight.shape}; expected {weight.shape}")
    if foretold is None:
        # Both are 0 or more, and their conditional means are 1 + the difference, and 1 − it.
        least, largest, scale = weight * y + baseline_weight * (1 - y), weight * (1 - y) + baseline_weight * y, 1.0
    else:
        span = bounds.largest - bounds.least
        apart = foretold.value / span + (weight - baseline_weight) * (y - _within(bounds, foretold.chosen, "chosen"))
        if not (np.abs(foretold.value) <= span).all():
            raise DataError(f"a foretold difference is larger than the bounds are apart, {span:g}; expected none")
        least, largest, scale = 1 + apart, 1 - apart, 1 + foretold.largest_weight
    error, span = (1 - level) / 2, bounds.largest - bounds.least
    lower, upper = running_lower(least, scale, error) - 1, 1 - running_lower(largest, scale, error)
    return ConfidenceSequence(
        span * np.clip(lower, -1.0, 1.0),
        span * np.clip(upper, -1.0, 1.0),
        level,
        f"{RUNNING_AVERAGE}, less the baseline's",
    )


def _scaled(cost: Floats, weight: Floats, bounds: Bounds, level: float) -> Floats:
    check_level(level)
    bounds.check(cost)
    if weight.shape != cost.shape:
        raise DataError(f"weight has shape {weight.shape}; expected {cost.shape}, one a decision")
    return bounds.scaled(cost)


def _check_weights(weight: Floats, largest: float) -> None:
    if not ((weight >= 0) & (weight <= largest) & np.isfinite(weight)).all():
        raise ConfigError(f"a weight lies outside 0 to {largest:g}; expected none. Name a largest weight that holds")


def _within(bounds: Bounds, foretold: Floats, name: str) -> Floats:
    """Scale what was foretold; beyond the bounds, the deviations could be larger than the bound allows for."""
    scaled = bounds.scaled(foretold)
    if not ((scaled >= 0) & (scaled <= 1)).all():
        raise DataError(
            f"the foretold {name} leaves the bounds {bounds.least:g} to {bounds.largest:g}; expected it inside. "
            "Bring it to the nearest bound"
        )
    return scaled
