"""When requests arrived, inferred from their order, their latencies and the requests in flight at each decision."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.optimize import isotonic_regression

from lodestar.data.log import Floats, Ints

__all__ = ["infer_arrivals", "inflight_at_arrival"]

ROUNDS: Final = 60
DAMPING: Final = 0.5
EVENNESS: Final = 0.2


def infer_arrivals(e2e_s: Floats, inflight: Floats) -> Floats:
    """Infer arrivals (s, from 0) of requests in dispatch order from their latency and the in-flight total each met.

    Request i met N requests in flight, so i − N requests had completed before it: it arrived between those two
    completions, which themselves move with the arrivals. Starting from even gaps by Little's law, each round moves
    every arrival half way into its interval, pulls it slightly to the middle of its neighbours (without this the
    arrivals clump at the ends of their intervals) and restores the order.

    A burst of decisions does not see itself, so N errs low and i − N errs high: later requests bound it.

    >>> infer_arrivals(np.full(4, 10.0), np.array([0.0, 0.0, 0.0, 0.0])).round().tolist()
    [0.0, 10.0, 20.0, 30.0]
    """
    n = len(e2e_s)
    completed = np.minimum.accumulate((np.arange(n) - inflight)[::-1])[::-1]
    rank: Ints = np.clip(np.round(completed), 0, n - 1).astype(np.int64)
    arrived: Floats = np.arange(n) * (e2e_s.sum() / max(inflight.mean(), 1.0) / n)
    for _ in range(ROUNDS):
        finish = np.concatenate([[-np.inf], np.sort(arrived + e2e_s), [np.inf]])
        arrived[1:-1] += EVENNESS * ((arrived[:-2] + arrived[2:]) / 2 - arrived[1:-1])
        target = np.clip(arrived, finish[rank], finish[rank + 1])
        arrived = isotonic_regression(arrived + DAMPING * (target - arrived)).x
    from_zero: Floats = arrived - arrived[0]
    return from_zero


def inflight_at_arrival(arrived_at_s: Floats, e2e_s: Floats) -> Ints:
    """Count, at each arrival, the requests before it that have not completed.

    >>> inflight_at_arrival(np.array([0.0, 1.0, 5.0]), np.array([2.0, 2.0, 2.0])).tolist()
    [0, 1, 0]
    """
    completed = np.searchsorted(np.sort(arrived_at_s + e2e_s), arrived_at_s, side="right")
    return np.arange(len(arrived_at_s)) - completed
