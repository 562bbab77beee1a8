"""Logs of a router under a load that drifts, whose propensities are right, or wrong in a known way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.blocks import block_of
from lodestar.pipeline.estimation.diagnostics import Diagnostics, diagnose
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: What may be wrong with the logged propensities; the last is no fault of theirs.
FAULTS = (
    "all a fifth too low",
    "one instance a fifth too high",
    "of a state 50 requests ago",
    "of a sharper policy",
    "two instances swapped",
    "one instance never chosen",
)


@dataclass(frozen=True, slots=True)
class World:
    """A log with a policy to value, the instance of every candidate, and buckets of its decisions."""

    rows: OneStepInput
    instance: Ints
    buckets: dict[str, Ints]

    def diagnosed(self) -> Diagnostics:
        """What the diagnostics say of it."""
        return diagnose(self.rows, block_of(self.rows.log.decisions), self.buckets, self.instance)


def world(
    seed: int,
    fault: str = "",
    n: int = 2500,
    m: int = 6,
    full: bool = True,
    sharp: float = 4.0,
    explore: float = 0.2,
    keen: float = 1.0,
) -> World:
    """Make a log of a softmax router that explores, and a sharper policy to value.

    Args:
        seed: of all that is drawn.
        fault: one of `FAULTS`; '' for none.
        n: decisions.
        m: instances; each is a candidate in nine of ten decisions.
        full: whether every candidate's probability is logged, or the choice's alone.
        sharp: of the policy that is valued; below 0 it seeks the longest queue.
        explore: share of uniform choices of the log.
        keen: how sharp the log is.
    """
    random = np.random.default_rng(seed)
    load = np.repeat(random.gamma(2.0, 1.0, -(-n // 25)), 25)[:n]
    queue = random.gamma(2.0, 1.0, (n, m)) * load[:, None]
    relative, speed = queue / queue.mean(axis=1, keepdims=True), np.linspace(0.7, 1.3, m)
    candidate = random.random((n, m)) < 0.9
    candidate[np.arange(n), random.integers(0, m, n)] = True

    def log_of(state: Floats, keenness: float) -> Floats:
        return explored(0.3 * speed - keenness * state, candidate, explore)

    behaviour = log_of(relative, keen)
    if fault == "one instance never chosen":
        behaviour = rescaled(behaviour, np.where(np.arange(m) == m - 1, 1e-300, 1.0), candidate)
        behaviour[behaviour < 1e-200] = 0.0
    chosen = np.minimum((random.random((n, 1)) > behaviour.cumsum(axis=1)).sum(axis=1), m - 1)
    logged = faulty(fault, behaviour, candidate, relative, log_of, keen)
    at = np.arange(n), chosen
    cost = (1 + queue[at]) / speed[chosen] * np.exp(0.3 * random.normal(size=n))
    propensity = logged[at] / (1.2 if fault == "all a fifth too low" else 1.0)
    kept = candidate[at] & (propensity > 0)  # a swapped instance may have no probability left
    log = LoggedDecisions.of_padded(
        cost[kept], candidate[kept], chosen[kept], propensity[kept], logged[kept] if full else None
    )
    target = explored(-sharp * relative / speed, candidate, 0.0)[kept][candidate[kept]]
    predicted = (1.1 * (1 + queue) / speed)[kept][candidate[kept]]
    instance = np.broadcast_to(np.arange(m), (n, m))[kept][candidate[kept]]
    buckets = {"load": np.searchsorted([1.0, 2.0, 3.0], load)[kept], "time": (np.arange(n) * 8 // n)[kept]}
    return World(OneStepInput(log, target, predicted), instance, buckets)


def explored(score: Floats, candidate: NDArray[np.bool_], explore: float) -> Floats:
    """Softmax of the score over the candidates, mixed with a uniform choice, shape (n, m)."""
    raised = np.exp(score - score.max(axis=1, keepdims=True)) * candidate
    uniform = candidate / candidate.sum(axis=1, keepdims=True)
    return np.asarray((1 - explore) * raised / raised.sum(axis=1, keepdims=True) + explore * uniform)


def rescaled(probability: Floats, by: Floats, candidate: NDArray[np.bool_]) -> Floats:
    """Multiply each instance's probability, and make them sum to 1 again."""
    scaled = probability * by * candidate
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def faulty(
    fault: str, right: Floats, candidate: NDArray[np.bool_], state: Floats, log_of: object, keen: float
) -> Floats:
    """Return what is logged in place of the right probabilities, shape (n, m)."""
    assert callable(log_of)
    m = right.shape[1]
    if fault == "one instance a fifth too high":
        return rescaled(right, np.where(np.arange(m) == 0, 1.2, 1.0), candidate)
    if fault == "of a state 50 requests ago":
        return np.asarray(log_of(np.vstack([state[:50], state[:-50]]), keen))
    if fault == "of a sharper policy":
        return np.asarray(log_of(state, 1.5 * keen))
    if fault == "two instances swapped":
        swapped = right.copy()
        both = candidate[:, 0] & candidate[:, m - 1]
        swapped[both, 0], swapped[both, m - 1] = right[both, m - 1], right[both, 0]
        return swapped
    return right
