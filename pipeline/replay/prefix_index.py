"""The router's own prefix index: what it believes cached where, from what it sent; it does not see engines evict.

Every request enters its blocks at the end of one list. When the index is over its capacity, it forgets from the other
end, except what was sent again since: that stands further back in the list.
"""

from __future__ import annotations

import numpy as np

from lodestar.data.jit import jit_inner, jit_part
from lodestar.pipeline.replay.state import Request, State

__all__ = ["believed_hit", "enter", "forget_instance"]


@jit_inner
def believed_hit(state: State, request: Request, j: int, now_s: float) -> tuple[int, float]:
    """Return the tokens of the request's prefix that the index holds for j, and how long ago the deepest was sent."""
    clock = state.clock[0]
    hit, age_s = 0, np.nan
    for at in range(request.path_from, request.path_to):
        node = state.path[at]
        entry = state.touched[node, j]
        if entry < 0:
            break
        since_s = now_s - state.index_at_s[entry]
        if since_s > clock.index_ttl_s:
            break
        hit = state.node_end[node]
        age_s = since_s
    return int(hit // clock.index_block_tokens * clock.index_block_tokens), age_s


@jit_inner
def enter(state: State, i: int, j: int) -> None:
    """Enter request i's blocks for instance j, and forget the oldest beyond the capacity."""
    clock, request = state.clock[0], state.requests[i]
    if clock.index_skips_uncached and not state.instances[j].prefix_caching:
        return
    shelf = j if clock.index_per_instance else 0
    block, end = clock.index_block_tokens, 0
    for at in range(request.path_from, request.path_to):
        node = state.path[at]
        size = state.node_end[node] // block - end // block
        end = state.node_end[node]
        known = state.touched[node, j]
        if known >= 0:
            state.instances[shelf].index_blocks -= state.index_size[known]
        state.touched[node, j] = clock.index_tail
        _append(state, node * len(state.instances) + j, size, shelf)
    if clock.index_capacity_blocks > 0:
        _append(state, -1, request.prompt_tokens // block - end // block, shelf)
        _forget(state, shelf)


@jit_inner
def _append(state: State, entry: int, size: int, shelf: int) -> None:
    clock, instance = state.clock[0], state.instances[shelf]
    at = clock.index_tail
    clock.index_tail += 1
    state.index_entry[at] = entry
    state.index_at_s[at] = clock.now_s
    state.index_size[at] = size
    state.index_next[at] = -1
    if instance.index_oldest < 0:
        instance.index_oldest = at
    else:
        state.index_next[instance.index_newest] = at
    instance.index_newest = at
    instance.index_blocks += size


@jit_part
def _forget(state: State, shelf: int) -> None:
    """Drop what is too old, and the oldest entries as long as there are too many."""
    clock, instance, instances = state.clock[0], state.instances[shelf], len(state.instances)
    while instance.index_oldest >= 0:
        at = instance.index_oldest
        too_old = clock.now_s - state.index_at_s[at] > clock.index_ttl_s
        if not too_old and instance.index_blocks <= clock.index_capacity_blocks:
            break
        instance.index_oldest = state.index_next[at]
        entry = state.index_entry[at]
        if entry < 0:
            instance.index_blocks -= state.index_size[at]
        elif state.touched[entry // instances, entry % instances] == at:
            state.touched[entry // instances, entry % instances] = -1
            instance.index_blocks -= state.index_size[at]


@jit_part
def forget_instance(state: State, j: int) -> None:
    """Drop the prefixes of an instance that is gone; what no other request shares ages out by itself."""
    shelf = j if state.clock[0].index_per_instance else 0
    for node in range(len(state.node_end)):
        if state.touched[node, j] >= 0:
            state.instances[shelf].index_blocks -= state.index_size[state.touched[node, j]]
            state.touched[node, j] = -1
