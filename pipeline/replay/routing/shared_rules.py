"""Pieces of rules that several policies build on."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import jit_inner

__all__ = [
    "cost_by_better_of_two",
    "cost_by_inflight",
    "cost_by_prefix_cache",
    "known",
    "spread",
    "whole_percent",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)


@jit_inner
def known(value: float) -> float:
    """Return a metric, or 0 where an instance has not told it yet, as most routers read it."""
    return value if value == value else 0.0


@jit_inner
def cost_by_inflight(snapshot: Floats, candidates: Ints, cost: Floats) -> None:
    """Make the requests in flight the cost: least-request, which many policies fall back on."""
    for j in candidates:
        cost[j] = known(snapshot[j, _INFLIGHT])


@jit_inner
def spread(snapshot: Floats, candidates: Ints) -> tuple[float, float]:
    """Return the fewest and the most requests in flight of any candidate."""
    least, most = np.inf, -np.inf
    for j in candidates:
        load = known(snapshot[j, _INFLIGHT])
        least, most = min(least, load), max(most, load)
    return least, most


@jit_inner
def cost_by_better_of_two(snapshot: Floats, candidates: Ints, cost: Floats) -> None:
    """Make minus the probability the cost, where two are drawn and the one with fewer in flight, or the first, wins."""
    count = len(candidates)
    for j in candidates:
        load = known(snapshot[j, _INFLIGHT])
        wins = 0.0  # of ordered pairs that j is in
        for k in candidates:
            if k != j:
                other = known(snapshot[k, _INFLIGHT])
                wins += 2.0 if load < other else (1.0 if load == other else 0.0)
        cost[j] = -wins / (count * (count - 1)) if count > 1 else -1.0


@jit_inner
def whole_percent(hit_ratio: float) -> float:
    """Return the whole percent of matched blocks, as AIBrix counts them; a ratio that is not known is none."""
    return math.floor(100.0 * known(hit_ratio) + 1e-9)


@jit_inner
def cost_by_prefix_cache(
    snapshot: Floats, candidates: Ints, imbalance_requests: float, deviations: float, cost: Floats
) -> None:
    """Cost candidates as AIBrix's ``prefix-cache`` does, which Lodestar and others fall back on.

    The cost is 100 - matched percent + c / (1 + c) for the admitted matches, which orders by match and then by count,
    and 200 + c for all others; without an admitted match, or with more than `imbalance_requests` between the most and
    the fewest, it is the count alone.
    """
    least, most = spread(snapshot, candidates)
    limit = _admitted_load(snapshot, candidates, deviations)
    matched = False
    for j in candidates:
        load = known(snapshot[j, _INFLIGHT])
        percent = whole_percent(snapshot[j, _HIT])
        if percent > 0.0 and load <= limit:
            matched = True
            cost[j] = 100.0 - percent + load / (1.0 + load)
        else:
            cost[j] = 200.0 + load
    if most - least > imbalance_requests or not matched:
        cost_by_inflight(snapshot, candidates, cost)


@jit_inner
def _admitted_load(snapshot: Floats, candidates: Ints, deviations: float) -> float:
    """Return the mean and so many sample deviations of the requests in flight."""
    total, squares, count = 0.0, 0.0, len(candidates)
    for j in candidates:
        load = known(snapshot[j, _INFLIGHT])
        total += load
        squares += load * load
    if count < 2:  # Go's sample deviation of one pod is NaN, which admits nothing: least-request decides
        return np.nan
    mean = total / count
    return mean + deviations * math.sqrt(max(squares - count * mean * mean, 0.0) / (count - 1))
