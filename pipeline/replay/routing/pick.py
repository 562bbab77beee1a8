"""From the cost of every candidate to the probability of each: the tie rule, softmax, weights, exploration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.data.jit import jit_inner

__all__ = ["TIES", "Pick", "draw", "draw_compiled", "fill_probabilities"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Who wins among equal costs: each with the same chance, or the first or last in the router's list.
TIES: Final = ("random", "first", "last")
_RANDOM, _FIRST = 0, 1


@dataclass(frozen=True, slots=True)
class Pick:
    """How a router picks among candidates of known cost.

    Without a temperature and weights, the lowest cost wins. Every candidate has a known probability in any case.

    Attributes:
        ties: see `TIES`.
        temperature: above 0, p ∝ exp(-(c - min c) / ((max c - min c) · temperature)) for costs c.
        weighted: p ∝ max(-c, 0), where the cost is a negative weight; all the same where no weight is positive.
        epsilon: with this chance, any candidate, each with the same probability, instead.
    """

    ties: str = TIES[0]
    temperature: float = 0.0
    weighted: bool = False
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no way to pick."""
        if self.ties not in TIES:
            raise ConfigError(f"ties {self.ties!r}; expected one of {', '.join(TIES)}")
        if not 0.0 <= self.epsilon <= 1.0:
            raise ConfigError(f"epsilon is {self.epsilon:g}; expected 0 to 1")
        if not (self.temperature >= 0.0 and math.isfinite(self.temperature)):
            raise ConfigError(f"temperature is {self.temperature:g}; expected 0 or more")

    def numbers(self) -> Floats:
        """Return the settings as compiled code reads them."""
        return np.array([TIES.index(self.ties), self.temperature, self.weighted, self.epsilon])


def draw(probability: Floats, uniform: float) -> int:
    """Pick an instance by its probability with one uniform number in [0, 1): the same number gives the same pick.

    >>> draw(np.array([0.2, 0.0, 0.8]), 0.2)
    2
    """
    total = 0.0
    pick = -1
    for j in range(len(probability)):
        if probability[j] > 0.0:
            pick = j
            total += probability[j]
            if uniform < total:
                break
    return pick


draw_compiled = jit_inner(draw)


@jit_inner
def fill_probabilities(cost: Floats, candidates: Ints, pick: Floats, probability: Floats) -> None:
    """Fill `probability` (m,) from `cost` (m,): 0 for what is no candidate, and a sum of 1.

    The lowest cost, and a softmax, take a candidate whose cost is NaN or inf only if all are.
    """
    for j in range(len(probability)):
        probability[j] = 0.0
    if pick[2] > 0.0:
        _weigh(cost, candidates, probability)
    elif pick[1] > 0.0:
        _soften(cost, candidates, pick[1], probability)
    else:
        _take_lowest(cost, candidates, int(pick[0]), probability)
    if pick[3] > 0.0:
        for j in candidates:
            probability[j] = (1.0 - pick[3]) * probability[j] + pick[3] / len(candidates)


@jit_inner
def _lowest(cost: Floats, candidates: Ints) -> float:
    least = np.inf
    for j in candidates:
        if cost[j] < least:
            least = cost[j]
    return least


@jit_inner
def _take_lowest(cost: Floats, candidates: Ints, ties: int, probability: Floats) -> None:
    least = _lowest(cost, candidates)
    tied, winner = 0, -1
    for j in candidates:
        if cost[j] == least or least == np.inf:
            tied += 1
            if winner < 0 or ties != _FIRST:
                winner = j
    if ties != _RANDOM:
        probability[winner] = 1.0
        return
    for j in candidates:
        if cost[j] == least or least == np.inf:
            probability[j] = 1.0 / tied


@jit_inner
def _soften(cost: Floats, candidates: Ints, temperature: float, probability: Floats) -> None:
    least, most = _lowest(cost, candidates), -np.inf
    for j in candidates:
        if cost[j] < np.inf and cost[j] > most:
            most = cost[j]
    if not most > least:
        _take_lowest(cost, candidates, _RANDOM, probability)
        return
    total = 0.0
    for j in candidates:
        if cost[j] < np.inf:
            probability[j] = math.exp(-(cost[j] - least) / ((most - least) * temperature))
            total += probability[j]
    for j in candidates:
        probability[j] /= total


@jit_inner
def _weigh(cost: Floats, candidates: Ints, probability: Floats) -> None:
    total = 0.0
    for j in candidates:
        if cost[j] < 0.0:
            probability[j] = -cost[j]
            total += probability[j]
    for j in candidates:
        probability[j] = probability[j] / total if total > 0.0 else 1.0 / len(candidates)
