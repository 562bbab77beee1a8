"""AIBrix's ``prefix-cache-preble``: follow a prefix of more than half of the prompt, else the least modelled work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, unknown
from lodestar.data.jit import LateFunction, jit_inner, jit_part
from lodestar.pipeline.replay.routing.compiled import (
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
from lodestar.pipeline.replay.routing.radix_tree import after_matched, lower_part

__all__ = ["GPUS", "AibrixPreble"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Linear above 384 tokens (slope, constant), between 192 and 384 (constant, slope, square), below 192; attention up to
#: 1,024 tokens of context, above (slope, constant); quadratic from 4,096 tokens (constant, slope, square). All in ms.
GPUS: Final[dict[str, tuple[float, ...]]] = {
    "V100": (0.27106428, 10.52444263, -295.0, 3.125, -6.4e-3, 55.0, 0.80, 4.65e-4, 0.398, -18.425, 9.65e-3, 5.4e-6),
    "A6000": (
        0.10842571,
        4.20977705480641,
        -118.0,
        1.25,
        -2.56e-3,
        22.0,
        0.32,
        1.86e-4,
        0.159,
        -7.37,
        3.86e-3,
        2.16e-6,
    ),
}
_TTL_S: Final = 300.0  # for which the peer keeps a prefix that nobody sends

# Places in `Parameters.values`; the numbers of the GPU come after.
_THRESHOLD, _WINDOW_S, _DECODE_S, _GPU = 0, 1, 2, 3
# Places in `Memory.numbers`: the first request in the window, the first still in the tree, the one after the last.
_IN_WINDOW, _IN_TREE, _AFTER = 0, 1, 2
# Columns of `Memory.of_instance`: prefill seconds, leaves and requests of the window that it holds, and the root.
_PREFILL_S, _LEAVES, _REQUESTS, _ROOT = 0, 1, 2, 3
# Columns of `Memory.of_node`. The tree has a node of its own up to here (_ENDS), from _START tokens on; it has been
# seen first by one request and last by another (plus one). What the window has of prompts that end here: how many,
# their tokens, and those of them that were in the tree already.
_ENDS, _START, _FIRST, _LAST, _COUNT, _PROMPTS, _HITS = 0, 1, 2, 3, 4, 5, 6
# Columns of `Memory.of_request`: when it was sent; 2 in the window, 1 sent; the instance that has its own tail (plus
# one); where that tail starts, and the share of the prompt that was new; its path and length; whether it has a tail.
_SENT_S, _STATE, _HOLDER, _FROM, _MISS, _PATH_FROM, _PATH_TO, _PROMPT, _TAIL = 0, 1, 2, 3, 4, 5, 6, 7, 8


@jit_inner
def _prefill_s(tokens: float, context: float, values: Floats) -> float:
    """Return the time of a prefill as the peer models it."""
    g = _GPU
    if tokens >= 384.0:
        linear = values[g] * tokens + values[g + 1]
    elif tokens >= 192.0:
        linear = values[g + 2] + values[g + 3] * tokens + values[g + 4] * tokens * tokens
    else:
        linear = values[g + 5]
    attention = values[g + 6]
    if context > 1024.0:
        attention = values[g + 7] * context + values[g + 8]
        if (tokens if tokens > 0.0 else context) <= 1024.0:
            attention /= 2.0
    quadratic = 0.0
    if tokens >= 4096.0:
        quadratic = values[g + 9] + values[g + 10] * tokens + values[g + 11] * tokens * tokens
    return float((linear + attention + quadratic) / 1000.0 / 0.9)


@jit_inner
def _tail_s(i: int, start: float, memory: Memory, values: Floats) -> float:
    """Return the prefill cost of request i's own tail, if it starts there."""
    prompt = memory.of_request[i, _PROMPT]
    return float(memory.of_request[i, _MISS] * _prefill_s(prompt - start, prompt, values))


@jit_inner
def _node_s(node: int, start: float, prefixes: Prefixes, memory: Memory, values: Floats) -> float:
    state, end = memory.of_node[node], float(prefixes.node_end[node])
    miss = 1.0 - state[_HITS] / state[_PROMPTS] if state[_PROMPTS] > 0.0 else 1.0
    return float(miss * state[_COUNT] * _prefill_s(end - start, end, values))


@jit_inner
def _lower_part(node: int, prefixes: Prefixes, memory: Memory) -> tuple[int, int]:
    return lower_part(node, prefixes, memory, _FIRST, _ENDS, _PATH_FROM, _PATH_TO)


@jit_part
def _add_node(sign: float, node: int, instance: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Add the prompts that end at a node to what an instance that holds it holds, or take them off."""
    if memory.of_node[node, _COUNT] > 0.0 and memory.of_pair[node, instance, 0] > 0.0:
        cost = _node_s(node, memory.of_node[node, _START], prefixes, memory, values)
        _add(sign, cost, memory.of_node[node, _COUNT], instance, memory)


@jit_inner
def _add_node_everywhere(sign: float, node: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    for j in range(len(memory.of_instance)):
        _add_node(sign, node, j, prefixes, memory, values)


@jit_inner
def _add(sign: float, prefill_s: float, requests: float, instance: int, memory: Memory) -> None:
    memory.of_instance[instance, _PREFILL_S] += sign * prefill_s
    memory.of_instance[instance, _LEAVES] += sign
    memory.of_instance[instance, _REQUESTS] += sign * requests
    if memory.of_instance[instance, _LEAVES] == 0.0:  # a sum of fractions need not come back to 0
        memory.of_instance[instance, _PREFILL_S] = 0.0


@jit_part
def _add_tail(sign: float, i: int, memory: Memory, values: Floats) -> None:
    instance = int(memory.of_request[i, _HOLDER]) - 1
    if memory.of_request[i, _STATE] == 2.0 and memory.of_request[i, _TAIL] > 0.0 and instance >= 0:
        _add(sign, _tail_s(i, memory.of_request[i, _FROM], memory, values), 1.0, instance, memory)


@jit_inner
def _follow(request: Request, at: int, candidates: Ints, prefixes: Prefixes, memory: Memory, cost: Floats) -> bool:
    """Cost the instances that hold the longest part of the prompt that any of them holds; say whether any does."""
    found = False
    while not found and at >= request.path_from:
        at -= 1
        for j in candidates:
            holds = memory.of_pair[prefixes.path[at], j, 0] if at >= request.path_from else memory.of_instance[j, _ROOT]
            if holds > 0.0:
                cost[j] = memory.of_instance[j, _REQUESTS]
                found = True
    return found


@jit_inner
def _add_change(request: Request, at: int, prefixes: Prefixes, memory: Memory, values: Floats, cost: Floats) -> None:
    """Add what costs change by as the tree takes this prompt in."""
    if at == request.path_from or memory.of_node[prefixes.path[at - 1], _ENDS] > 0.0:
        return
    end = float(prefixes.node_end[prefixes.path[at - 1]])
    node, i = _lower_part(int(prefixes.path[at - 1]), prefixes, memory)
    if node >= 0 and memory.of_node[node, _COUNT] > 0.0:
        change = _node_s(node, end, prefixes, memory, values)
        change -= _node_s(node, memory.of_node[node, _START], prefixes, memory, values)
        for j in range(len(cost)):
            if memory.of_pair[node, j, 0] > 0.0:
                cost[j] += change
    elif i >= 0 and memory.of_request[i, _STATE] == 2.0 and memory.of_request[i, _HOLDER] > 0.0:
        change = _tail_s(i, end, memory, values) - _tail_s(i, memory.of_request[i, _FROM], memory, values)
        cost[int(memory.of_request[i, _HOLDER]) - 1] += change


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
    at, matched = after_matched(request, prefixes, memory, _LAST), 0.0
    if at > request.path_from:
        matched = float(prefixes.node_end[prefixes.path[at - 1]])
    follow = matched > parameters.values[_THRESHOLD] * request.prompt_tokens
    if follow and _follow(request, at, candidates, prefixes, memory, cost):
        return
    for place, j in enumerate(candidates):
        # The first in the list wins a tie; the peer sums in no fixed order, so that less than this is no difference.
        decode_s = memory.of_instance[j, _LEAVES] * parameters.values[_DECODE_S]
        cost[j] = memory.of_instance[j, _PREFILL_S] + decode_s + 1e-9 * place
    _add_change(request, at, prefixes, memory, parameters.values, cost)


@jit_part
def _count(sign: float, i: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Put request i into the window, or take it out as the tree is by then, not as it was counted."""
    if memory.of_request[i, _TAIL] > 0.0:
        _add_tail(sign, i, memory, values)
    else:
        node = int(prefixes.path[int(memory.of_request[i, _PATH_TO]) - 1])
        _add_node_everywhere(-1.0, node, prefixes, memory, values)
        memory.of_node[node, _COUNT] += sign
        memory.of_node[node, _PROMPTS] += sign * memory.of_request[i, _PROMPT]
        memory.of_node[node, _HITS] += sign * memory.of_node[node, _START]
        if memory.of_node[node, _COUNT] == 0.0:
            memory.of_node[node, _HITS] = 0.0
        _add_node_everywhere(1.0, node, prefixes, memory, values)


@jit_part
def _out_of_tree(i: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Drop what request i was the last to touch; whoever held that loses all above it, whatever else it holds."""
    path_from, path_to = int(memory.of_request[i, _PATH_FROM]), int(memory.of_request[i, _PATH_TO])
    alive = path_from
    while alive < path_to and memory.of_node[prefixes.path[alive], _LAST] != i + 1.0:
        alive += 1
    for j in range(len(memory.of_instance)):
        held = memory.of_request[i, _TAIL] > 0.0 and memory.of_request[i, _HOLDER] == j + 1.0
        for at in range(alive, path_to):
            held = held or memory.of_pair[prefixes.path[at], j, 0] > 0.0
        if held:
            memory.of_instance[j, _ROOT] = 0.0
            for at in range(path_from, path_to):
                _add_node(-1.0, prefixes.path[at], j, prefixes, memory, values)
                memory.of_pair[prefixes.path[at], j, 0] = 0.0
    for at in range(alive, path_to):
        memory.of_node[prefixes.path[at], _LAST] = 0.0
        memory.of_node[prefixes.path[at], _ENDS] = 0.0


@jit_part
def _expire(now_s: float, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    after = int(memory.numbers[_AFTER])
    i = int(memory.numbers[_IN_WINDOW])
    while i < after and memory.of_request[i, _SENT_S] <= now_s - values[_WINDOW_S]:
        if memory.of_request[i, _STATE] == 2.0:
            _count(-1.0, i, prefixes, memory, values)
            memory.of_request[i, _STATE] = 1.0
        i += 1
    memory.numbers[_IN_WINDOW] = i
    i = int(memory.numbers[_IN_TREE])
    while i < after and memory.of_request[i, _SENT_S] < now_s - _TTL_S:
        if memory.of_request[i, _STATE] > 0.0:
            _out_of_tree(i, prefixes, memory, values)
        i += 1
    memory.numbers[_IN_TREE] = i


@jit_part
def _split(upper: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """End a tree node where the prompt leaves it; what is below keeps what was counted."""
    end = float(prefixes.node_end[upper])
    node, i = _lower_part(upper, prefixes, memory)
    if node >= 0:
        memory.of_node[upper, _START] = memory.of_node[node, _START]
        _add_node_everywhere(-1.0, node, prefixes, memory, values)
        memory.of_node[node, _START] = end
        _add_node_everywhere(1.0, node, prefixes, memory, values)
    else:
        memory.of_node[upper, _START] = memory.of_request[i, _FROM]
        _add_tail(-1.0, i, memory, values)
        memory.of_request[i, _FROM] = end
        _add_tail(1.0, i, memory, values)
    memory.of_node[upper, _ENDS] = 1.0


@jit_inner
def _hold(request: Request, instance: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    memory.of_instance[instance, _ROOT] = 1.0
    for at in range(request.path_from, request.path_to):
        node = prefixes.path[at]
        if memory.of_pair[node, instance, 0] == 0.0 and memory.of_node[node, _LAST] > 0.0:
            memory.of_pair[node, instance, 0] = 1.0
            _add_node(1.0, node, instance, prefixes, memory, values)


@jit_part
def _insert(request: Request, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    """Put the prompt into the tree."""
    i, at, start, end = request.index, after_matched(request, prefixes, memory, _LAST), 0.0, 0.0
    if at > request.path_from:
        upper = int(prefixes.path[at - 1])
        start = float(prefixes.node_end[upper])
        if memory.of_node[upper, _ENDS] == 0.0:
            _split(upper, prefixes, memory, values)
    for k in range(request.path_from, request.path_to):
        node = prefixes.path[k]
        if memory.of_node[node, _LAST] == 0.0:
            memory.of_node[node, _FIRST] = i + 1.0
        memory.of_node[node, _LAST] = i + 1.0
        end = float(prefixes.node_end[node])
    tail = request.prompt_tokens > end
    if not tail:
        last = int(prefixes.path[request.path_to - 1])
        if memory.of_node[last, _ENDS] == 0.0:
            memory.of_node[last, _ENDS], memory.of_node[last, _START] = 1.0, start
    state = memory.of_request[i]
    state[_PATH_FROM], state[_PATH_TO], state[_PROMPT] = request.path_from, request.path_to, request.prompt_tokens
    state[_TAIL], state[_FROM] = (1.0 if tail else 0.0), start
    state[_MISS] = 1.0 - start / request.prompt_tokens if request.prompt_tokens > 0.0 else 1.0


@jit_inner
def _forget(instance: int, memory: Memory) -> None:
    for node in range(len(memory.of_pair)):
        memory.of_pair[node, instance, 0] = 0.0
    for column in range(memory.of_instance.shape[1]):
        memory.of_instance[instance, column] = 0.0
    for i in range(int(memory.numbers[_IN_TREE]), int(memory.numbers[_AFTER])):
        if memory.of_request[i, _HOLDER] == instance + 1.0:
            memory.of_request[i, _HOLDER] = 0.0


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    values, i = parameters.values, request.index
    if event.kind == LEFT:
        _forget(instance, memory)
        return
    _expire(request.now_s, prefixes, memory, values)
    if event.kind != SENT:
        return
    first = memory.of_request[i, _STATE] == 0.0
    if first:
        memory.of_request[i, _SENT_S] = request.now_s
        memory.numbers[_AFTER] = i + 1.0
        _insert(request, prefixes, memory, values)
    _hold(request, instance, prefixes, memory, values)
    _add_tail(-1.0, i, memory, values)
    memory.of_request[i, _HOLDER] = instance + 1.0
    if first:
        memory.of_request[i, _STATE] = 2.0
        _count(1.0, i, prefixes, memory, values)
    else:  # sent again: it stands where it stood, on another instance
        _add_tail(1.0, i, memory, values)


@dataclass(frozen=True, slots=True)
class AibrixPreble(Policy):
    """Where most of the prompt has been sent before; otherwise where the last minutes' work is least.

    The router keeps a radix tree of prompts and who holds each node, until nobody has sent it for 5 minutes; then they
    lose all nodes above it too. It counts what was sent in `window_minutes` by the tree node in which the prompt ends.

    - If more than `threshold` of the prompt is in the tree: of the instances that hold the longest part, the one with
      the fewest requests in the window under all nodes that it holds; ties at random.
    - Otherwise the least cost, the first in the list among equals: over the counted nodes that it holds, Σ miss rate ·
      requests · prefill time (new tokens, context) / 0.9 + `decode_tokens` · 0.15 s.

    `gpu` is whose prefill times those are (Mistral-7B on V100 or A6000). The peer's oddities are kept: its time per
    token is a constant, instances don't share a node's cost, what leaves the window is taken off as the tree is then,
    and the bug of the lost nodes above. There is no gate for imbalance before it, as there is none in its source.

    Departures: prompts are known by their whole prefix blocks; windows move as the router hears of something, not once
    a second; a request that is sent again counts from its first time; what was sent to an instance that left counts
    for nobody.

    Source: AIBrix ``pkg/plugins/gateway/algorithms/prefix_cache_preble.go``,
    ``pkg/utils/prefixcacheindexer/tree.go``.
    """

    threshold: float = tunable(0.5, 0.0, 1.0, most=1.0)
    window_minutes: float = tunable(3.0, 0.1, 5.0, log=True)
    decode_tokens: float = tunable(45.0, 1.0, 1000.0, log=True)
    gpu: str = "V100"

    name: ClassVar[str] = "aibrix-preble"
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(numbers=3, of_instance=4, of_node=7, of_pair=1, of_request=9)

    def __post_init__(self) -> None:
        """Refuse what the tree can't hold, and a GPU of unknown speed."""
        if not 0.0 < self.window_minutes <= _TTL_S / 60.0:
            raise ConfigError(
                f"window_minutes is {self.window_minutes:g}; expected above 0, up to the 5 for which prefixes are kept"
            )
        if self.gpu not in GPUS:
            raise unknown("gpu", self.gpu, GPUS)

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the settings and the GPU's numbers."""
        return Parameters.of(self.threshold, 60.0 * self.window_minutes, 0.15 * self.decode_tokens, *GPUS[self.gpu])
