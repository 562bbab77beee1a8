"""The replay loop: the cluster goes on to the next decision, the router looks, decides and sends.

Everything is taken in the order of time; at one instant, instances change first, then clients leave, then requests
come. Compiled policies run inside `run`; it calls any other policy back.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import jit_as, jit_inner, jit_part
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.engine import advance
from lodestar.pipeline.replay.outages import apply_change, cancel, lose
from lodestar.pipeline.replay.policies.contract import PROBABILITIES, Parameters, Rule
from lodestar.pipeline.replay.prefixes import prefix_tree
from lodestar.pipeline.replay.router import dispatch, draw, hear, observe, scrape
from lodestar.pipeline.replay.state import State, new_state

__all__ = ["DECISION", "Decision", "no_decision", "run"]

#: What a policy in plain Python looks like to compiled code: request in, instance out, -1 if it failed.
DECISION = numba.int64(numba.int64)
Decision = Callable[[int], int]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_FIELDS = len(schema.SNAPSHOT_FIELDS)
_GOLDEN = 0.6180339887498949


def _state_type() -> numba.types.Type:
    """Name the type of every state, from a cluster and a workload of one."""
    one = Workload(np.zeros(1), np.ones(1, int), np.ones(1, int), np.zeros(0, int), np.zeros(2, int), 1)
    return numba.typeof(new_state([EngineModel()], one, prefix_tree(one), np.ones(1)))


_STATE = _state_type()
_SNAPSHOT = numba.float64[:, ::1]


@jit_part
def _next_decision(state: State, snapshot: Floats) -> int:
    """Go on to the next request to decide on and observe for it; at the end of the workload, finish and return -1."""
    clock = state.clock[0]
    while True:
        arrival_s, retry_s = np.inf, np.inf
        if clock.next_arrival < len(state.requests):
            arrival_s = state.requests[clock.next_arrival].arrived_at_s
        if clock.retry_head < clock.retry_tail:
            retry_s = state.retry_at_s[clock.retry_head]
        request_s = min(arrival_s, retry_s)
        if _change_before(state, request_s):
            continue
        if request_s == np.inf:
            break
        clock.now_s = request_s
        if retry_s <= arrival_s:
            i = int(state.retry[clock.retry_head])
            clock.retry_head += 1
        else:
            i = clock.next_arrival
            clock.next_arrival += 1
        if state.requests[i].status == 0:
            _catch_up(state, request_s)
            if observe(state, i, snapshot) > 0:
                return i
            lose(state, i)
    for j in range(len(state.instances)):
        advance(state, j, np.inf)
        hear(state, j, np.inf)
    return -1


@jit_part
def _change_before(state: State, until_s: float) -> bool:
    """Let the next instance change or client leave, if that comes first; say whether one did."""
    clock = state.clock[0]
    change_s, cancel_s = np.inf, np.inf
    if clock.next_change < len(state.change_at_s):
        change_s = state.change_at_s[clock.next_change]
    if clock.next_cancel < len(state.cancel_at_s):
        cancel_s = state.cancel_at_s[clock.next_cancel]
    if change_s <= until_s and change_s <= cancel_s and change_s < np.inf:
        at = clock.next_change
        clock.next_change += 1
        clock.now_s = change_s
        apply_change(state, state.change[at, 0], state.change[at, 1], state.change_factor[at], change_s)
        return True
    if cancel_s <= until_s and cancel_s < np.inf:
        clock.now_s = cancel_s
        cancel(state, state.cancel[clock.next_cancel], cancel_s)
        clock.next_cancel += 1
        return True
    return False


@jit_inner
def _catch_up(state: State, now_s: float) -> None:
    if state.clock[0].scrape_interval_s > 0.0:
        scrape(state, now_s)
    for j in range(len(state.instances)):
        if state.instances[j].next_s <= now_s:
            advance(state, j, now_s)


@jit_inner
def _send(state: State, i: int, chosen: int, snapshot: Floats) -> None:
    """Dispatch, and add to the in-flight imbalance what it is at this decision."""
    most, total, candidates = 0.0, 0.0, 0
    for j in range(len(state.instances)):
        if state.instances[j].candidate:
            most = max(most, snapshot[j, _INFLIGHT])
            total += snapshot[j, _INFLIGHT]
            candidates += 1
    state.clock[0].imbalance += most - total / candidates
    state.clock[0].decisions += 1
    dispatch(state, i, chosen, snapshot[chosen, _HIT])


@jit_inner
def _record(snapshot: Floats, snapshots: Floats, after: int, every: int) -> None:
    """Keep a snapshot, if it is one of those to keep."""
    if after < 0 or after >= len(snapshots) * every or after % every != 0:
        return
    for j in range(snapshot.shape[0]):
        for field in range(snapshot.shape[1]):
            snapshots[after // every, j, field] = snapshot[j, field]


@jit_as(DECISION)
def no_decision(i: int) -> int:
    """Stand where a policy in plain Python would."""
    return -1


@jit_as(
    numba.int64(
        _STATE,
        numba.types.FunctionType(PROBABILITIES),
        numba.typeof(Parameters.of()),
        numba.types.FunctionType(DECISION),
        numba.boolean,
        numba.int64[::1],
        numba.float64[::1],
        _SNAPSHOT,
        numba.float64[::1],
        numba.float64[:, :, ::1],
        numba.int64,
        numba.int64,
    )
)
def run(
    state: State,
    rule: Rule,
    parameters: Parameters,
    decide: Decision,
    asks: bool,
    forced: Ints,
    uniform: Floats,
    snapshot: Floats,
    probability: Floats,
    snapshots: Floats,
    first: int,
    every: int,
) -> int:
    """Replay all requests to their end, filling the outcomes of `state.requests`.

    Args:
        state: the workload and the cluster, idle at first.
        rule: the policy's compiled rule.
        parameters: its settings.
        decide: a policy in plain Python, which reads `snapshot`.
        asks: whether it decides instead of the rule.
        forced: instance of each request, overriding the policy; empty to let the policy decide.
        uniform: one number in [0, 1) a request, for the draw; a second try of a request has a number of its own.
        snapshot: room for what the router sees, shape (m, fields).
        probability: room for the rule's answer, shape (m,).
        snapshots: room for what it saw for request `first`, and every `every`-th after that, shape (k, m, fields).
        first: see `snapshots`.
        every: see `snapshots`.

    Returns:
        -1, or the request at which `decide` failed.
    """
    i = _next_decision(state, snapshot)
    while i >= 0:
        _record(snapshot, snapshots, i - first, every)
        if len(forced) > 0 and state.instances[forced[i]].candidate:
            chosen = forced[i]
        elif asks:
            chosen = decide(i)
            if chosen < 0:
                return i
        else:
            rule(float(state.requests[i].prompt_tokens), snapshot, parameters, probability)
            chosen = draw(probability, (uniform[i] + _GOLDEN * state.requests[i].retries) % 1.0)
        _send(state, i, chosen, snapshot)
        i = _next_decision(state, snapshot)
    return -1
