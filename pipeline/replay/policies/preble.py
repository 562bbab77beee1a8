"""Preble's E2: exploit a prefix that is longer than what is new, else explore where the last minutes' load is least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction, jit_inner, jit_part
from lodestar.pipeline.replay.routing import preble_books as books
from lodestar.pipeline.replay.routing import preble_tree as tree
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
    FIRST_TOKEN,
    LEFT,
    SENT,
    Event,
    Memory,
    MemoryShape,
    Parameters,
    Prefixes,
    Request,
    notice_function,
    rule_function,
)
from lodestar.pipeline.replay.routing.contract import Fleet, Policy, tunable
from lodestar.pipeline.replay.routing.pick import Pick
from lodestar.pipeline.replay.routing.radix_tree import after_matched

__all__ = ["Preble"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@jit_inner
def _add_split(upper: int, prefixes: Prefixes, memory: Memory, values: Floats, cost: Floats) -> float:
    """Add what the loads change by as a tree node ends at this place; return where that node starts."""
    end = float(prefixes.node_end[upper])
    node, i = tree.lower_part(upper, prefixes, memory)
    if node >= 0:
        start, lower_end = memory.of_node[node, books.START], float(prefixes.node_end[node])
        change = -books.node_s(node, start, lower_end, memory, values)
        if tree.moves_up(start, end, lower_end):
            change += books.node_s(node, start, end, memory, values)
        else:
            change += books.node_s(node, end, lower_end, memory, values)
        for j in range(len(cost)):
            if memory.of_pair[node, j, books.ALLOCATED] > 0.0:
                cost[j] += change
        return float(start)
    state = memory.of_request[i]
    start = state[books.FROM]
    if state[books.STATE] == 2.0 and state[books.KEY] == 0.0 and state[books.HOLDER] > 0.0:
        change = -books.prefill_s(state[books.PROMPT] - start, state[books.PROMPT], values)
        if tree.moves_up(start, end, state[books.PROMPT]):
            change += books.prefill_s(end - start, end, values)
        else:
            change += books.prefill_s(state[books.PROMPT] - end, state[books.PROMPT], values)
        cost[int(state[books.HOLDER]) - 1] += state[books.NEW] * change
    return float(start)


@rule_function
def _rule(
    request: Request,
    snapshot: Floats,
    predicted_ms: Floats,
    candidates: Ints,
    prefixes: Prefixes,
    memory: Memory,
    parameters: Parameters,
    cost: Floats,
) -> None:
    for j in candidates:
        cost[j] = books.load_s(0, j, memory, parameters.values)
    at, start, end = after_matched(request, prefixes, memory, books.FIRST), 0.0, 0.0
    if at > request.path_from:
        upper = int(prefixes.path[at - 1])
        start, end = memory.of_node[upper, books.START], float(prefixes.node_end[upper])
        if memory.of_node[upper, books.ENDS] == 0.0:
            start = _add_split(upper, prefixes, memory, parameters.values, cost)
    for j in candidates:
        cost[j] = books.rounded(cost[j])
    leaf_start = end if request.prompt_tokens > end else start
    if not request.prompt_tokens - leaf_start < leaf_start:
        return
    found = False
    while not found and at >= request.path_from:
        at -= 1
        for j in candidates:
            found = found or _has(at, j, request, prefixes, memory)
    for j in candidates:
        if found and not _has(at, j, request, prefixes, memory):
            cost[j] = np.inf


@jit_inner
def _has(at: int, j: int, request: Request, prefixes: Prefixes, memory: Memory) -> bool:
    """Say whether an instance is allocated the node at that place of the path, or the root before it."""
    if at < request.path_from:
        return bool(memory.of_instance[j, books.ROOT] > 0.0)
    return bool(memory.of_pair[prefixes.path[at], j, books.ALLOCATED] > 0.0)


@jit_part
def _rank(memory: Memory, values: Floats) -> int:
    """Rank the instances that are there by the load of nodes that count two or more, greatest first."""
    ranked = 0
    for j in range(len(memory.of_instance)):
        if memory.of_instance[j, books.HERE] > 0.0:
            memory.of_instance[j, books.LOAD] = books.rounded(books.load_s(books.SHARED, j, memory, values))
            at = ranked
            while (
                at > 0
                and memory.of_instance[int(memory.of_instance[at - 1, books.RANK]), books.LOAD]
                < memory.of_instance[j, books.LOAD]
            ):
                memory.of_instance[at, books.RANK] = memory.of_instance[at - 1, books.RANK]
                at -= 1
            memory.of_instance[at, books.RANK] = j
            ranked += 1
    return ranked


@jit_part
def _list_nodes(heavy: int, prefixes: Prefixes, memory: Memory, values: Floats) -> int:
    """Note the cost of what could be taken from an instance; return how many nodes that are."""
    listed, decode_s = 0, values[books.DECODE_TOKENS] * books.median_tpot_s(heavy, memory, values)
    for i in range(int(memory.numbers[books.IN_WINDOW]), int(memory.numbers[books.AFTER])):
        node = int(memory.of_request[i, books.KEY]) - 1
        if memory.of_request[i, books.STATE] < 2.0 or node < 0 or memory.of_node[node, books.STEAL] > 0.0:
            continue
        start, end = memory.of_node[node, books.START], float(prefixes.node_end[node])
        if (
            memory.of_node[node, books.COUNT] > 1.0
            and memory.of_pair[node, heavy, books.ALLOCATED] > 0.0
            and end > 2.0 * start
        ):
            cost = books.node_s(node, start, end, memory, values)
            memory.of_node[node, books.STEAL] = 1.0 + cost + decode_s * memory.of_pair[node, heavy, books.REFERENCES]
            listed += 1
    return listed


@jit_part
def _cheapest(memory: Memory) -> int:
    best = -1
    for i in range(int(memory.numbers[books.IN_WINDOW]), int(memory.numbers[books.AFTER])):
        node = int(memory.of_request[i, books.KEY]) - 1
        listed = memory.of_request[i, books.STATE] == 2.0 and node >= 0 and memory.of_node[node, books.STEAL] > 0.0
        if listed and (best < 0 or memory.of_node[node, books.STEAL] < memory.of_node[best, books.STEAL]):
            best = node
    return best


@jit_inner
def _overloaded(node: int, instance: int, now_s: float, memory: Memory, values: Floats) -> bool:
    """Say whether the mean TTFT of the later half of the window is twice that of the earlier one, or more."""
    early, early_s, late, late_s = 0.0, 0.0, 0.0, 0.0
    i = int(memory.of_pair[node, instance, books.NEWEST]) - 1
    until_s = memory.of_request[i, books.DONE_S] - values[books.WINDOW_S] if i >= 0 else 0.0
    while i >= 0 and memory.of_request[i, books.DONE_S] >= until_s:
        if memory.of_request[i, books.DONE_S] < now_s - values[books.WINDOW_S] / 2.0:
            early, early_s = early + 1.0, early_s + memory.of_request[i, books.TTFT_S]
        else:
            late, late_s = late + 1.0, late_s + memory.of_request[i, books.TTFT_S]
        i = int(memory.of_request[i, books.OLDER]) - 1
    return early > 0.0 and late > 0.0 and late_s / late >= 2.0 * early_s / early


@jit_part
def _share(heavy: int, light: int, now_s: float, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Allocate the only node there is to take to the other instance too, if it is overloaded."""
    node = _cheapest(memory)
    cost = (memory.of_node[node, books.STEAL] - 1.0) / 2.0
    if memory.of_pair[node, light, books.ALLOCATED] > 0.0 or not _overloaded(node, heavy, now_s, memory, values):
        return
    memory.of_instance[heavy, books.LOAD] -= cost
    memory.of_instance[light, books.LOAD] += cost
    memory.of_pair[node, heavy, books.NEWEST] = 0.0
    books.add_node(-1.0, node, prefixes, memory, values)
    tree.allocate_part(node, light, False, prefixes, memory)
    books.add_node(1.0, node, prefixes, memory, values)


@jit_part
def _take(heavy: int, light: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Move the cheapest nodes, and all below them, as long as the one stays the fuller and loads are uneven."""
    moving = True
    while moving:
        node = _cheapest(memory)
        cost = memory.of_node[node, books.STEAL] - 1.0
        if node < 0 or memory.of_instance[heavy, books.LOAD] - cost < memory.of_instance[light, books.LOAD] + cost:
            return
        memory.of_node[node, books.STEAL] = 0.0
        memory.of_instance[heavy, books.LOAD] -= cost
        memory.of_instance[light, books.LOAD] += cost
        books.add_node(-1.0, node, prefixes, memory, values)
        tree.allocate_part(node, light, True, prefixes, memory)
        books.add_node(1.0, node, prefixes, memory, values)
        tree.allocate_below(node, light, prefixes, memory, values)
        moving = (
            memory.of_instance[heavy, books.LOAD] >= values[books.IMBALANCE] * memory.of_instance[light, books.LOAD]
        )


@jit_part
def _rebalance(now_s: float, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Even out the fullest instance and the emptiest, then the next one and the emptiest, while loads are uneven."""
    ranked = _rank(memory, values)
    for rank in range(ranked - 1):
        heavy, light = int(memory.of_instance[rank, books.RANK]), int(memory.of_instance[ranked - 1, books.RANK])
        if memory.of_instance[heavy, books.LOAD] < values[books.IMBALANCE] * memory.of_instance[light, books.LOAD]:
            return
        if _list_nodes(heavy, prefixes, memory, values) == 1:
            _share(heavy, light, now_s, prefixes, memory, values)
        else:
            _take(heavy, light, prefixes, memory, values)
        for i in range(int(memory.numbers[books.IN_WINDOW]), int(memory.numbers[books.AFTER])):
            if memory.of_request[i, books.KEY] > 0.0:
                memory.of_node[int(memory.of_request[i, books.KEY]) - 1, books.STEAL] = 0.0


@jit_part
def _note_ttft(i: int, instance: int, at_s: float, prefixes: Prefixes, memory: Memory) -> None:
    """Keep a TTFT at the node that would count the request now."""
    if memory.of_request[i, books.TTFT_S] > 0.0:
        node = tree.counted_at(i, prefixes, memory)[0]
        memory.of_request[i, books.DONE_S] = at_s
        if node >= 0:
            memory.of_request[i, books.OLDER] = memory.of_pair[node, instance, books.NEWEST]
            memory.of_pair[node, instance, books.NEWEST] = i + 1.0


@jit_part
def _refer(sign: float, request: Request, instance: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Count a request as active where it went, or no more; what it passes is allocated there."""
    for at in range(request.path_from, request.path_to):
        node = int(prefixes.path[at])
        books.add_node(-1.0, node, prefixes, memory, values)
        memory.of_pair[node, instance, books.REFERENCES] += sign
        if sign > 0.0:
            memory.of_pair[node, instance, books.ALLOCATED] = 1.0
        books.add_node(1.0, node, prefixes, memory, values)
    state = memory.of_request[request.index]
    books.add_tail(-1.0, request.index, memory, values)
    state[books.BUSY] += sign
    if sign > 0.0:
        state[books.WENT], state[books.HOLDER] = instance + 1.0, instance + 1.0
    books.add_tail(1.0, request.index, memory, values)


@jit_part
def _forget(instance: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    memory.of_instance[instance, books.HERE] = 0.0
    memory.of_instance[instance, books.ROOT] = 0.0
    for node in range(len(memory.of_pair)):
        if memory.of_pair[node, instance, books.ALLOCATED] > 0.0:
            books.add_node(-1.0, node, prefixes, memory, values)
            memory.of_pair[node, instance, books.ALLOCATED] = 0.0
            books.add_node(1.0, node, prefixes, memory, values)
    for i in range(int(memory.numbers[books.AFTER])):
        if memory.of_request[i, books.HOLDER] == instance + 1.0:
            books.add_tail(-1.0, i, memory, values)
            memory.of_request[i, books.HOLDER] = 0.0


@jit_part
def _send(request: Request, instance: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    i = request.index
    memory.of_instance[instance, books.HERE] = 1.0
    memory.of_instance[instance, books.ROOT] = 1.0
    memory.numbers[books.EVER] += 1.0
    if memory.of_request[i, books.STATE] > 0.0:  # again: it is counted since its first time
        _refer(1.0, request, instance, prefixes, memory, values)
        return
    memory.of_request[i, books.SENT_S] = request.now_s
    memory.numbers[books.AFTER] = i + 1.0
    tree.insert(request, prefixes, memory, values)
    _refer(1.0, request, instance, prefixes, memory, values)
    node, up = tree.counted_at(i, prefixes, memory)
    tree.count_request(i, node, prefixes, memory, values)
    tree.expire(request.now_s, prefixes, memory, values)
    here = 0.0
    for j in range(len(memory.of_instance)):
        here += memory.of_instance[j, books.HERE]
    if up < values[books.CHAIN] and memory.numbers[books.EVER] >= values[books.WARM_UP] * here:
        _rebalance(request.now_s, prefixes, memory, values)


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind == LEFT:
        _forget(instance, prefixes, memory, parameters.values)
    elif event.kind == SENT:
        _send(request, instance, prefixes, memory, parameters.values)
    elif event.kind == FIRST_TOKEN:
        memory.of_request[request.index, books.TTFT_S] = request.now_s - memory.of_request[request.index, books.SENT_S]
    elif event.kind == DONE:
        if event.output_tokens > 0.0:
            _note_ttft(request.index, instance, request.now_s, prefixes, memory)
        _refer(-1.0, request, instance, prefixes, memory, parameters.values)
        if event.output_tokens > 1.0 and event.decode_s > 0.0:
            books.note_tpot(event.decode_s / (event.output_tokens - 1.0), instance, memory, parameters.values)


@dataclass(frozen=True, slots=True)
class Preble(Policy):
    """E2: exploit where most of the prompt has been, else explore where the load of the last minutes is least.

    The router keeps a radix tree of all prompts and the instances that each node is allocated to.

    - Exploit, if the prompt's last tree node is shorter than all above it: of the instances to which the deepest
      allocated node on its path is allocated, the least load.
    - Explore otherwise: the least load of all. The first in the list wins a tie.

    A request is counted, for `window_minutes`, at the lowest node on its path that is longer than all above it. The
    load of an instance is Σ over the counted nodes allocated to it of miss rate · count · prefill time (new, context) /
    instances allocated + active requests through the node · `decode_tokens` · median of its last 200 times per token
    (`first_tpot_s` before the first). A node whose count runs out is allocated to nobody.

    After `warm_up_requests` an instance, each request whose counted node is less than `chain_nodes` above its last one
    evens out: while the greatest load (of nodes that count two or more) is at least `imbalance` times the least, the
    cheapest such nodes of the one go to the other with all below them, as long as it stays the fuller; a node that is
    the only one is shared with the other, if the mean TTFT at it in the later half of the window is twice that in the
    earlier one. Then the same for the second-fullest, and so on.

    The prefill time is the peer's fit of Mistral-7B on an A6000; the settings are those of its numbers that depend most
    on hardware: per new token, per step, the least, and per new token and token of context.

    Departures: where several instances may be exploited, the peer takes the place of the best in the list of these for
    its number; here it is the best. Its eviction cost, off by default, is left out. Prompts are known by their whole
    prefix blocks; a request that is sent again is counted since its first time; an instance is there once it was sent
    something, until it leaves.

    Source: WukLab/preble ``multi_node/global_scheduler_with_time.py``, ``global_lru_cache.py`` and
    ``benchmarks/exp_configs/model_equations.py``, May 2024.
    """

    window_minutes: float = tunable(3.0, 0.1, 30.0, log=True)
    decode_tokens: float = tunable(45.0, 1.0, 1000.0, log=True)
    imbalance: float = tunable(1.5, 1.0, 10.0, log=True)
    warm_up_requests: float = 50.0
    chain_nodes: float = 3.0
    first_tpot_s: float = 0.15
    prefill_token_ms: float = tunable(0.10842571, 0.01, 1.0, log=True)
    prefill_base_ms: float = 4.209777054806409
    least_prefill_ms: float = 22.0
    attention_ms: float = 2.19e-6

    name: ClassVar[str] = "preble"
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = books.PREBLE

    def __post_init__(self) -> None:
        """Refuse a window without time, and an imbalance that nothing satisfies."""
        if not self.window_minutes > 0.0:
            raise ConfigError(f"window_minutes is {self.window_minutes:g}; expected above 0")
        if not self.imbalance >= 1.0:
            raise ConfigError(f"imbalance is {self.imbalance:g}; expected 1 or more")

    def pick(self) -> Pick:
        """Take the first among equals."""
        return Pick(ties="first")

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the settings in the order of their places."""
        return Parameters.of(
            60.0 * self.window_minutes,
            self.decode_tokens,
            self.first_tpot_s,
            self.imbalance,
            self.warm_up_requests,
            self.chain_nodes,
            self.prefill_token_ms,
            self.prefill_base_ms,
            self.least_prefill_ms,
            self.attention_ms,
        )
