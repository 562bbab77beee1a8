"""What Preble's router keeps in a policy's memory, and the loads that come of it."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit_inner, jit_part
from lodestar.pipeline.replay.routing.compiled import Memory, MemoryShape, Prefixes

__all__ = [
    "AFTER",
    "ALLOCATED",
    "BUSY",
    "CHAIN",
    "CHILD",
    "COUNT",
    "DECODE_TOKENS",
    "DONE_S",
    "ENDS",
    "EVER",
    "FIRST",
    "FROM",
    "HERE",
    "HITS",
    "HOLDER",
    "IMBALANCE",
    "IN_WINDOW",
    "KEPT",
    "KEY",
    "LOAD",
    "MISS",
    "NEW",
    "NEWEST",
    "NEXT",
    "OLDER",
    "ORDERED",
    "PARENT",
    "PATH_FROM",
    "PATH_TO",
    "PREBLE",
    "PROMPT",
    "PROMPTS",
    "RANK",
    "REFERENCES",
    "ROOT",
    "SENT_S",
    "SHARED",
    "SIBLING",
    "START",
    "STATE",
    "STEAL",
    "TAIL",
    "TAILS",
    "TTFT_S",
    "WARM_UP",
    "WENT",
    "WINDOW_S",
    "add_node",
    "add_tail",
    "load_s",
    "median_tpot_s",
    "node_s",
    "note_tpot",
    "prefill_s",
    "rounded",
]

Floats = NDArray[np.float64]

# Places in `Parameters.values`.
WINDOW_S, DECODE_TOKENS, TPOT_S, IMBALANCE, WARM_UP, CHAIN = 0, 1, 2, 3, 4, 5
TOKEN_MS, BASE_MS, LEAST_MS, ATTENTION_MS = 6, 7, 8, 9
# Places in `Memory.numbers`: the first request in the window, the one after the last, requests sent.
IN_WINDOW, AFTER, EVER = 0, 1, 2
# Columns of `Memory.of_instance`: of the counted nodes that it is allocated, prefill seconds, active requests, and how
# many; the same of those that count two requests or more; whether it is allocated the root, and whether it is there;
# room to rank instances by load; decode times: how many so far, the last 200 as a ring, and the same in order.
PREFILL_S, ACTIVE, NODES, SHARED = 0, 1, 2, 3
ROOT, HERE, RANK, LOAD, TPOTS, RING = 6, 7, 8, 9, 10, 11
KEPT: Final = 200
ORDERED: Final = RING + KEPT
# Columns of `Memory.of_node`. The tree has a node of its own up to here (ENDS), from START tokens on; links, all plus
# one: the request that was first here, parent, first child, next of its parent's, first request whose own tail is here.
# What is counted at it: requests, their tokens, those of them in the tree already, the miss rate; its cost if to steal.
ENDS, START, FIRST, PARENT, CHILD, SIBLING, TAILS, COUNT, PROMPTS, HITS, MISS, STEAL = range(12)
# Columns of `Memory.of_request`: when it was sent; 2 in the window, 1 sent; where it went (plus one), whether it is
# active; its path, its length; whether it has a tail of its own, from where, on what instance (plus one), and the next
# of its place (plus one); the node that counts it (plus one; 0: its own tail), and the new share of the prompt.
SENT_S, STATE, WENT, BUSY, PATH_FROM, PATH_TO, PROMPT, TAIL, FROM, HOLDER, NEXT, KEY, NEW = range(13)
# Its TTFT, when it was done, and what was done before it at the same node of the same instance (plus one).
TTFT_S, DONE_S, OLDER = 13, 14, 15
# Columns of `Memory.of_pair`: whether the node is allocated to the instance, requests active there, and the one that
# was done last (plus one), of those counted at this node.
ALLOCATED, REFERENCES, NEWEST = 0, 1, 2

#: Room for all of it.
PREBLE: Final = MemoryShape(numbers=3, of_instance=ORDERED + KEPT, of_node=12, of_pair=3, of_request=16)


@jit_inner
def prefill_s(new: float, context: float, values: Floats) -> float:
    """Return the time of a prefill as the peer models it; the settings say what depends most on the hardware."""
    if new >= 384.0:
        ms = values[TOKEN_MS] * new + values[BASE_MS]
    elif new >= 192.0:
        ms = -118.0 + 1.25 * new - 2.56e-3 * new * new
    else:
        ms = values[LEAST_MS]
    if context <= 1024.0:
        ms += 0.32
    else:
        ms += (1.86e-4 * context + 0.159) / (2.0 if new <= 1024.0 else 1.0)
    if new * context > 1024.0 * 1024.0:
        ms += 1.13e-3 * new + 1.75e-3 * context + values[ATTENTION_MS] * new * context
    return float(ms / 1000.0 / 0.9)


@jit_inner
def _allocations(node: int, memory: Memory) -> float:
    total = 0.0
    for j in range(len(memory.of_instance)):
        total += memory.of_pair[node, j, ALLOCATED]
    return total


@jit_inner
def node_s(node: int, start: float, end: float, memory: Memory, values: Floats) -> float:
    """Return the prefill cost of what a node counts, for each instance that has it, if it is that part of prompts."""
    times = memory.of_node[node, MISS] * memory.of_node[node, COUNT]
    return float(times * prefill_s(end - start, end, values) / max(_allocations(node, memory), 1.0))


@jit_inner
def _add(sign: float, prefill_s: float, active: float, count: float, instance: int, memory: Memory) -> None:
    for at in range(0, 2 * SHARED if count > 1.0 else SHARED, SHARED):
        memory.of_instance[instance, at + PREFILL_S] += sign * prefill_s
        memory.of_instance[instance, at + ACTIVE] += sign * active
        memory.of_instance[instance, at + NODES] += sign
        if memory.of_instance[instance, at + NODES] == 0.0:  # a sum of fractions need not come back to 0
            memory.of_instance[instance, at + PREFILL_S] = 0.0


@jit_part
def add_node(sign: float, node: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Add what a node counts to the instances it is allocated to, or take it off, before and after it changes."""
    count = memory.of_node[node, COUNT]
    if count == 0.0:
        return
    cost = node_s(node, memory.of_node[node, START], float(prefixes.node_end[node]), memory, values)
    for j in range(len(memory.of_instance)):
        if memory.of_pair[node, j, ALLOCATED] > 0.0:
            _add(sign, cost, memory.of_pair[node, j, REFERENCES], count, j, memory)


@jit_part
def add_tail(sign: float, i: int, memory: Memory, values: Floats) -> None:
    """Do the same with a request's own tail, where that counts it."""
    state = memory.of_request[i]
    if state[STATE] == 2.0 and state[KEY] == 0.0 and state[HOLDER] > 0.0:
        cost = state[NEW] * prefill_s(state[PROMPT] - state[FROM], state[PROMPT], values)
        active = state[BUSY] if state[WENT] == state[HOLDER] else 0.0
        _add(sign, cost, active, 1.0, int(state[HOLDER]) - 1, memory)


@jit_inner
def median_tpot_s(instance: int, memory: Memory, values: Floats) -> float:
    """Return the median of the last decode times; the first is a guess."""
    count = int(min(memory.of_instance[instance, TPOTS], KEPT))
    if count == 0:
        return float(values[TPOT_S])
    middle = memory.of_instance[instance, ORDERED + count // 2]
    return float((middle + memory.of_instance[instance, ORDERED + (count - 1) // 2]) / 2.0)


@jit_inner
def load_s(at: int, instance: int, memory: Memory, values: Floats) -> float:
    """Return the load of an instance: `at` 0 by all nodes that count something, `SHARED` by those that count more."""
    decode_s = values[DECODE_TOKENS] * median_tpot_s(instance, memory, values)
    return float(memory.of_instance[instance, at + PREFILL_S] + decode_s * memory.of_instance[instance, at + ACTIVE])


@jit_inner
def rounded(load: float) -> float:
    """Round to nanoseconds: running sums must not part what is equal."""
    return math.floor(load * 1e9 + 0.5) / 1e9


@jit_part
def note_tpot(tpot_s: float, instance: int, memory: Memory, values: Floats) -> None:
    """Keep a decode time in place of the oldest, in the ring and in order."""
    state = memory.of_instance[instance]
    if state[TPOTS] == 0.0:
        state[TPOTS], state[RING], state[ORDERED] = 1.0, values[TPOT_S], values[TPOT_S]
    count = int(state[TPOTS])
    kept, slot = min(count, KEPT), RING + count % KEPT
    at = ORDERED + kept
    if count >= KEPT:
        at = ORDERED
        while state[at] != state[slot]:
            at += 1
    while at > ORDERED and state[at - 1] > tpot_s:
        state[at] = state[at - 1]
        at -= 1
    while at + 1 < ORDERED + kept and state[at + 1] < tpot_s:
        state[at] = state[at + 1]
        at += 1
    state[at], state[slot], state[TPOTS] = tpot_s, tpot_s, count + 1.0
