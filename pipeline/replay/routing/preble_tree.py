"""Preble's radix tree of prompts: what is in it, to whom it is allocated, and what a window of requests counts where.

A node of this tree is a run of prefix nodes, known by the last of them, or the own tail of a request, known by that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit_inner, jit_part
from lodestar.pipeline.replay.routing import preble_books as books
from lodestar.pipeline.replay.routing import radix_tree
from lodestar.pipeline.replay.routing.compiled import Memory, Prefixes, Request

__all__ = [
    "allocate_below",
    "allocate_part",
    "count_request",
    "counted_at",
    "expire",
    "insert",
    "lower_part",
    "moves_up",
]

Floats = NDArray[np.float64]


@jit_inner
def lower_part(node: int, prefixes: Prefixes, memory: Memory) -> tuple[int, int]:
    """Return what a tree node that goes on below this place ends in; see `radix_tree.lower_part`."""
    return radix_tree.lower_part(node, prefixes, memory, books.FIRST, books.ENDS, books.PATH_FROM, books.PATH_TO)


@jit_inner
def moves_up(start: float, middle: float, end: float) -> bool:
    """Say whether the upper part of a node that is split is longer than what is above it, and the lower is not."""
    return middle - start > start and not end - middle > middle


@jit_part
def _split(upper: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """End a tree node at this place; what counts the part below moves up if only the part above is long enough."""
    end, after = float(prefixes.node_end[upper]), int(memory.numbers[books.AFTER])
    node, i = lower_part(upper, prefixes, memory)
    if node >= 0:
        books.add_node(-1.0, node, prefixes, memory, values)
        start = memory.of_node[node, books.START]
        memory.of_node[node, books.START] = end
        if moves_up(start, end, float(prefixes.node_end[node])):
            for column in (books.COUNT, books.PROMPTS, books.HITS, books.MISS):
                memory.of_node[upper, column] = memory.of_node[node, column]
            memory.of_node[node, books.COUNT] = 0.0
            for j in range(len(memory.of_instance)):
                if memory.of_pair[node, j, books.ALLOCATED] > 0.0:
                    memory.of_pair[upper, j, books.NEWEST] = memory.of_pair[node, j, books.NEWEST]
                    memory.of_pair[node, j, books.NEWEST] = 0.0
            for k in range(int(memory.numbers[books.IN_WINDOW]), after):
                if memory.of_request[k, books.KEY] == node + 1.0:
                    memory.of_request[k, books.KEY] = upper + 1.0
        books.add_node(1.0, node, prefixes, memory, values)
    else:
        books.add_tail(-1.0, i, memory, values)
        state = memory.of_request[i]
        start, state[books.FROM] = state[books.FROM], end
        if state[books.STATE] == 2.0 and state[books.KEY] == 0.0 and moves_up(start, end, state[books.PROMPT]):
            memory.of_node[upper, books.COUNT], memory.of_node[upper, books.PROMPTS] = 1.0, state[books.PROMPT]
            memory.of_node[upper, books.HITS] = (1.0 - state[books.NEW]) * state[books.PROMPT]
            memory.of_node[upper, books.MISS] = state[books.NEW]
            state[books.KEY] = upper + 1.0
            if state[books.DONE_S] > 0.0 and state[books.HOLDER] == state[books.WENT]:
                memory.of_pair[upper, int(state[books.WENT]) - 1, books.NEWEST] = i + 1.0
        books.add_tail(1.0, i, memory, values)
    memory.of_node[upper, books.ENDS], memory.of_node[upper, books.START] = 1.0, start
    books.add_node(1.0, upper, prefixes, memory, values)


@jit_part
def insert(request: Request, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Put the prompt into the tree."""
    i, at, start, end, upper = (
        request.index,
        radix_tree.after_matched(request, prefixes, memory, books.FIRST),
        0.0,
        0.0,
        -1,
    )
    if at > request.path_from:
        upper = int(prefixes.path[at - 1])
        start = float(prefixes.node_end[upper])
        if memory.of_node[upper, books.ENDS] == 0.0:
            _split(upper, prefixes, memory, values)
    for k in range(at, request.path_to):
        node = int(prefixes.path[k])
        memory.of_node[node, books.FIRST], memory.of_node[node, books.PARENT] = i + 1.0, upper + 1.0
        if upper >= 0:
            memory.of_node[node, books.SIBLING], memory.of_node[upper, books.CHILD] = (
                memory.of_node[upper, books.CHILD],
                node + 1.0,
            )
        upper = node
    if upper >= 0:
        end = float(prefixes.node_end[upper])
    state = memory.of_request[i]
    state[books.PATH_FROM], state[books.PATH_TO], state[books.PROMPT] = (
        request.path_from,
        request.path_to,
        request.prompt_tokens,
    )
    if request.prompt_tokens > end:
        state[books.TAIL], state[books.FROM], state[books.NEW] = 1.0, start, 1.0 - start / request.prompt_tokens
        if upper >= 0:
            state[books.NEXT], memory.of_node[upper, books.TAILS] = memory.of_node[upper, books.TAILS], i + 1.0
    elif memory.of_node[upper, books.ENDS] == 0.0:
        memory.of_node[upper, books.ENDS], memory.of_node[upper, books.START] = 1.0, start


@jit_inner
def _leaf_start(i: int, prefixes: Prefixes, memory: Memory) -> float:
    if memory.of_request[i, books.TAIL] > 0.0:
        return float(memory.of_request[i, books.FROM])
    return float(memory.of_node[prefixes.path[int(memory.of_request[i, books.PATH_TO]) - 1], books.START])


@jit_part
def counted_at(i: int, prefixes: Prefixes, memory: Memory) -> tuple[int, int]:
    """Return the lowest node on the path that is longer than what is above it (-1: the tail), and how far up it is."""
    up = 0
    if memory.of_request[i, books.TAIL] > 0.0:
        if memory.of_request[i, books.PROMPT] > 2.0 * memory.of_request[i, books.FROM]:
            return -1, 0
        up = 1
    for at in range(int(memory.of_request[i, books.PATH_TO]) - 1, int(memory.of_request[i, books.PATH_FROM]) - 1, -1):
        node = int(prefixes.path[at])
        if memory.of_node[node, books.ENDS] > 0.0:
            if prefixes.node_end[node] > 2.0 * memory.of_node[node, books.START]:
                return node, up
            up += 1
    return -1, up


@jit_part
def count_request(i: int, node: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Put request i into the window."""
    memory.of_request[i, books.STATE], memory.of_request[i, books.KEY] = 2.0, node + 1.0
    books.add_tail(1.0, i, memory, values)
    if node >= 0:
        books.add_node(-1.0, node, prefixes, memory, values)
        state = memory.of_node[node]
        state[books.COUNT] += 1.0
        state[books.PROMPTS] += memory.of_request[i, books.PROMPT]
        state[books.HITS] += _leaf_start(i, prefixes, memory)
        state[books.MISS] = 1.0 - state[books.HITS] / state[books.PROMPTS]
        books.add_node(1.0, node, prefixes, memory, values)


@jit_part
def _discount(i: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Take request i out of the window, as the tree is by now; what counts nothing any more is allocated to nobody."""
    books.add_tail(-1.0, i, memory, values)
    state, node = memory.of_request[i], int(memory.of_request[i, books.KEY]) - 1
    state[books.STATE] = 1.0
    if node < 0:
        state[books.HOLDER] = 0.0
        for at in range(int(state[books.PATH_TO]) - 1, int(state[books.PATH_FROM]) - 1, -1):
            if prefixes.node_end[prefixes.path[at]] > state[books.FROM]:
                _allocate(int(prefixes.path[at]), -1, True, memory)
        return
    books.add_node(-1.0, node, prefixes, memory, values)
    memory.of_node[node, books.COUNT] -= 1.0
    memory.of_node[node, books.PROMPTS] -= state[books.PROMPT]
    memory.of_node[node, books.HITS] -= _leaf_start(i, prefixes, memory)
    if memory.of_node[node, books.COUNT] == 0.0:
        memory.of_node[node, books.HITS] = 0.0
        allocate_part(node, -1, True, prefixes, memory)
    books.add_node(1.0, node, prefixes, memory, values)


@jit_inner
def expire(now_s: float, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Take out of the window what was sent too long ago."""
    i = int(memory.numbers[books.IN_WINDOW])
    while i < memory.numbers[books.AFTER] and memory.of_request[i, books.SENT_S] < now_s - values[books.WINDOW_S]:
        if memory.of_request[i, books.STATE] == 2.0:
            _discount(i, prefixes, memory, values)
        i += 1
    memory.numbers[books.IN_WINDOW] = i


@jit_inner
def _allocate(node: int, instance: int, only: bool, memory: Memory) -> None:
    for j in range(len(memory.of_instance)):
        if only or j == instance:
            memory.of_pair[node, j, books.ALLOCATED] = 1.0 if j == instance else 0.0


@jit_inner
def allocate_part(node: int, instance: int, only: bool, prefixes: Prefixes, memory: Memory) -> None:
    """Allocate the tree node that ends here to an instance (-1: none), and take it from all others or not."""
    start = memory.of_node[node, books.START]
    while node >= 0 and prefixes.node_end[node] > start:
        _allocate(node, instance, only, memory)
        node = int(memory.of_node[node, books.PARENT]) - 1


@jit_part
def allocate_below(top: int, instance: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Allocate all that continues a node to one instance only."""
    node = top
    while node >= 0:
        i = int(memory.of_node[node, books.TAILS]) - 1
        while i >= 0:
            books.add_tail(-1.0, i, memory, values)
            memory.of_request[i, books.HOLDER] = instance + 1.0
            books.add_tail(1.0, i, memory, values)
            i = int(memory.of_request[i, books.NEXT]) - 1
        if memory.of_node[node, books.CHILD] > 0.0:
            node = int(memory.of_node[node, books.CHILD]) - 1
        else:
            while node != top and memory.of_node[node, books.SIBLING] == 0.0:
                node = int(memory.of_node[node, books.PARENT]) - 1
            if node == top:
                return
            node = int(memory.of_node[node, books.SIBLING]) - 1
        books.add_node(-1.0, node, prefixes, memory, values)
        _allocate(node, instance, True, memory)
        books.add_node(1.0, node, prefixes, memory, values)
