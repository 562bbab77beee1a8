"""What the router sees and does at each arrival: the snapshot, and the dispatch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import jit_inner, jit_part
from lodestar.pipeline.replay.decoding import blocks_needed, steps_done
from lodestar.pipeline.replay.engine import advance
from lodestar.pipeline.replay.listener import Listener, tell
from lodestar.pipeline.replay.prefix_index import believed_hit, enter
from lodestar.pipeline.replay.queueing import send
from lodestar.pipeline.replay.routing.compiled import DONE, FIRST_TOKEN
from lodestar.pipeline.replay.state import State

__all__ = ["dispatch", "hear", "observe", "scrape"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_RUNNING = schema.SNAPSHOT_FIELDS.index(schema.RUNNING_REQUESTS)
_WAITING = schema.SNAPSHOT_FIELDS.index(schema.WAITING_REQUESTS)
_KV_USAGE = schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)
_PREFILL_REQUESTS = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_PREFILL_REQUESTS)
_DECODE_REQUESTS = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_DECODE_REQUESTS)
_PREFILL_TOKENS = schema.SNAPSHOT_FIELDS.index(schema.PREFILL_TOKENS)
_DECODE_TOKENS = schema.SNAPSHOT_FIELDS.index(schema.DECODE_TOKENS)
_AGE = schema.SNAPSHOT_FIELDS.index(schema.LAST_ACCESS_AGE_S)


@jit_inner
def observe(state: State, i: int, listener: Listener, out: Floats, candidates: Ints) -> int:
    """Fill `out` (m, len(SNAPSHOT_FIELDS)) with what the router knows of every instance as it decides on request i.

    An instance that is not there has a row of NaN. Fills `candidates` (m,) from the left with those that are, and
    returns how many.
    """
    request, clock = state.requests[i], state.clock[0]
    now_s, count = clock.now_s, 0
    for j in range(out.shape[0]):
        instance = state.instances[j]
        hear(state, j, now_s, listener)
        if not instance.candidate:
            for field in range(out.shape[1]):
                out[j, field] = np.nan
            continue
        candidates[count] = j
        count += 1
        hit, age_s = believed_hit(state, request, j, now_s)
        done = steps_done(instance, now_s)
        if clock.scrape_interval_s == 0.0:
            _read_metrics(state, j, done)
        context = instance.context_tokens + instance.decoding * done + instance.preempted_tokens
        out[j, _HIT] = min(hit / request.prompt_tokens, 1.0)
        out[j, _INFLIGHT] = instance.inflight
        out[j, _RUNNING] = state.scraped[j, 0]
        out[j, _WAITING] = state.scraped[j, 1]
        out[j, _KV_USAGE] = state.scraped[j, 2]
        out[j, _PREFILL_REQUESTS] = instance.inflight_prefill
        out[j, _DECODE_REQUESTS] = instance.inflight - instance.inflight_prefill
        out[j, _PREFILL_TOKENS] = instance.prefill_tokens
        out[j, _DECODE_TOKENS] = context - instance.decoding_prompt_tokens
        out[j, _AGE] = age_s
    return count


@jit_inner
def hear(state: State, j: int, now_s: float, listener: Listener) -> None:
    """Count what instance j has answered by now, and tell the policy."""
    instance = state.instances[j]
    while instance.first_unheard >= 0 and not state.requests[instance.first_unheard].first_token_s > now_s:
        request = state.requests[instance.first_unheard]
        if request.heard == 0:
            request.heard = 1
            instance.inflight_prefill -= 1
            instance.prefill_tokens -= request.prompt_tokens
            tell(state, listener, FIRST_TOKEN, instance.first_unheard, j, request.first_token_s, np.nan)
        instance.first_unheard = request.next_first
    while instance.first_unfinished >= 0 and not state.requests[instance.first_unfinished].finished_s > now_s:
        request = state.requests[instance.first_unfinished]
        if request.heard < 2:
            request.heard = 2
            instance.inflight -= 1
            tell(state, listener, DONE, instance.first_unfinished, j, request.finished_s, np.nan)
        instance.first_unfinished = request.next_finished


@jit_inner
def _read_metrics(state: State, j: int, done: int) -> None:
    """Read what the engine says of itself."""
    instance = state.instances[j]
    # A run of decode steps holds the blocks of the step in flight too.
    ahead = 0
    if instance.run_chunk == 0 and not instance.between:
        ahead = blocks_needed(state, j, min(done + 1, instance.run_steps))
    state.scraped[j, 0] = instance.decoding + instance.fresh + (1 if instance.partial >= 0 else 0)
    state.scraped[j, 1] = instance.waiting
    state.scraped[j, 2] = (instance.held_blocks + ahead) / instance.capacity_blocks


@jit_part
def scrape(state: State, now_s: float) -> None:
    """Read the metrics of all instances, if the last reading before now is not yet done."""
    clock = state.clock[0]
    at_s = np.floor(now_s / clock.scrape_interval_s) * clock.scrape_interval_s
    if at_s <= clock.scraped_s:
        return
    clock.scraped_s = at_s
    for j in range(len(state.instances)):
        instance = state.instances[j]
        if instance.present and instance.joined_s < at_s:
            advance(state, j, at_s)
            _read_metrics(state, j, steps_done(instance, at_s))


@jit_inner
def dispatch(state: State, i: int, j: int, hit_ratio: float) -> None:
    """Send request i to instance j and note what the gateway knows from then on."""
    request, instance = state.requests[i], state.instances[j]
    request.instance = j
    request.router_hit_tokens = int(hit_ratio * request.prompt_tokens + 0.5)
    enter(state, i, j)
    instance.inflight += 1
    instance.inflight_prefill += 1
    instance.prefill_tokens += request.prompt_tokens
    send(state, i, j, state.clock[0].now_s)
