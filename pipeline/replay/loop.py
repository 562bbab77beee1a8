"""The replay loop: the cluster goes on to the next decision, the router looks, decides and sends.

Everything is taken in the order of time; at one instant, instances change first, then clients leave, then requests
come. Compiled policies run inside `run`; it calls any other policy back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import jit_as, jit_inner, jit_part
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.engine import advance
from lodestar.pipeline.replay.foresight import Aside, foresee, room_aside
from lodestar.pipeline.replay.listener import Listener, seen, tell
from lodestar.pipeline.replay.outages import apply_change, cancel, lose
from lodestar.pipeline.replay.prefixes import prefix_tree
from lodestar.pipeline.replay.router import dispatch, hear, observe, scrape
from lodestar.pipeline.replay.routing.compiled import (
    NOTICE,
    RULE,
    SENT,
    Memory,
    MemoryShape,
    Notice,
    Parameters,
    Prefixes,
    Rule,
)
from lodestar.pipeline.replay.routing.contract import ENGINE, MODEL, NO_MODELS, Models
from lodestar.pipeline.replay.routing.pick import Pick, draw_compiled, fill_probabilities
from lodestar.pipeline.replay.routing.predictions import Desk, predict_at
from lodestar.pipeline.replay.state import State, new_state

__all__ = ["DECISION", "Decision", "How", "Recorder", "Room", "no_decision", "run"]

#: What a policy in plain Python looks like to compiled code: request in, instance out, -1 if it failed.
DECISION = numba.int64(numba.int64)
Decision = Callable[[int], int]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_FIELDS = len(schema.SNAPSHOT_FIELDS)
_GOLDEN = 0.6180339887498949


def _state_of_one() -> State:
    """Make a state of one instance and one request, which has the type of all."""
    one = Workload(np.zeros(1), np.ones(1, int), np.ones(1, int), np.zeros(0, int), np.zeros(2, int), 1)
    return new_state([EngineModel()], one, prefix_tree(one), np.ones(1))


_STATE_OF_ONE = _state_of_one()


class How(NamedTuple):
    """How a policy is to be run.

    Attributes:
        asks: whether `decide` decides instead of the rule.
        listens: whether it wants to hear of events.
        predictor: who fills `predicted_ms`; see the contract of policies.
        pick: see `Pick.numbers`.
        always: whether it is asked even where the choice is forced: what it would have done is kept, not followed.
    """

    asks: bool
    listens: bool
    predictor: int
    pick: Floats
    always: bool


class Room(NamedTuple):
    """What one decision needs, filled anew for each.

    Attributes:
        snapshot: what the router sees, shape (m, fields).
        predicted_ms: TTFT and TPOT, shape (m, 2).
        candidates: shape (m,), from the left.
        cost: that the rule gives, shape (m,).
        probability: shape (m,).
    """

    snapshot: Floats
    predicted_ms: Floats
    candidates: Ints
    cost: Floats
    probability: Floats

    @classmethod
    def of(cls, instances: int) -> Room:
        """Make it."""
        m = instances
        return cls(np.empty((m, _FIELDS)), np.full((m, 2), np.nan), np.zeros(m, np.int64), np.empty(m), np.empty(m))


class Recorder(NamedTuple):
    """What is kept of decisions: of request `first`, and of every `every`-th after that.

    Attributes:
        snapshots: what the router saw, shape (k, m, fields), NaN where it was not there.
        costs: shape (k, m).
        probabilities: shape (k, m); NaN where a policy in plain Python told none, or it was not asked since the choice
            was forced.
        first: a request.
        every: a number of requests.
    """

    snapshots: Floats
    costs: Floats
    probabilities: Floats
    first: int
    every: int

    @classmethod
    def of(cls, rows: range, instances: int) -> Recorder:
        """Make room for so many."""
        k, m = len(rows), instances
        empty = np.full((k, m, _FIELDS), np.nan), np.full((k, m), np.nan), np.full((k, m), np.nan)
        return cls(*empty, rows.start, rows.step)


_STATE = numba.typeof(_STATE_OF_ONE)
_ASIDE = room_aside(_STATE_OF_ONE, False)
_HOW = numba.typeof(How(False, False, 0, Pick().numbers(), False))


@jit_inner
def _next_decision(state: State, listener: Listener, snapshot: Floats, candidates: Ints) -> int:
    """Go on to the next request to decide on and observe for it; at the end of the workload, finish and return -1."""
    clock = state.clock[0]
    while True:
        arrival_s, retry_s = np.inf, np.inf
        if clock.next_arrival < len(state.requests):
            arrival_s = state.requests[clock.next_arrival].arrived_at_s
        if clock.retry_head < clock.retry_tail:
            retry_s = state.retry_at_s[clock.retry_head]
        request_s = min(arrival_s, retry_s)
        if _change_before(state, request_s, listener):
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
            clock.candidates = observe(state, i, listener, snapshot, candidates)
            if clock.candidates > 0:
                return i
            lose(state, i)
    for j in range(len(state.instances)):
        advance(state, j, np.inf)
        hear(state, j, np.inf, listener)
    return -1


@jit_part
def _change_before(state: State, until_s: float, listener: Listener) -> bool:
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
        apply_change(state, state.change[at, 0], state.change[at, 1], state.change_factor[at], change_s, listener)
        return True
    if cancel_s <= until_s and cancel_s < np.inf:
        clock.now_s = cancel_s
        cancel(state, state.cancel[clock.next_cancel], cancel_s, listener)
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
def _send(state: State, i: int, chosen: int, listener: Listener, snapshot: Floats) -> None:
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
    tell(state, listener, SENT, i, chosen, state.clock[0].now_s, snapshot[chosen, _HIT])


@jit_inner
def _record(recorder: Recorder, i: int, room: Room) -> None:
    """Keep a decision, if it is one of those to keep."""
    after = i - recorder.first
    if 0 <= after < len(recorder.snapshots) * recorder.every and after % recorder.every == 0:
        _keep(recorder, after // recorder.every, room)


@jit_part
def _keep(recorder: Recorder, at: int, room: Room) -> None:
    for j in range(len(room.cost)):
        recorder.costs[at, j] = room.cost[j]
        recorder.probabilities[at, j] = room.probability[j]
        for field in range(_FIELDS):
            recorder.snapshots[at, j, field] = room.snapshot[j, field]


@jit_inner
def _forget(room: Room) -> None:
    for j in range(len(room.cost)):
        room.cost[j] = np.nan
        room.probability[j] = np.nan


@jit_as(DECISION)
def no_decision(i: int) -> int:
    """Stand where a policy in plain Python would."""
    return -1


@jit_as(
    numba.int64(
        _STATE,
        numba.types.FunctionType(RULE),
        numba.types.FunctionType(NOTICE),
        numba.types.FunctionType(DECISION),
        _HOW,
        numba.typeof(MemoryShape().memory(1, 1, 1)),
        numba.typeof(Parameters.of()),
        numba.typeof(NO_MODELS),
        numba.typeof(Desk.of(1, *NO_MODELS)),
        numba.typeof(_ASIDE),
        numba.int64[::1],
        numba.float64[::1],
        numba.typeof(Room.of(1)),
        numba.typeof(Recorder.of(range(0), 1)),
    ),
    allocates=False,
)
def run(
    state: State,
    rule: Rule,
    notice: Notice,
    decide: Decision,
    how: How,
    memory: Memory,
    parameters: Parameters,
    models: Models,
    desk: Desk,
    aside: Aside,
    forced: Ints,
    uniform: Floats,
    room: Room,
    recorder: Recorder,
) -> int:
    """Replay all requests to their end, filling the outcomes of `state.requests`.

    Args:
        state: the workload and the cluster, idle at first.
        rule: the policy's compiled rule.
        notice: what it does as it hears of events.
        decide: a policy in plain Python, which reads `room`.
        how: the policy's own way.
        memory: of the policy, empty at first.
        parameters: its settings.
        models: its latency models.
        desk: room to predict by them.
        aside: room to look ahead.
        forced: instance of each request, overriding the policy, -1 to let it decide; empty: it decides on all.
        uniform: one number in [0, 1) a request, for the draw; a second try of a request has a number of its own.
        room: what a decision needs.
        recorder: what is to be kept of decisions.

    Returns:
        -1, or the request at which `decide` failed.
    """
    listener = Listener(how.listens, notice, Prefixes(state.path, state.node_end), memory, parameters)
    while True:
        i = _next_decision(state, listener, room.snapshot, room.candidates)
        if i < 0:
            return -1
        chosen = -1
        told = len(forced) > 0 and forced[i] >= 0 and state.instances[forced[i]].candidate
        if told and not how.always:
            _forget(room)
        elif how.asks:
            room.cost[:] = np.nan
            chosen = decide(i)
            if chosen < 0:
                return i
        else:
            candidates = room.candidates[: state.clock[0].candidates]
            if how.predictor == MODEL:
                tokens = float(state.requests[i].prompt_tokens)
                predict_at(desk, tokens, room.snapshot, models.ttft, models.tpot, room.predicted_ms)
            elif how.predictor == ENGINE:
                foresee(state, i, candidates, aside, room.predicted_ms)
            room.cost[:] = np.inf
            request = seen(state, i, state.clock[0].now_s)
            rule(
                request,
                room.snapshot,
                room.predicted_ms,
                candidates,
                listener.prefixes,
                memory,
                parameters,
                room.cost,
            )
            fill_probabilities(room.cost, candidates, how.pick, room.probability)
            chosen = draw_compiled(room.probability, (uniform[i] + _GOLDEN * state.requests[i].retries) % 1.0)
        if told:
            chosen = forced[i]
        _record(recorder, i, room)
        _send(state, i, chosen, listener, room.snapshot)
