"""The TTFT that a request would really have on each instance: the engine runs ahead, and is put back as it was.

Exact where no later request comes before it: what comes later waits behind it, unless it has a higher priority or the
cache is so full that something is preempted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit_inner, jit_part
from lodestar.pipeline.replay.engine import advance
from lodestar.pipeline.replay.queueing import send
from lodestar.pipeline.replay.state import State

__all__ = ["Aside", "foresee", "room_aside"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_A_LITTLE_S = 1e-6  # a step that begins at an instant is not yet taken at it


class Aside(NamedTuple):
    """Room for all of one instance's state.

    Attributes:
        instance: its record, length 1.
        requests: records of its requests, and of the last two answers, which may be among them: length n + 2.
        request: which they are, length n + 2.
        slots: of its nodes, and of the tails of all requests, length nodes + n.
        decoding: its heap.
        fresh: its requests whose prompt ends with the step in flight.
        block_phase: its decode steps at which blocks are needed.
    """

    instance: NDArray[Any]
    requests: NDArray[Any]
    request: Ints
    slots: NDArray[Any]
    decoding: NDArray[np.int32]
    fresh: NDArray[np.int32]
    block_phase: NDArray[np.int32]


def room_aside(state: State, wanted: bool) -> Aside:
    """Make that room, or as good as none where nobody looks ahead."""
    requests, instances, slots = (np.asarray(each) for each in (state.requests, state.instances, state.slots))
    n, nodes = (len(requests), state.node_blocks.shape[1]) if wanted else (0, 0)
    return Aside(
        instance=np.zeros(1, dtype=instances.dtype),
        requests=np.zeros(n + 2, dtype=requests.dtype),
        request=np.zeros(n + 2, dtype=np.int64),
        slots=np.zeros(nodes + n, dtype=slots.dtype),
        decoding=np.zeros(state.decoding.shape[1], dtype=np.int32),
        fresh=np.zeros(state.fresh.shape[1], dtype=np.int32),
        block_phase=np.zeros(state.block_phase.shape[1], dtype=np.int32),
    )


@jit_part
def foresee(state: State, i: int, candidates: Ints, aside: Aside, out_ms: Floats) -> None:
    """Fill `out_ms` (m, 2) with the TTFT of request i on every candidate, and no TPOT."""
    now_s = state.clock[0].now_s
    for j in range(out_ms.shape[0]):
        out_ms[j, 0] = np.nan
        out_ms[j, 1] = np.nan
    for j in candidates:
        count = _put_aside(state, i, j, aside)
        state.requests[i].instance = j
        send(state, i, j, now_s)
        while np.isnan(state.requests[i].first_token_s) and state.instances[j].next_s < np.inf:
            advance(state, j, state.instances[j].next_s + _A_LITTLE_S)
        out_ms[j, 0] = (state.requests[i].first_token_s - now_s) * 1e3
        _put_back(state, j, count, aside)


@jit_inner
def _keep(state: State, i: int, count: int, aside: Aside) -> int:
    """Put the record of a request aside; what is kept twice is put back in the opposite order."""
    if i < 0:
        return count
    aside.requests[count] = state.requests[i]
    aside.request[count] = i
    return count + 1


@jit_part
def _put_aside(state: State, i: int, j: int, aside: Aside) -> int:
    """Keep instance j and the requests that its engine may change; return how many."""
    instance = state.instances[j]
    aside.instance[0] = instance
    count = _keep(state, i, 0, aside)
    for first in (instance.first_incoming, instance.first_waiting):
        at = first
        while at >= 0:
            count = _keep(state, at, count, aside)
            at = state.requests[at].next_queued
    count = _keep(state, instance.partial, count, aside)
    for at in range(instance.fresh):
        count = _keep(state, state.fresh[j, at], count, aside)
    for at in range(instance.decoding):
        count = _keep(state, state.decoding[j, at], count, aside)
    # New answers are hung on the last ones.
    if instance.first_unheard >= 0:
        count = _keep(state, instance.last_unheard, count, aside)
    if instance.first_unfinished >= 0:
        count = _keep(state, instance.last_unfinished, count, aside)
    _copy_arrays(state, j, aside)
    return count


@jit_inner
def _copy_arrays(state: State, j: int, aside: Aside) -> None:
    for at in range(len(aside.decoding)):
        aside.decoding[at] = state.decoding[j, at]
        aside.fresh[at] = state.fresh[j, at]
    for at in range(len(aside.block_phase)):
        aside.block_phase[at] = state.block_phase[j, at]
    nodes, tails = state.node_blocks.shape[1], len(state.instances) * state.node_blocks.shape[1]
    for at in range(nodes):
        aside.slots[at] = state.slots[j * nodes + at]
    for at in range(len(state.requests)):
        aside.slots[nodes + at] = state.slots[tails + at]


@jit_part
def _put_back(state: State, j: int, count: int, aside: Aside) -> None:
    state.instances[j] = aside.instance[0]
    for at in range(count - 1, -1, -1):
        state.requests[aside.request[at]] = aside.requests[at]
    for at in range(len(aside.decoding)):
        state.decoding[j, at] = aside.decoding[at]
        state.fresh[j, at] = aside.fresh[at]
    for at in range(len(aside.block_phase)):
        state.block_phase[j, at] = aside.block_phase[at]
    nodes, tails = state.node_blocks.shape[1], len(state.instances) * state.node_blocks.shape[1]
    for at in range(nodes):
        state.slots[j * nodes + at] = aside.slots[at]
    for at in range(len(state.requests)):
        state.slots[tails + at] = aside.slots[nodes + at]
