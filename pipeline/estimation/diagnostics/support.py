"""Support: whether the log ever goes where the policy would go, and what that makes of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.one_step import OneStepInput, weights

__all__ = ["HEAVY", "Expected", "Support", "expected_weights", "support"]

Floats = NDArray[np.float64]

#: Share of the total weight beyond which one request weighs too much.
HEAVY: Final = 0.05
_SOME: Final = 1e-9  # of a policy's probability; less is rounding


@dataclass(frozen=True, slots=True)
class Expected:
    """Weights of a policy, and what they are on average, choice by choice, if the propensities are right.

    Where the log holds the propensity of the choice alone, the log is taken to go wherever the policy goes.

    Attributes:
        weight: found, shape (n,).
        mass: Σ π(a|x) over the candidates with π_b(a|x) > 0, the weight expected, shape (n,).
        target: π where the log goes, else 0: the expectation of w·1{a is chosen}, shape (c,).
        squares: π²/π_b, the expectation of its square, shape (c,); None where the log does not tell.
        variance: of the weight, shape (n,); None where the log does not tell.
    """

    weight: Floats
    mass: Floats
    target: Floats
    squares: Floats | None
    variance: Floats | None

    @property
    def surplus(self) -> Floats:
        """Found minus expected weight, shape (n,)."""
        return self.weight - self.mass


def expected_weights(rows: OneStepInput) -> Expected:
    """Return the weights with their first two moments.

    >>> from lodestar.pipeline.estimation.logged import LoggedDecisions
    >>> logging = np.array([0.5, 0.5, 0.0])
    >>> log = LoggedDecisions(np.ones(1), np.array([0, 3]), np.array([1]), np.array([0.5]), logging)
    >>> found = expected_weights(OneStepInput(log, np.array([0.5, 0.25, 0.25])))
    >>> found.weight.item(), found.mass.item(), found.variance.item()
    (0.5, 0.75, 0.0625)
    """
    log, logging, w = rows.log, rows.log.logging, weights(rows)
    if logging is None:
        return Expected(w, np.ones(log.decisions), rows.target, None, None)
    goes = logging > 0
    target = rows.target if goes.all() else np.where(goes, rows.target, 0.0)
    squares = target * (target / np.where(goes, logging, 1.0))
    mass = log.sums(target)
    return Expected(w, mass, target, squares, np.maximum(log.sums(squares) - mass**2, 0.0))


@dataclass(frozen=True, slots=True)
class Support:
    """What of the policy's choices the log cannot show; None where it holds the probability of the choice alone.

    Attributes:
        unsupported_ratio: share of the policy's choices that the logging policy never makes.
        decisions: those in which there are such choices.
        thin_ratio: share of choices so rare in the log that one of them would carry 5 % of all weight or more.
    """

    unsupported_ratio: float | None
    decisions: int | None
    thin_ratio: float | None


def support(rows: OneStepInput, expected: Expected) -> Support:
    """Measure mean Σ π(a|x) over the candidates with π_b(a|x) = 0.

    Args:
        rows: logged decisions and what the policy would have done.
        expected: of the same rows.

    >>> from lodestar.pipeline.estimation.logged import LoggedDecisions
    >>> logging = np.array([1.0, 0.0, 0.5, 0.5])
    >>> log = LoggedDecisions(np.ones(2), np.array([0, 2, 4]), np.array([0, 3]), np.array([1.0, 0.5]), logging)
    >>> rows = OneStepInput(log, np.array([0.75, 0.25, 0.75, 0.25]))
    >>> found = support(rows, expected_weights(rows))
    >>> found.unsupported_ratio, found.decisions
    (0.125, 1)
    """
    log = rows.log
    if log.logging is None:
        return Support(None, None, None)
    missing = 1 - expected.mass
    heavy = expected.target > HEAVY * log.decisions * log.logging
    return Support(
        max(0.0, float(np.where(missing > _SOME, missing, 0.0).mean())),
        int((missing > _SOME).sum()),
        float(expected.target[heavy].sum() / log.decisions),
    )
