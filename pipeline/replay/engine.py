"""One instance, step by step: continuous batching as vLLM's scheduler does it.

With chunked prefill, a step spends its token budget on one token for every decoding request, then on the prompt that is
partly done, then on waiting prompts in order. Without, a step with waiting prompts takes whole prompts and nothing
else. When the cache has no block left for the next token, the request that was admitted last gives its blocks back and
is computed again later. Steps that only decode are taken in one stride up to the next completion or until the cache is
full, which is exact because nothing else changes in between.

What happens at one instant happens in this order: a step ends, requests join the queue, the next step begins.
"""

from __future__ import annotations

import numpy as np

from lodestar.data.jit import jit_inner, jit_part
from lodestar.pipeline.replay.cache import admit, grow, release
from lodestar.pipeline.replay.decoding import (
    blocks_needed,
    generated,
    join,
    leave,
    run_end_s,
    steps_done,
    steps_that_fit,
)
from lodestar.pipeline.replay.queueing import put_back, take_incoming
from lodestar.pipeline.replay.state import OK, Instance, State

__all__ = ["advance", "cut_run"]


@jit_part
def advance(state: State, j: int, now_s: float) -> None:
    """Run instance j up to now: what ends or joins by then is booked; a step that begins at this instant is not yet."""
    instance = state.instances[j]
    while True:
        coming_s = np.inf
        if instance.first_incoming >= 0:
            coming_s = state.requests[instance.first_incoming].entered_s
        if instance.between:
            if coming_s <= instance.run_until_s:
                take_incoming(state, j)
            elif instance.run_until_s < now_s:
                _start_step(state, j)
            else:
                break
        elif instance.run_until_s <= coming_s:
            if instance.run_until_s > now_s or instance.run_until_s == np.inf:
                break
            _finish_step(state, j)
        elif coming_s <= now_s:
            _arrive(state, j, coming_s)
        else:
            break
    instance.next_s = min(instance.run_until_s, coming_s)


@jit_inner
def _arrive(state: State, j: int, now_s: float) -> None:
    """Let a request join the queue during a step or run, or wake an idle instance."""
    instance = state.instances[j]
    take_incoming(state, j)
    if instance.run_until_s == np.inf:
        instance.run_until_s = now_s
        instance.between = True
        instance.run_chunk = 0
        instance.run_steps = 0
    elif instance.waiting == 1 or instance.by_priority:
        cut_run(instance, now_s)


@jit_part
def cut_run(instance: Instance, now_s: float) -> None:
    """End a run of decode steps with the step in flight, or now where one ends just now."""
    if instance.between or instance.run_chunk > 0 or instance.run_steps <= 1:
        return
    done = steps_done(instance, now_s)
    if done == 0 or run_end_s(instance, done) < now_s:
        done += 1
    if done < instance.run_steps:
        instance.run_steps = done
        instance.run_until_s = run_end_s(instance, done)
        instance.next_s = min(instance.next_s, instance.run_until_s)


@jit_inner
def _start_step(state: State, j: int) -> None:
    """Compose the next step, or a run of decode steps, or fall idle."""
    instance = state.instances[j]
    now_s = instance.run_until_s
    instance.between = False
    preempted, blocks = False, 0
    if instance.chunked_prefill:
        preempted = _make_room(state, j)
        blocks = blocks_needed(state, j, 1)
        grow(state, instance, blocks)
    chunk, work, attention = _fill_budget(state, j, preempted)
    if chunk == 0:
        instance.held_blocks -= blocks  # booked when a run of decode steps ends
        if not instance.chunked_prefill:
            preempted = _make_room(state, j)
    instance.run_chunk = chunk
    if chunk > 0:
        instance.run_steps = 1
        step_s = instance.prefill_base_s + instance.prompt_token_s * work + instance.attention_s * attention
        if instance.chunked_prefill:
            step_s += instance.prefill_sequence_s * instance.decoding
            step_s += instance.prefill_context_token_s * instance.context_tokens
        instance.run_until_s = now_s + step_s * instance.slowdown
        instance.batch_changed = True
    elif instance.decoding > 0:
        _start_run(state, j, now_s, preempted)
    else:
        instance.run_until_s = np.inf


@jit_inner
def _make_room(state: State, j: int) -> bool:
    """Preempt until every decoding request has a block for its next token; say whether any had to go."""
    instance = state.instances[j]
    preempted = False
    while instance.decoding > 0 and blocks_needed(state, j, 1) > instance.capacity_blocks - instance.held_blocks:
        _preempt(state, j)
        preempted = True
    return preempted


@jit_inner
def _start_run(state: State, j: int, now_s: float, preempted: bool) -> None:
    instance = state.instances[j]
    if instance.batch_changed:
        instance.batch_changed = False
        instance.anchor_s = now_s
        instance.anchor_steps = 0
        instance.anchor_context = instance.context_tokens
    steps = state.requests[state.decoding[j, 0]].last_step - instance.steps
    # After a preemption nobody was admitted; the step after this one tries again.
    instance.run_steps = 1 if instance.single_steps or preempted else steps_that_fit(state, j, steps)
    instance.run_until_s = run_end_s(instance, instance.run_steps)


@jit_inner
def _fill_budget(state: State, j: int, preempted: bool) -> tuple[int, float, float]:
    """Spend the step's token budget on prompts; return the tokens, and the work and attention they cost."""
    instance = state.instances[j]
    budget = instance.max_batched_tokens - (instance.decoding if instance.chunked_prefill else 0)
    chunk, work, attention = 0, 0.0, 0.0
    while budget > 0 and (instance.partial >= 0 or (not preempted and _admit_next(state, j, budget, chunk))):
        i = instance.partial
        request = state.requests[i]
        tokens = min(budget, instance.partial_left) if instance.chunked_prefill else instance.partial_left
        before = request.prompt_tokens + request.generated_tokens - instance.partial_left
        budget -= tokens
        chunk += tokens
        work += tokens * request.work_factor
        attention += tokens * (before + tokens / 2.0) * request.work_factor
        instance.partial_left -= tokens
        if instance.partial_left == 0:
            state.fresh[j, instance.fresh] = i
            instance.fresh += 1
            instance.partial = -1
    return chunk, work, attention


@jit_inner
def _admit_next(state: State, j: int, budget: int, chunk: int) -> bool:
    """Make the first waiting request the partial one, if there is one and room for it."""
    instance = state.instances[j]
    i = instance.first_waiting
    if i < 0 or instance.decoding + instance.fresh >= instance.max_sequences:
        return False
    request = state.requests[i]
    tokens = request.prompt_tokens + request.generated_tokens
    # Whole prompts only: one that is longer than the budget has a step of its own.
    if not instance.chunked_prefill and chunk > 0 and tokens > budget:
        return False
    cached = admit(state, i, j)
    if cached < 0:
        return False
    if np.isnan(request.started_s):
        request.started_s = instance.run_until_s
        request.cached_tokens = cached
    instance.first_waiting = request.next_queued
    instance.waiting -= 1
    instance.admissions += 1
    request.admission = instance.admissions
    instance.partial = i
    instance.partial_left = tokens - cached
    return True


@jit_part
def _preempt(state: State, j: int) -> None:
    """Send the request that was admitted last, or has the lowest priority, back to the queue, without its blocks."""
    instance = state.instances[j]
    at = _last_in_line(state, j)
    i = instance.partial  # admitted after all that decode
    if i >= 0 and not (
        instance.by_priority and state.requests[state.decoding[j, at]].priority > state.requests[i].priority
    ):
        instance.partial = -1
        tokens = state.requests[i].prompt_tokens + state.requests[i].generated_tokens
        release(state, i, j, tokens - instance.partial_left, tokens)
    else:
        i = leave(state, at, j)
        request = state.requests[i]
        request.generated_tokens = generated(state, i, j)
        instance.preempted_tokens += request.generated_tokens
        tokens = request.prompt_tokens + request.generated_tokens - 1
        release(state, i, j, tokens, tokens)
    state.requests[i].preemptions += 1
    put_back(state, i, j)


@jit_inner
def _last_in_line(state: State, j: int) -> int:
    """Return the place in the heap of the request to preempt."""
    instance, last = state.instances[j], 0
    for at in range(1, instance.decoding):
        one, other = state.requests[state.decoding[j, at]], state.requests[state.decoding[j, last]]
        later = one.admission > other.admission
        if instance.by_priority and one.priority != other.priority:
            later = one.priority > other.priority
        if later:
            last = at
    return last


@jit_inner
def _finish_step(state: State, j: int) -> None:
    """Book the step or run in flight: tokens, blocks, completions, first tokens."""
    instance = state.instances[j]
    now_s = instance.run_until_s
    instance.between = True
    if instance.run_chunk == 0:
        grow(state, instance, blocks_needed(state, j, instance.run_steps))
        instance.anchor_steps += instance.run_steps
    if instance.run_chunk == 0 or instance.chunked_prefill:
        instance.steps += instance.run_steps
        instance.context_tokens += instance.decoding * instance.run_steps
    while instance.decoding > 0 and state.requests[state.decoding[j, 0]].last_step == instance.steps:
        i = leave(state, 0, j)
        _finish_request(state, i, j, now_s)
    for at in range(instance.fresh):
        _first_token(state, state.fresh[j, at], j, now_s)
    instance.fresh = 0
    if instance.aborting > 0:
        _abort(state, j)


@jit_inner
def _first_token(state: State, i: int, j: int, now_s: float) -> None:
    request, instance = state.requests[i], state.instances[j]
    instance.preempted_tokens -= request.generated_tokens
    if request.generated_tokens == 0 and request.status == OK:
        request.first_token_s = now_s + instance.response_overhead_s
        request.next_first = -1
        if instance.first_unheard < 0:
            instance.first_unheard = i
        else:
            state.requests[instance.last_unheard].next_first = i
        instance.last_unheard = i
    left = request.output_tokens - request.generated_tokens - 1
    if left <= 0:
        _finish_request(state, i, j, now_s)
        return
    request.last_step = instance.steps + left
    join(state, i, j)


@jit_inner
def _finish_request(state: State, i: int, j: int, now_s: float) -> None:
    request, instance = state.requests[i], state.instances[j]
    if request.aborting:
        request.aborting = 0
        instance.aborting -= 1
    if request.status == OK:
        request.finished_s = now_s + instance.response_overhead_s
        request.next_finished = -1
        if instance.first_unfinished < 0:
            instance.first_unfinished = i
        else:
            state.requests[instance.last_unfinished].next_finished = i
        instance.last_unfinished = i
    tokens = request.prompt_tokens + max(request.output_tokens, 1) - 1
    release(state, i, j, tokens, tokens)


@jit_part
def _abort(state: State, j: int) -> None:
    """End the running requests whose clients have left, in the order of their admission.

    The order is that in which their blocks become the least recently used.
    """
    instance = state.instances[j]
    at = _next_aborting(state, j)
    while at >= 0:
        i = leave(state, at, j)
        tokens = state.requests[i].prompt_tokens + generated(state, i, j) - 1
        release(state, i, j, tokens, tokens)
        state.requests[i].aborting = 0
        at = _next_aborting(state, j)
    i = instance.partial  # admitted after all that decode
    if i >= 0 and state.requests[i].aborting:
        tokens = state.requests[i].prompt_tokens + state.requests[i].generated_tokens
        release(state, i, j, tokens - instance.partial_left, tokens)
        instance.preempted_tokens -= state.requests[i].generated_tokens
        state.requests[i].aborting = 0
        instance.partial = -1
    instance.aborting = 0


@jit_part
def _next_aborting(state: State, j: int) -> int:
    """Return the place in the heap of the request that was admitted first of those whose clients have left, or -1."""
    instance, first = state.instances[j], -1
    for at in range(instance.decoding):
        request = state.requests[state.decoding[j, at]]
        if request.aborting and (first < 0 or request.admission < state.requests[state.decoding[j, first]].admission):
            first = at
    return first
