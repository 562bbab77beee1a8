"""How many requests the weights leave, whether their mean is right, and how much the heaviest carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.diagnostics.groups import DRAW_BLOCKS, Groups
from lodestar.pipeline.estimation.diagnostics.mean_zero import Family, Sums, family
from lodestar.pipeline.estimation.diagnostics.support import Expected
from lodestar.pipeline.estimation.tails.support import effective_size

__all__ = ["TAILS", "Weights", "tail_effective_sample_size", "weigh"]

Floats = NDArray[np.float64]

#: Quantiles of the cost whose tails are counted.
TAILS: Final = (0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one policy on one log.

    Attributes:
        decisions: of the log.
        ess: effective sample size.
        tail_ess: the same of the requests beyond each quantile of the cost, by its name, such as 'p99'.
        mean: weight, 1 where the propensities are right and the log goes wherever the policy goes.
        expected_mean: 1 less what the log is known never to choose.
        z: standard errors between both.
        tested: whether z tells anything: not where one request decides it.
        largest: weight of one request.
        largest_ratio: share of all weight that it carries.
        top_ratio: share of all weight that the heaviest 1 % of the requests carry.
    """

    decisions: int
    ess: float
    tail_ess: dict[str, float]
    mean: float
    expected_mean: float
    z: float
    tested: bool
    largest: float
    largest_ratio: float
    top_ratio: float

    @property
    def ess_ratio(self) -> float:
        """The effective sample size as a share of the decisions."""
        return self.ess / self.decisions


def weigh(cost: Floats, expected: Expected) -> Weights:
    """Sum up the weights of a policy.

    Args:
        cost: of each decision, shape (n,).
        expected: weights, found and expected.

    >>> w = np.array([2.0, 2.0, 0.0, 2.0])
    >>> found = weigh(np.arange(4.0), Expected(w, np.ones(4), np.ones(4), None, None))
    >>> found.ess, found.mean, round(found.top_ratio, 2)
    (3.0, 1.5, 0.33)
    """
    w = expected.weight
    total, n = float(w.sum()), len(w)
    worst = _mean_test(expected).worst
    top = max(1, n // 100)
    heaviest = float(np.partition(w, n - top)[n - top :].sum())
    order = np.argsort(cost, kind="stable")
    return Weights(
        decisions=n,
        ess=effective_size(w),
        tail_ess={f"p{100 * q:g}": _tail(cost[order], w[order], q) for q in TAILS},
        mean=float(w.mean()),
        expected_mean=float(expected.mass.mean()),
        z=0.0 if worst is None else worst.z,
        tested=worst is not None,
        largest=float(w.max()),
        largest_ratio=float(w.max()) / total if total > 0 else 0.0,
        top_ratio=heaviest / total if total > 0 else 0.0,
    )


def tail_effective_sample_size(cost: Floats, w: Floats, quantile: float) -> float:
    """Return (Σw)² / Σw² over the requests whose cost is above a quantile of the weighted costs.

    The quantile is the least cost at which the weight so far is that share of all: below some thirty in the tail, a
    quantile of it is the luck of a few requests.

    Args:
        cost: shape (n,).
        w: shape (n,).
        quantile: between 0 and 1.

    >>> tail_effective_sample_size(np.arange(10.0), np.ones(10), 0.7)
    3.0
    """
    order = np.argsort(cost, kind="stable")
    return _tail(cost[order], w[order], quantile)


def _tail(cost: Floats, w: Floats, quantile: float) -> float:
    running = np.cumsum(w)
    at = int(np.searchsorted(running, quantile * running[-1] * (1 - 1e-12), side="left"))
    return effective_size(w[np.searchsorted(cost, cost[min(at, len(cost) - 1)], side="right") :])


def _mean_test(expected: Expected) -> Family:
    known = None if expected.variance is None else expected.variance.sum(keepdims=True)
    groups = Groups.one(len(expected.weight), DRAW_BLOCKS)
    return family(
        "mean weight", ["all decisions"], Sums.of(groups, expected.surplus, expected.mass, known), DRAW_BLOCKS
    )
