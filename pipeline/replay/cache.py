"""The key-value cache of an instance: prefix nodes with reference counts, evicted least recently used, tail first.

A running request holds all its tokens, prompt and output, from the moment it is admitted. A node that nobody holds
stays cached until its room is needed; a finished request returns its deepest node first, so that a prefix outlives
what follows it.
"""

from __future__ import annotations

from lodestar.data.jit import jit
from lodestar.pipeline.replay.state import Instance, Request, State

__all__ = ["admit", "release"]


@jit
def _append_idle(state: State, instance: Instance, at: int) -> None:
    slot = state.slots[at]
    instance.idle_tokens += slot.cached_tokens
    slot.older = instance.newest
    slot.newer = -1
    if instance.newest >= 0:
        state.slots[instance.newest].newer = at
    else:
        instance.oldest = at
    instance.newest = at


@jit
def _remove_idle(state: State, instance: Instance, at: int) -> None:
    slot = state.slots[at]
    instance.idle_tokens -= slot.cached_tokens
    if slot.older >= 0:
        state.slots[slot.older].newer = slot.newer
    else:
        instance.oldest = slot.newer
    if slot.newer >= 0:
        state.slots[slot.newer].older = slot.older
    else:
        instance.newest = slot.older


@jit
def _make_room(state: State, instance: Instance, tokens: int) -> None:
    """Evict from the tails of the least recently used nodes until `tokens` are free."""
    missing = tokens - (instance.capacity_tokens - instance.held_tokens - instance.idle_tokens)
    while missing > 0:
        at = instance.oldest
        slot = state.slots[at]
        taken = min(missing, slot.cached_tokens)
        if taken == slot.cached_tokens:
            _remove_idle(state, instance, at)
        else:
            instance.idle_tokens -= taken
        slot.cached_tokens -= taken
        missing -= taken


@jit
def _matched(state: State, request: Request, first_slot: int) -> tuple[int, int, int]:
    """Count the tokens of the request's shared path, those cached in unbroken order, and those of them held."""
    shared, hit, held = 0, 0, 0
    unbroken = True
    for at in range(request.path_from, request.path_to):
        node = state.path[at]
        slot = state.slots[first_slot + node]
        shared += state.node_tokens[node]
        if slot.users > 0:
            held += slot.cached_tokens
        if unbroken:
            hit += slot.cached_tokens
            unbroken = slot.cached_tokens == state.node_tokens[node]
    return shared, hit, held


@jit
def admit(state: State, i: int, j: int) -> bool:
    """Give request i its tokens on instance j, evicting what nobody holds; say no and change nothing if they don't fit.

    Sets how many of its prompt tokens were cached: whole blocks, and never all of the prompt.
    """
    request, instance = state.requests[i], state.instances[j]
    nodes = len(state.node_tokens)
    block = instance.block_tokens
    shared, hit, held, private = 0, 0, 0, request.prompt_tokens
    if instance.prefix_caching:
        shared, hit, held = _matched(state, request, j * nodes)
        private = request.tail_tokens
    own = (private + request.output_tokens + block - 1) // block * block
    if instance.held_tokens + shared - held + own > instance.capacity_tokens:
        return False
    if instance.prefix_caching:
        _hold_path(state, request, instance, j * nodes)
        request.cached_tokens = min(hit, request.prompt_tokens - 1) // block * block
    _make_room(state, instance, own)
    state.slots[len(state.instances) * nodes + i].cached_tokens = own
    instance.held_tokens += own
    return True


@jit
def _hold_path(state: State, request: Request, instance: Instance, first_slot: int) -> None:
    """Take the nodes on the request's path, found ones first, so that making room for the rest can't evict them."""
    for at in range(request.path_from, request.path_to):
        slot_at = first_slot + state.path[at]
        slot = state.slots[slot_at]
        if slot.users == 0 and slot.cached_tokens > 0:
            _remove_idle(state, instance, slot_at)
            instance.held_tokens += slot.cached_tokens
        slot.users += 1
    for at in range(request.path_from, request.path_to):
        node = state.path[at]
        slot = state.slots[first_slot + node]
        missing = state.node_tokens[node] - slot.cached_tokens
        if missing > 0:
            _make_room(state, instance, missing)
            slot.cached_tokens += missing
            instance.held_tokens += missing


@jit
def release(state: State, i: int, j: int) -> None:
    """Take back what finished request i held, deepest first; it stays cached where the engine caches prefixes."""
    request, instance = state.requests[i], state.instances[j]
    nodes = len(state.node_tokens)
    tail_at = len(state.instances) * nodes + i
    if not instance.prefix_caching:
        instance.held_tokens -= state.slots[tail_at].cached_tokens
        state.slots[tail_at].cached_tokens = 0
        return
    _let_go(state, instance, tail_at)
    for at in range(request.path_to - 1, request.path_from - 1, -1):
        slot_at = j * nodes + state.path[at]
        state.slots[slot_at].users -= 1
        if state.slots[slot_at].users == 0:
            _let_go(state, instance, slot_at)


@jit
def _let_go(state: State, instance: Instance, at: int) -> None:
    instance.held_tokens -= state.slots[at].cached_tokens
    _append_idle(state, instance, at)
