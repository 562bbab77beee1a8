"""A gate over a confidence sequence: whether a limit was beaten, and after how many decisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.intervals.confidence_sequence import ConfidenceSequence

__all__ = ["Decided", "decides"]


@dataclass(frozen=True, slots=True)
class Decided:
    """What a sequence says of a limit.

    Attributes:
        verdict: 'below' the limit, 'above' it, or 'open'.
        decisions: after how many it was decided; None while it is open.
        estimand: what lay below or above, at that time.
    """

    verdict: str
    decisions: int | None
    estimand: str


def decides(sequence: ConfidenceSequence, limit: float = 0.0) -> Decided:
    """Say whether the running average was surely below or above a limit, and when for the first time.

    As costs are latencies, below is better: a difference below 0 means that the policy beats the baseline. Looking
    after every decision costs nothing: the sequence holds at all of them at once, so that a wrong verdict has at most
    the probability 1 − level, whenever one stops.

    Args:
        sequence: of one log, shape (n,).
        limit: in the unit of the cost; 0 for a difference.

    >>> sequence = ConfidenceSequence(np.array([-9.0, -5.0, -4.0]), np.array([3.0, -1.0, -2.0]), 0.95, "a difference")
    >>> decides(sequence)
    Decided(verdict='below', decisions=2, estimand='a difference')
    """
    if sequence.lower.ndim != 1:
        raise DataError(f"the sequence has shape {sequence.lower.shape}; expected that of one log, (n,)")
    crossed = {"below": sequence.upper < limit, "above": sequence.lower > limit}
    first = {name: int(np.argmax(each)) for name, each in crossed.items() if each.any()}
    if not first:
        return Decided("open", None, sequence.estimand)
    verdict = min(first, key=lambda name: first[name])
    return Decided(verdict, first[verdict] + 1, sequence.estimand)
