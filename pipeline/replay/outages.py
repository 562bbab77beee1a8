"""What happens to requests and instances from outside: clients leave, instances fail, join, leave and slow down."""

from __future__ import annotations

import numpy as np

from lodestar.data.jit import jit_part
from lodestar.pipeline.replay.cache import clear
from lodestar.pipeline.replay.decoding import leave
from lodestar.pipeline.replay.engine import advance, cut_run
from lodestar.pipeline.replay.listener import Listener, tell, tell_left
from lodestar.pipeline.replay.prefix_index import forget_instance
from lodestar.pipeline.replay.queueing import drop_incoming, drop_waiting
from lodestar.pipeline.replay.router import hear
from lodestar.pipeline.replay.routing.compiled import DONE
from lodestar.pipeline.replay.state import CANCELLED, LOST, OK, Instance, Request, State

__all__ = ["apply_change", "cancel", "lose"]

# As KINDS of the events numbers them.
_FAIL, _JOIN, _LEAVE = 0, 1, 2


@jit_part
def cancel(state: State, i: int, now_s: float, listener: Listener) -> None:
    """End request i because its client has left: at once where it waits, with the step in flight where it runs."""
    request, j = state.requests[i], state.requests[i].instance
    if request.status != OK:
        return
    if j < 0:
        request.status = CANCELLED
        return
    advance(state, j, now_s)
    if not np.isnan(request.finished_s):
        return
    instance = state.instances[j]
    _stop_counting(request, instance, now_s)
    tell(state, listener, DONE, i, j, now_s, np.nan)
    request.status = CANCELLED
    if drop_waiting(state, i, j):
        instance.preempted_tokens -= request.generated_tokens
        cut_run(instance, now_s)  # what it kept from being admitted may be next
    elif not drop_incoming(state, i, j):
        request.aborting = 1
        instance.aborting += 1
        cut_run(instance, now_s)


@jit_part
def _stop_counting(request: Request, instance: Instance, now_s: float) -> None:
    """Take a request out of the gateway's counters before it is answered."""
    if request.heard == 0:
        instance.inflight_prefill -= 1
        instance.prefill_tokens -= request.prompt_tokens
    instance.inflight -= 1
    request.heard = 2
    if not request.first_token_s <= now_s:
        request.first_token_s = np.nan


@jit_part
def lose(state: State, i: int) -> None:
    """End request i without an answer."""
    request = state.requests[i]
    request.status = LOST
    request.finished_s = np.nan


@jit_part
def apply_change(state: State, kind: int, j: int, factor: float, now_s: float, listener: Listener) -> None:
    """Let instance j fail, join, leave or slow down."""
    instance = state.instances[j]
    advance(state, j, now_s)
    if kind == _FAIL:
        if instance.present:
            _fail(state, j, now_s, listener)
    elif kind == _JOIN:
        if not instance.present:
            instance.present = True
            instance.joined_s = now_s
        instance.candidate = True
    elif kind == _LEAVE:
        if instance.candidate:
            tell_left(listener, j, now_s)
        instance.candidate = False
    else:
        cut_run(instance, now_s)
        instance.slowdown = factor
        instance.batch_changed = True


@jit_part
def _fail(state: State, j: int, now_s: float, listener: Listener) -> None:
    """Drop all that instance j was doing, and its cache; its requests are routed again, or lost."""
    instance = state.instances[j]
    hear(state, j, np.inf, listener)  # answers on their way still come
    first = state.clock[0].retry_tail
    while instance.first_incoming >= 0:
        i = instance.first_incoming
        instance.first_incoming = state.requests[i].next_queued
        _give_up(state, i, j, now_s, listener)
    while instance.first_waiting >= 0:
        i = instance.first_waiting
        instance.first_waiting = state.requests[i].next_queued
        _give_up(state, i, j, now_s, listener)
    if instance.partial >= 0:
        _let_go(state, instance.partial, j)
        _give_up(state, instance.partial, j, now_s, listener)
    for at in range(instance.fresh):
        _let_go(state, state.fresh[j, at], j)
        _give_up(state, state.fresh[j, at], j, now_s, listener)
    while instance.decoding > 0:
        i = leave(state, 0, j)
        _let_go(state, i, j)
        _give_up(state, i, j, now_s, listener)
    if instance.candidate:
        tell_left(listener, j, now_s)
    clear(state, j)
    _sort_retries(state, first)
    _reset(instance)
    forget_instance(state, j)
    for field in range(state.scraped.shape[1]):
        state.scraped[j, field] = np.nan


@jit_part
def _let_go(state: State, i: int, j: int) -> None:
    """Empty the slots that a running request holds."""
    nodes = state.node_blocks.shape[1]
    state.slots[len(state.instances) * nodes + i].cached_blocks = 0
    if not state.instances[j].prefix_caching:
        return
    for at in range(state.requests[i].path_from, state.requests[i].path_to):
        slot = state.slots[j * nodes + state.path[at]]
        slot.users -= 1
        slot.cached_blocks = 0


@jit_part
def _give_up(state: State, i: int, j: int, now_s: float, listener: Listener) -> None:
    """Queue a request of a failed instance for another try, or lose it."""
    request, clock = state.requests[i], state.clock[0]
    request.aborting = 0
    if request.status == CANCELLED:
        return
    tell(state, listener, DONE, i, j, now_s, np.nan)
    if not clock.retry_failed:
        if not request.first_token_s <= now_s:
            request.first_token_s = np.nan
        lose(state, i)
        return
    request.first_token_s = np.nan
    request.started_s = np.nan
    request.generated_tokens = 0
    request.instance = -1
    request.heard = 0
    request.retries += 1
    state.retry[clock.retry_tail] = i
    state.retry_at_s[clock.retry_tail] = now_s
    clock.retry_tail += 1


@jit_part
def _sort_retries(state: State, first: int) -> None:
    """Route them again in the order in which they first came."""
    for at in range(first + 1, state.clock[0].retry_tail):
        i, to = state.retry[at], at
        while to > first and state.retry[to - 1] > i:
            state.retry[to] = state.retry[to - 1]
            to -= 1
        state.retry[to] = i


@jit_part
def _reset(instance: Instance) -> None:
    instance.present = False
    instance.candidate = False
    instance.between = False
    instance.batch_changed = True
    instance.run_until_s = np.inf
    instance.next_s = np.inf
    instance.run_chunk = 0
    instance.partial = -1
    instance.fresh = 0
    instance.waiting = 0
    instance.aborting = 0
    instance.preempted_tokens = 0
    instance.context_tokens = 0
    instance.decoding_prompt_tokens = 0
    instance.held_blocks = 0
    instance.inflight = 0
    instance.inflight_prefill = 0
    instance.prefill_tokens = 0
    instance.first_unheard = -1
    instance.first_unfinished = -1
