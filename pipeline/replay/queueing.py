"""The way into an engine: requests under way to it, and its queue, first come first served or by priority."""

from __future__ import annotations

from lodestar.data.jit import jit_inner, jit_part
from lodestar.pipeline.replay.state import State

__all__ = ["drop_incoming", "drop_waiting", "put_back", "send", "take_incoming"]

_NONE, _ABSENT = -1, -2


@jit_inner
def send(state: State, i: int, j: int, now_s: float) -> None:
    """Put request i on its way to instance j."""
    request, instance = state.requests[i], state.instances[j]
    request.entered_s = now_s + instance.request_overhead_s
    request.next_queued = -1
    if instance.first_incoming < 0:
        instance.first_incoming = i
        instance.next_s = min(instance.next_s, request.entered_s)
    else:
        state.requests[instance.last_incoming].next_queued = i
    instance.last_incoming = i


@jit_inner
def take_incoming(state: State, j: int) -> None:
    """Let the request that is first on its way join the queue."""
    instance = state.instances[j]
    i = instance.first_incoming
    instance.first_incoming = state.requests[i].next_queued
    _enqueue(state, i, j)


@jit_inner
def _enqueue(state: State, i: int, j: int) -> None:
    instance = state.instances[j]
    instance.waiting += 1
    if instance.by_priority:
        _insert(state, i, j)
        return
    state.requests[i].next_queued = -1
    if instance.first_waiting < 0:
        instance.first_waiting = i
    else:
        state.requests[instance.last_waiting].next_queued = i
    instance.last_waiting = i


@jit_part
def _insert(state: State, i: int, j: int) -> None:
    """Put request i behind all that go before it: lower priority value, or the same and an earlier arrival."""
    instance, request = state.instances[j], state.requests[i]
    before, at = -1, instance.first_waiting
    while at >= 0 and (
        state.requests[at].priority < request.priority or (state.requests[at].priority == request.priority and at < i)
    ):
        before, at = at, state.requests[at].next_queued
    request.next_queued = at
    if before < 0:
        instance.first_waiting = i
    else:
        state.requests[before].next_queued = i
    if at < 0:
        instance.last_waiting = i


@jit_part
def put_back(state: State, i: int, j: int) -> None:
    """Return a preempted request to the queue: to its head, or by priority to its place."""
    instance = state.instances[j]
    if instance.by_priority or instance.first_waiting < 0:
        _enqueue(state, i, j)
        return
    state.requests[i].next_queued = instance.first_waiting
    instance.first_waiting = i
    instance.waiting += 1


@jit_part
def drop_waiting(state: State, i: int, j: int) -> bool:
    """Take request i out of the queue, if it is there."""
    instance = state.instances[j]
    before = _before(state, i, instance.first_waiting)
    if before == _ABSENT:
        return False
    if before == _NONE:
        instance.first_waiting = state.requests[i].next_queued
    else:
        state.requests[before].next_queued = state.requests[i].next_queued
    if instance.last_waiting == i:
        instance.last_waiting = before
    instance.waiting -= 1
    return True


@jit_part
def drop_incoming(state: State, i: int, j: int) -> bool:
    """Take request i off its way to the instance, if it is there."""
    instance = state.instances[j]
    before = _before(state, i, instance.first_incoming)
    if before == _ABSENT:
        return False
    if before == _NONE:
        instance.first_incoming = state.requests[i].next_queued
    else:
        state.requests[before].next_queued = state.requests[i].next_queued
    if instance.last_incoming == i:
        instance.last_incoming = before
    return True


@jit_part
def _before(state: State, i: int, first: int) -> int:
    """Return the request that comes before request i in the line that `first` heads: none, or i is not in it."""
    before, at = _NONE, first
    while at >= 0 and at != i:
        before, at = at, state.requests[at].next_queued
    return before if at == i else _ABSENT
