"""The key-value cache of an instance: blocks of prefix nodes with reference counts, evicted least recently used.

A request holds the blocks of its whole prompt from its admission on, and takes further ones as it decodes. A node that
nobody holds stays cached until its room is needed; a finished request returns its deepest node first, so that a prefix
outlives what follows it, and a node is evicted from its tail. Blocks are counted, not listed: those of one node are
always taken and returned together.
"""

from __future__ import annotations

from lodestar.data.jit import jit_inner, jit_part
from lodestar.pipeline.replay.state import Instance, Request, State

__all__ = ["admit", "clear", "grow", "release"]


@jit_inner
def _append_idle(state: State, instance: Instance, at: int) -> None:
    slot = state.slots[at]
    instance.idle_blocks += slot.cached_blocks
    slot.older = instance.newest
    slot.newer = -1
    if instance.newest >= 0:
        state.slots[instance.newest].newer = at
    else:
        instance.oldest = at
    instance.newest = at


@jit_inner
def _remove_idle(state: State, instance: Instance, at: int) -> None:
    slot = state.slots[at]
    instance.idle_blocks -= slot.cached_blocks
    if slot.older >= 0:
        state.slots[slot.older].newer = slot.newer
    else:
        instance.oldest = slot.newer
    if slot.newer >= 0:
        state.slots[slot.newer].older = slot.older
    else:
        instance.newest = slot.older


@jit_inner
def grow(state: State, instance: Instance, blocks: int) -> None:
    """Take `blocks` more for running requests, evicting from the tails of the least recently used nodes."""
    missing = blocks - (instance.capacity_blocks - instance.held_blocks - instance.idle_blocks)
    while missing > 0:
        at = instance.oldest
        slot = state.slots[at]
        taken = min(missing, slot.cached_blocks)
        if taken == slot.cached_blocks:
            _remove_idle(state, instance, at)
        else:
            instance.idle_blocks -= taken
        slot.cached_blocks -= taken
        missing -= taken
    instance.held_blocks += blocks


@jit_inner
def admit(state: State, i: int, j: int) -> int:
    """Give request i the blocks of all tokens it must compute or find; return those found, or -1 if they don't fit.

    What is found is whole blocks, and never all of the tokens: the last one has to be computed.
    """
    request, instance = state.requests[i], state.instances[j]
    block = instance.block_tokens
    tokens = request.prompt_tokens + request.generated_tokens
    needed = (tokens + block - 1) // block
    if not instance.prefix_caching:
        if instance.held_blocks + needed > instance.capacity_blocks:
            return -1
        grow(state, instance, needed)
        return 0
    found, found_held, shared = _found(state, request, instance, j)
    tail_at = len(state.instances) * state.node_blocks.shape[1] + i
    tail = state.slots[tail_at]
    found += tail.cached_blocks
    if instance.held_blocks + needed - found_held > instance.capacity_blocks:
        return -1
    if tail.cached_blocks > 0:
        _hold(state, instance, tail_at)
    missing = _hold_path(state, request, instance, j) + needed - shared - tail.cached_blocks
    tail.cached_blocks = needed - shared
    grow(state, instance, missing)
    return min(found, (tokens - 1) // block) * block


@jit_inner
def _found(state: State, request: Request, instance: Instance, j: int) -> tuple[int, int, int]:
    """Count the cached blocks on the request's path, those of them held by others, and all blocks of the path."""
    sizes = state.node_blocks[instance.node_class]
    first_slot = j * state.node_blocks.shape[1]
    found, held, shared = 0, 0, 0
    for at in range(request.path_from, request.path_to):
        node = state.path[at]
        slot = state.slots[first_slot + node]
        shared += sizes[node]
        found += slot.cached_blocks
        if slot.users > 0:
            held += slot.cached_blocks
    return found, held, shared


@jit_inner
def _hold(state: State, instance: Instance, at: int) -> None:
    _remove_idle(state, instance, at)
    instance.held_blocks += state.slots[at].cached_blocks


@jit_inner
def _hold_path(state: State, request: Request, instance: Instance, j: int) -> int:
    """Take the nodes on the request's path, so that making room can't evict them; return the blocks they miss."""
    sizes = state.node_blocks[instance.node_class]
    first_slot = j * state.node_blocks.shape[1]
    missing = 0
    for at in range(request.path_from, request.path_to):
        node = state.path[at]
        slot = state.slots[first_slot + node]
        if slot.users == 0 and slot.cached_blocks > 0:
            _hold(state, instance, first_slot + node)
        slot.users += 1
        missing += sizes[node] - slot.cached_blocks
        slot.cached_blocks = sizes[node]
    return missing


@jit_part
def release(state: State, i: int, j: int, computed_tokens: int, reserved_tokens: int) -> None:
    """Take back what request i holds, deepest first; what it computed stays cached where the engine caches prefixes.

    Args:
        state: of the cluster.
        i: the request.
        j: its instance.
        computed_tokens: in the cache.
        reserved_tokens: that it has blocks for.
    """
    request, instance = state.requests[i], state.instances[j]
    block = instance.block_tokens
    reserved = (reserved_tokens + block - 1) // block
    if not instance.prefix_caching:
        instance.held_blocks -= reserved
        return
    computed = computed_tokens // block  # a block that is not full can't be found again
    _, _, start = _found(state, request, instance, j)
    nodes = state.node_blocks.shape[1]
    tail_at = len(state.instances) * nodes + i
    instance.held_blocks -= reserved - start
    state.slots[tail_at].cached_blocks = max(computed - start, 0)
    if computed > start:
        _append_idle(state, instance, tail_at)
    sizes = state.node_blocks[instance.node_class]
    for at in range(request.path_to - 1, request.path_from - 1, -1):
        node = state.path[at]
        slot = state.slots[j * nodes + node]
        start -= sizes[node]
        slot.users -= 1
        if slot.users == 0:
            instance.held_blocks -= slot.cached_blocks
            slot.cached_blocks = min(slot.cached_blocks, max(computed - start, 0))
            if slot.cached_blocks > 0:
                _append_idle(state, instance, j * nodes + node)


@jit_part
def clear(state: State, j: int) -> None:
    """Forget all that nobody holds, as an engine that starts anew."""
    instance = state.instances[j]
    while instance.oldest >= 0:
        at = instance.oldest
        _remove_idle(state, instance, at)
        state.slots[at].cached_blocks = 0
