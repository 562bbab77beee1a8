"""The queueing world's clockwork, compiled: FIFO servers, their caches, and the policies that choose among them.

It shares no code with the replay of logs: it is what the replay is judged by.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit

__all__ = ["POLICIES", "run_queues", "score_states"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: What a policy minimises: load · (requests there + counted) / speed − hit · [prefix cached] + ttft · expected TTFT,
#: over the fastest `few` servers; ties at random. `by_speed` 0 takes all speeds for 1; `explored` above 0 softens it:
#: any server with this chance, else one with p ∝ exp(−cost).
_LOAD, _COUNTED, _BY_SPEED, _HIT, _TTFT, _FEW, _EXPLORED = range(7)
_RULES: Final = {
    "logging": (0.6, 0, 1, 0.8, 0, 8, 0.3),
    "uniform": (0, 0, 0, 0, 0, 8, 0),
    "jsq": (1, 0, 0, 0, 0, 8, 0),
    "jsq/speed": (1, 1, 1, 0, 0, 8, 0),
    "affinity": (0, 0, 0, 1, 0, 8, 0),
    "affinity+load": (0.6, 0, 1, 0.8, 0, 8, 0),
    "fastest-3": (0, 0, 0, 0, 0, 3, 0),
    "least-ttft": (0, 0, 0, 0, 1, 8, 0),
}
#: By number, as compiled code knows them.
POLICIES: Final = tuple(_RULES)
_NUMBERS: Final = np.array(list(_RULES.values()), dtype=np.float64)


@jit
def _costs(policy: int, queue: Ints, hit: Bools, ttft_ms: Floats, weight: Floats, out: Floats) -> None:
    """Fill `out` (m,) with the cost of each server; inf for one that gets nothing.

    `queue` are requests there, `hit` whether the prefix is cached, `ttft_ms` the true expected TTFT, `weight` the
    speeds that the router was told.
    """
    rule = _NUMBERS[policy]
    for j in range(len(out)):
        faster = 0
        for k in range(len(out)):
            faster += weight[k] > weight[j]
        speed = weight[j] if rule[_BY_SPEED] > 0.0 else 1.0
        load = rule[_LOAD] * (queue[j] + rule[_COUNTED]) / speed
        out[j] = load - rule[_HIT] * hit[j] + rule[_TTFT] * ttft_ms[j] if faster < rule[_FEW] else np.inf


@jit
def _probabilities(policy: int, cost: Floats) -> None:
    """Turn costs (m,) into the probability that the policy gives each server, in place."""
    explored, m = _NUMBERS[policy, _EXPLORED], len(cost)
    if explored > 0.0:
        total = 0.0
        for j in range(m):
            cost[j] = math.exp(-cost[j])
            total += cost[j]
        for j in range(m):
            cost[j] = (1.0 - explored) * cost[j] / total + explored / m
        return
    least, tied = cost.min(), 0
    for j in range(m):
        tied += cost[j] == least
    for j in range(m):
        cost[j] = 1.0 / tied if cost[j] == least else 0.0


@jit
def _draw(probability: Floats, uniform: float) -> int:
    """Pick a server by its probability with one number in [0, 1)."""
    total, pick = 0.0, -1
    for j in range(len(probability)):
        if probability[j] > 0.0:
            pick = j
            total += probability[j]
            if uniform < total:
                break
    return pick


@jit
def _touch(group: int, now: int, used: Ints, held: Ints) -> None:
    """Make the group the last used of one server's cache; the one that was used longest ago makes room."""
    if used[group] < 0:
        oldest = 0
        for at in range(len(held)):
            if held[at] < 0:
                oldest = at
                break
            if used[held[at]] < used[held[oldest]]:
                oldest = at
        if held[oldest] >= 0:
            used[held[oldest]] = -1
        held[oldest] = group
    used[group] = now


@jit
def run_queues(
    at_ms: Floats,
    group: Ints,
    work_ms: Floats,
    saved_ms: Floats,
    noise: Floats,
    uniform: Floats,
    arm: Ints,
    speed: Floats,
    weight: Floats,
    cached: int,
    chosen: Ints,
    ttft_ms: Floats,
    queue: Ints,
    hit: Bools,
    backlog_ms: Floats,
    probability: Floats,
) -> None:
    """Serve all requests, filling the last six arrays; the last four, shape (n, m), may be empty: nothing is kept then.

    Args:
        at_ms: arrivals, ascending, shape (n,).
        group: prefix of each request.
        work_ms: of its prefill on a server of speed 1 that has nothing cached.
        saved_ms: of it, where the prefix is cached.
        noise: factor on its service, mean 1.
        uniform: number in [0, 1) that draws its server.
        arm: number of the policy that decides on it.
        speed: of each server, shape (m,).
        weight: the speeds that policies reckon with.
        cached: prefixes that a cache holds.
        chosen: server of each request.
        ttft_ms: waiting and service.
        queue: requests at each server at each arrival.
        hit: whether its cache held the prefix.
        backlog_ms: time until it is idle.
        probability: with which it was to be chosen.
    """
    n, m, groups = len(at_ms), len(speed), group.max() + 1
    kept = len(queue) > 0
    leaves_ms, head, tail = np.empty((m, n)), np.zeros(m, np.int64), np.zeros(m, np.int64)
    used, held = np.full((m, groups), -1, np.int64), np.full((m, cached), -1, np.int64)
    free_ms, waiting, there = np.zeros(m), np.zeros(m, np.int64), np.zeros(m, np.bool_)
    expected_ms, chance = np.empty(m), np.empty(m)
    for i in range(n):
        for j in range(m):
            while head[j] < tail[j] and leaves_ms[j, head[j]] <= at_ms[i]:
                head[j] += 1
            waiting[j] = tail[j] - head[j]
            there[j] = used[j, group[i]] >= 0
            service_ms = (work_ms[i] - (saved_ms[i] if there[j] else 0.0)) / speed[j]
            expected_ms[j] = max(free_ms[j] - at_ms[i], 0.0) + service_ms
        _costs(arm[i], waiting, there, expected_ms, weight, chance)
        _probabilities(arm[i], chance)
        pick = _draw(chance, uniform[i])
        if kept:
            queue[i], hit[i], probability[i] = waiting, there, chance
            for j in range(m):
                backlog_ms[i, j] = max(free_ms[j] - at_ms[i], 0.0)
        service_ms = (work_ms[i] - (saved_ms[i] if there[pick] else 0.0)) / speed[pick] * noise[i]
        free_ms[pick] = max(free_ms[pick], at_ms[i]) + service_ms
        leaves_ms[pick, tail[pick]] = free_ms[pick]
        tail[pick] += 1
        _touch(group[i], i, used[pick], held[pick])
        chosen[i], ttft_ms[i] = pick, free_ms[pick] - at_ms[i]


@jit
def score_states(policy: int, queue: Ints, hit: Bools, ttft_ms: Floats, weight: Floats, out: Floats) -> None:
    """Fill `out` (n, m) with the probabilities that a policy gives in states that were kept."""
    for i in range(len(out)):
        _costs(policy, queue[i], hit[i], ttft_ms[i], weight, out[i])
        _probabilities(policy, out[i])
