"""One instance, step by step: continuous batching with chunked prefill and a first-come-first-served queue.

Each step spends its token budget on one token for every decoding request, then on the prompt that is partly done,
then on waiting prompts in order, as vLLM's scheduler does. Steps that only decode are taken in one stride up to the
next completion, which is exact because nothing else changes in between.
"""

from __future__ import annotations

import math

import numpy as np

from lodestar.data.jit import jit
from lodestar.pipeline.replay.cache import admit, release
from lodestar.pipeline.replay.state import Instance, State

__all__ = ["advance", "arrive", "decode_steps_done"]


@jit
def _push_decoding(state: State, i: int, j: int) -> None:
    """Add request i to the heap of decoding requests, soonest to finish first."""
    heap, instance = state.decoding[j], state.instances[j]
    last_step = state.requests[i].last_step
    at = instance.decoding
    while at > 0:
        parent = (at - 1) // 2
        if state.requests[heap[parent]].last_step <= last_step:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = i
    instance.decoding += 1


@jit
def _pop_decoding(state: State, j: int) -> int:
    """Take the request that finishes first off the heap."""
    heap, instance = state.decoding[j], state.instances[j]
    soonest = heap[0]
    instance.decoding -= 1
    size = instance.decoding
    moved = heap[size]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and state.requests[heap[child + 1]].last_step < state.requests[heap[child]].last_step:
            child += 1
        if state.requests[heap[child]].last_step >= state.requests[moved].last_step:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moved
    return int(soonest)


@jit
def _decode_run_s(instance: Instance, steps: int) -> float:
    """Return how long the next `steps` decode-only steps take: the context grows by one token a request a step."""
    batch = instance.decoding
    context = instance.context_tokens * steps + batch * steps * (steps - 1) / 2.0
    return steps * (instance.decode_base_s + instance.decode_sequence_s * batch) + instance.context_token_s * context


@jit
def _steps_within(instance: Instance, elapsed_s: float) -> int:
    """Return how many whole steps of the decode run in flight fit into the time since it began."""
    batch = instance.decoding
    half = instance.context_token_s * batch / 2.0
    linear = (
        instance.decode_base_s
        + instance.decode_sequence_s * batch
        + instance.context_token_s * instance.context_tokens
        - half
    )
    if linear <= 0.0:  # an engine whose decode steps take no time
        return instance.run_steps
    steps = int(2.0 * elapsed_s / (linear + math.sqrt(linear * linear + 4.0 * half * elapsed_s)))
    # The root is a guess to within rounding; the run's own clock decides.
    while steps > 0 and _decode_run_s(instance, steps) > elapsed_s:
        steps -= 1
    while steps < instance.run_steps and _decode_run_s(instance, steps + 1) <= elapsed_s:
        steps += 1
    return min(steps, instance.run_steps)


@jit
def decode_steps_done(instance: Instance, now_s: float) -> int:
    """Return the decode steps that an instance has finished by now beyond those it has booked."""
    if instance.run_chunk > 0 or instance.run_until_s == np.inf or instance.run_steps == 1:
        return 0
    return _steps_within(instance, now_s - instance.run_from_s)


@jit
def _start_step(state: State, j: int, now_s: float) -> None:
    """Compose the next step, or a run of decode steps, or fall idle."""
    instance = state.instances[j]
    chunk, work, attention = _fill_budget(state, j)
    instance.run_from_s = now_s
    instance.run_chunk = chunk
    if chunk > 0:
        instance.run_steps = 1
        instance.run_until_s = now_s + (
            instance.prefill_base_s
            + instance.prompt_token_s * work
            + instance.prefill_sequence_s * instance.decoding
            + instance.prefill_context_token_s * instance.context_tokens
            + instance.attention_s * attention
        )
    elif instance.decoding > 0:
        instance.run_steps = state.requests[state.decoding[j, 0]].last_step - instance.steps
        instance.run_until_s = now_s + _decode_run_s(instance, instance.run_steps)
    else:
        instance.run_until_s = np.inf


@jit
def _fill_budget(state: State, j: int) -> tuple[int, float, float]:
    """Spend the step's token budget on prompts; return the tokens, and the work and attention they cost."""
    instance = state.instances[j]
    budget = instance.max_batched_tokens - instance.decoding
    chunk, work, attention = 0, 0.0, 0.0
    while budget > 0 and (instance.partial >= 0 or _admit_next(state, j)):
        request = state.requests[instance.partial]
        tokens = min(budget, instance.partial_left)
        before = request.prompt_tokens - instance.partial_left
        budget -= tokens
        chunk += tokens
        work += tokens * request.work_factor
        attention += tokens * (before + tokens / 2.0) * request.work_factor
        instance.partial_left -= tokens
        if instance.partial_left == 0:
            state.fresh[j, instance.fresh] = instance.partial
            instance.fresh += 1
            instance.partial = -1
    return chunk, work, attention


@jit
def _admit_next(state: State, j: int) -> bool:
    """Make the first waiting request the partial one, if there is one and room for it."""
    instance = state.instances[j]
    i = instance.first_waiting
    if i < 0 or instance.decoding + instance.fresh >= instance.max_sequences or not admit(state, i, j):
        return False
    request = state.requests[i]
    instance.first_waiting = request.next_waiting
    instance.waiting -= 1
    instance.partial = i
    instance.partial_left = request.prompt_tokens - request.cached_tokens
    return True


@jit
def _finish_step(state: State, j: int) -> None:
    """Book the step or run in flight: tokens, completions, first tokens."""
    instance = state.instances[j]
    now_s = instance.run_until_s
    instance.steps += instance.run_steps
    instance.context_tokens += instance.decoding * instance.run_steps
    while instance.decoding > 0 and state.requests[state.decoding[j, 0]].last_step == instance.steps:
        i = _pop_decoding(state, j)
        request = state.requests[i]
        instance.context_tokens -= request.prompt_tokens + request.output_tokens
        instance.decoding_prompt_tokens -= request.prompt_tokens
        _finish_request(state, i, j, now_s)
    for at in range(instance.fresh):
        _first_token(state, state.fresh[j, at], j, now_s)
    instance.fresh = 0


@jit
def _first_token(state: State, i: int, j: int, now_s: float) -> None:
    request, instance = state.requests[i], state.instances[j]
    request.first_token_s = now_s + instance.overhead_s
    instance.inflight_prefill -= 1
    instance.prefill_tokens -= request.prompt_tokens
    if request.output_tokens <= 1:
        _finish_request(state, i, j, now_s)
        return
    request.last_step = instance.steps + request.output_tokens - 1
    instance.context_tokens += request.prompt_tokens + 1
    instance.decoding_prompt_tokens += request.prompt_tokens
    _push_decoding(state, i, j)


@jit
def _finish_request(state: State, i: int, j: int, now_s: float) -> None:
    instance = state.instances[j]
    state.requests[i].finished_s = now_s + instance.overhead_s
    instance.inflight -= 1
    release(state, i, j)


@jit
def advance(state: State, j: int, now_s: float) -> None:
    """Run instance j up to now: every step that ends by then is booked, the one in flight is not."""
    instance = state.instances[j]
    while instance.run_until_s <= now_s and instance.run_until_s < np.inf:
        until_s = instance.run_until_s
        _finish_step(state, j)
        _start_step(state, j, until_s)


@jit
def arrive(state: State, i: int, j: int, now_s: float) -> None:
    """Put request i into the queue of instance j; it can join the batch when the step in flight ends."""
    instance = state.instances[j]
    state.requests[i].next_waiting = -1
    if instance.first_waiting < 0:
        instance.first_waiting = i
    else:
        state.requests[instance.last_waiting].next_waiting = i
    instance.last_waiting = i
    instance.waiting += 1
    if instance.run_until_s == np.inf:
        _start_step(state, j, now_s)
    elif instance.waiting == 1 and instance.run_chunk == 0 and instance.run_steps > 1:
        # A run of decode steps goes on only to the end of the step in flight.
        done = _steps_within(instance, now_s - instance.run_from_s)
        instance.run_steps = min(done + 1, instance.run_steps)
        instance.run_until_s = instance.run_from_s + _decode_run_s(instance, instance.run_steps)
