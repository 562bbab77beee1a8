"""SGLang's ``cache_aware``: the instance that had the prompt's beginning last, unless the load is out of balance.

What the router remembers is a tree of runs: a run is a stretch of prompt that the same instances hold, and ends where
two prompts that were sent parted. Its pieces here are the prefix nodes of the workload and each request's own rest, the
tail. A piece is named by a code: node + 1, or -(request + 1) for a tail; 0 is no piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import LateFunction, jit_inner, jit_part
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
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
from lodestar.pipeline.replay.routing.shared_rules import known, spread

__all__ = ["SglangCacheAware"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_INFLIGHT: Final = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)

_THRESHOLD, _ABSOLUTE, _RELATIVE, _INTERVAL_S, _LIMIT = range(5)  # of Parameters.values
_EVICT_AT_S, _EPOCH, _STARTED = range(3)  # of Memory.numbers
# Memory.of_instance; SENT counts here too, for a notice sees no snapshot
_TOKENS, _SENT, _AWAY = range(3)
# Memory.of_node: the instance to take + 1, codes of the piece before and of the next in the same run, count of holders
_LAST, _BEFORE, _NEXT, _HOLDERS = range(4)
# Memory.of_pair: 0: does not hold it, 1: holds it for what comes after, epoch + 2: last used; pieces held after it
_USED, _AFTER = range(2)
# Memory.of_request, of its tail: when used, as above, who holds it + 1, code before, tokens; and room for a heap
_TAIL_USED, _TAIL_HOLDER, _TAIL_BEFORE, _TAIL_TOKENS, _HEAP = range(5)
_PASSED: Final = 1.0


@jit_inner
def _imbalanced(least: float, most: float, parameters: Parameters) -> bool:
    # The peer computes with 32 bits, which decides where the two sides are all but equal.
    limit = np.float32(least) * np.float32(parameters.values[_RELATIVE])
    return bool(most - least > parameters.values[_ABSOLUTE] and np.float32(most) > limit)


@jit_inner
def _matches(tokens: float, request: Request, parameters: Parameters) -> bool:
    rate = np.float32(tokens) / np.float32(request.prompt_tokens)  # NaN for an empty prompt: no match
    return bool(rate > np.float32(parameters.values[_THRESHOLD]))


@jit_inner
def _match(request: Request, prefixes: Prefixes, memory: Memory) -> tuple[int, float]:
    """Return the last piece of the prompt that anybody holds, and the tokens up to its end."""
    code, tokens = 0, 0.0
    for at in range(request.path_from, request.path_to):
        node = prefixes.path[at]
        if memory.of_node[node, _HOLDERS] == 0.0:
            return code, tokens
        code, tokens = int(node) + 1, float(prefixes.node_end[node])
    if memory.of_request[request.index, _TAIL_USED] > 0.0:
        return -1 - request.index, request.prompt_tokens
    return code, tokens


@jit_inner
def _holds(memory: Memory, code: int, j: int) -> bool:
    if code > 0:
        return bool(memory.of_pair[code - 1, j, _USED] > 0.0)
    return code < 0 and memory.of_request[-1 - code, _TAIL_HOLDER] == j + 1.0


@jit_inner
def _owner(memory: Memory, code: int) -> int:
    """Return the instance to take on a match of this piece; -1 if that can be any of its holders."""
    if code <= 0:
        return int(memory.of_request[-1 - code, _TAIL_HOLDER]) - 1 if code < 0 else -1
    last = int(memory.of_node[code - 1, _LAST]) - 1
    if last >= 0 and _holds(memory, code, last):
        return last
    if memory.of_node[code - 1, _HOLDERS] == 1.0:
        for j in range(len(memory.of_instance)):
            if _holds(memory, code, j):
                return j
    return -1


@jit_inner
def _before(memory: Memory, code: int) -> int:
    return int(memory.of_node[code - 1, _BEFORE] if code > 0 else memory.of_request[-1 - code, _TAIL_BEFORE])


@jit_inner
def _run_goes_on(memory: Memory, before: int, code: int) -> bool:
    return before > 0 and memory.of_node[before - 1, _NEXT] == code


@jit_inner
def _end_run(memory: Memory, before: int, code: int) -> None:
    """Split a run after a piece, unless it goes on with this one."""
    if before > 0 and memory.of_node[before - 1, _NEXT] != code:
        memory.of_node[before - 1, _NEXT] = 0.0


@jit_inner
def _size(prefixes: Prefixes, memory: Memory, code: int) -> float:
    if code < 0:
        return float(memory.of_request[-1 - code, _TAIL_TOKENS])
    before = int(memory.of_node[code - 1, _BEFORE])
    return float(prefixes.node_end[code - 1]) - (float(prefixes.node_end[before - 1]) if before > 0 else 0.0)


@jit_part
def _mark(memory: Memory, code: int, j: int, used: float) -> None:
    """Note when the instance last used the run that a piece is in; 0: make it the one to take (-1: any holder)."""
    while code > 0 and memory.of_node[code - 1, _NEXT] != 0.0:
        code = int(memory.of_node[code - 1, _NEXT])
    while code != 0:
        if code < 0 and used > 0.0:
            memory.of_request[-1 - code, _TAIL_USED] = used
        elif code > 0 and used > 0.0:
            memory.of_pair[code - 1, j, _USED] = used
        elif code > 0:
            memory.of_node[code - 1, _LAST] = j + 1.0
        before = _before(memory, code)
        code = before if _run_goes_on(memory, before, code) else 0


@jit_inner
def _add(prefixes: Prefixes, memory: Memory, code: int, j: int, used: float) -> None:
    """Let the instance hold a piece."""
    if code > 0:
        memory.of_pair[code - 1, j, _USED] = used
        memory.of_node[code - 1, _HOLDERS] += 1.0
    else:
        memory.of_request[-1 - code, _TAIL_USED] = used
        memory.of_request[-1 - code, _TAIL_HOLDER] = j + 1.0
    before = _before(memory, code)
    if before > 0:
        memory.of_pair[before - 1, j, _AFTER] += 1.0
    memory.of_instance[j, _TOKENS] += _size(prefixes, memory, code)


@jit_inner
def _drop(prefixes: Prefixes, memory: Memory, code: int, j: int) -> None:
    """Let the instance hold a piece no more; what nobody holds is forgotten."""
    memory.of_instance[j, _TOKENS] -= _size(prefixes, memory, code)
    before = _before(memory, code)
    if before > 0:
        memory.of_pair[before - 1, j, _AFTER] -= 1.0
    if code < 0:
        memory.of_request[-1 - code, _TAIL_USED] = memory.of_request[-1 - code, _TAIL_HOLDER] = 0.0
        return
    memory.of_pair[code - 1, j, _USED] = 0.0
    memory.of_node[code - 1, _HOLDERS] -= 1.0
    if memory.of_node[code - 1, _HOLDERS] == 0.0:
        memory.of_node[code - 1, _LAST] = memory.of_node[code - 1, _NEXT] = 0.0


@jit_part
def _insert(request: Request, j: int, prefixes: Prefixes, memory: Memory, used: float) -> None:
    """Enter a prompt for an instance: what is there is passed, and the rest becomes one new run."""
    before, tokens, grown = 0, 0.0, False
    for at in range(request.path_from, request.path_to):
        node = int(prefixes.path[at])
        code = node + 1
        _end_run(memory, before, code)
        if memory.of_node[node, _HOLDERS] == 0.0:
            if grown:
                memory.of_node[before - 1, _NEXT] = code
            memory.of_node[node, _LAST] = j + 1.0
            memory.of_node[node, _BEFORE] = before
            grown = True
        if memory.of_pair[node, j, _USED] == 0.0:
            _add(prefixes, memory, code, j, used if grown else _PASSED)
        before, tokens = code, float(prefixes.node_end[node])
    tail = -1 - request.index
    _end_run(memory, before, tail)
    if request.prompt_tokens <= tokens:
        _mark(memory, before, j, used)
    elif memory.of_request[request.index, _TAIL_HOLDER] == j + 1.0:
        _mark(memory, tail, j, used)
    else:
        if memory.of_request[request.index, _TAIL_USED] > 0.0:
            _end_run(memory, before, 0)
            _drop(prefixes, memory, tail, int(memory.of_request[request.index, _TAIL_HOLDER]) - 1)
        elif grown:
            memory.of_node[before - 1, _NEXT] = tail
        memory.of_request[request.index, _TAIL_BEFORE] = before
        memory.of_request[request.index, _TAIL_TOKENS] = request.prompt_tokens - tokens
        _add(prefixes, memory, tail, j, used)


@jit_inner
def _age(memory: Memory, j: int, code: int) -> float:
    return float(memory.of_pair[code - 1, j, _USED] if code > 0 else memory.of_request[-1 - code, _TAIL_USED])


@jit_part
def _push(memory: Memory, j: int, count: int, code: int) -> None:
    """Put a piece in the heap of `count`, the least recently used on top."""
    heap, at = memory.of_request, count
    while at > 0:
        above = (at - 1) // 2
        if _age(memory, j, int(heap[above, _HEAP])) <= _age(memory, j, code):
            break
        heap[at, _HEAP] = heap[above, _HEAP]
        at = above
    heap[at, _HEAP] = code


@jit_part
def _pop(memory: Memory, j: int, count: int) -> int:
    """Take the top off a heap of `count`."""
    heap, at = memory.of_request, 0
    top, moved = int(heap[0, _HEAP]), int(heap[count - 1, _HEAP])
    while True:
        below = 2 * at + 1
        if below >= count - 1:
            break
        if below + 1 < count - 1:
            right, left = int(heap[below + 1, _HEAP]), int(heap[below, _HEAP])
            below += _age(memory, j, right) < _age(memory, j, left)
        if _age(memory, j, int(heap[below, _HEAP])) >= _age(memory, j, moved):
            break
        heap[at, _HEAP] = heap[below, _HEAP]
        at = below
    heap[at, _HEAP] = moved
    return top


@jit_part
def _evict(j: int, prefixes: Prefixes, memory: Memory, limit: float) -> None:
    """Drop the least recently used runs that the instance holds nothing after, as long as it holds too much."""
    count = 0  # of the heap; such runs are on the ways of different requests, so there is room for all
    for node in range(len(memory.of_node)):
        if memory.of_pair[node, j, _USED] > 0.0 and memory.of_pair[node, j, _AFTER] == 0.0:
            _push(memory, j, count, node + 1)
            count += 1
    for index in range(len(memory.of_request)):
        if memory.of_request[index, _TAIL_HOLDER] == j + 1.0:
            _push(memory, j, count, -1 - index)
            count += 1
    while count > 0 and memory.of_instance[j, _TOKENS] > limit:
        code = _pop(memory, j, count)
        count -= 1
        before = _before(memory, code)
        while _run_goes_on(memory, before, code):
            _drop(prefixes, memory, code, j)
            code, before = before, _before(memory, before)
        _drop(prefixes, memory, code, j)
        if before > 0 and memory.of_pair[before - 1, j, _AFTER] == 0.0:
            _push(memory, j, count, before)
            count += 1


@jit_inner
def _keep_time(now_s: float, prefixes: Prefixes, memory: Memory, parameters: Parameters) -> None:
    """Evict if an interval has ended since the last event."""
    numbers, interval_s, limit = memory.numbers, parameters.values[_INTERVAL_S], parameters.values[_LIMIT]
    if numbers[_STARTED] == 0.0:
        numbers[_STARTED] = 1.0
        # As an instance registers, all that are there by then take one each.
        numbers[_EPOCH] = len(memory.of_instance) * (len(memory.of_instance) + 1) // 2
        numbers[_EVICT_AT_S] = now_s + interval_s
    if interval_s > 0.0 and now_s >= numbers[_EVICT_AT_S]:
        numbers[_EVICT_AT_S] += interval_s * (1.0 + (now_s - numbers[_EVICT_AT_S]) // interval_s)
        for j in range(len(memory.of_instance)):
            if memory.of_instance[j, _TOKENS] > limit:
                _evict(j, prefixes, memory, limit)


@jit_inner
def _next_epoch(memory: Memory) -> int:
    memory.numbers[_EPOCH] += 1.0
    return int(memory.numbers[_EPOCH]) - 1


@jit_inner
def _was_balanced(memory: Memory, parameters: Parameters) -> bool:
    least, most = np.inf, 0.0
    for j in range(len(memory.of_instance)):
        if memory.of_instance[j, _AWAY] == 0.0:
            least, most = min(least, memory.of_instance[j, _SENT]), max(most, memory.of_instance[j, _SENT])
    return not _imbalanced(least, most, parameters)


@jit_inner
def _look_up(request: Request, j: int, prefixes: Prefixes, memory: Memory, parameters: Parameters) -> None:
    """Change what the peer's look-up changes: one in eight counts as a use, and a new owner is kept."""
    code, tokens = _match(request, prefixes, memory)
    owner = _owner(memory, code)
    if owner < 0 and _matches(tokens, request, parameters) and _holds(memory, code, j):
        owner = j
    if code > 0 and memory.of_node[code - 1, _LAST] != owner + 1.0:
        _mark(memory, code, owner, 0.0)
    epoch = _next_epoch(memory)
    if epoch % 8 == 0 and owner >= 0:
        _mark(memory, code, owner, epoch + 2.0)


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if request.now_s == request.now_s:
        _keep_time(request.now_s, prefixes, memory, parameters)
    if event.kind == SENT:
        memory.of_instance[instance, _AWAY] = 0.0
        if _was_balanced(memory, parameters):
            _look_up(request, instance, prefixes, memory, parameters)
        _insert(request, instance, prefixes, memory, _next_epoch(memory) + 2.0)
        memory.of_instance[instance, _SENT] += 1.0
    elif event.kind == DONE:
        memory.of_instance[instance, _SENT] -= 1.0
    elif event.kind == LEFT:
        memory.of_instance[instance, _AWAY] = 1.0
        _evict(instance, prefixes, memory, -1.0)


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
    least, most = spread(snapshot, candidates)
    code, tokens = _match(request, prefixes, memory)
    if _matches(tokens, request, parameters) and not _imbalanced(least, most, parameters):
        owner = _owner(memory, code)
        for j in candidates:
            # If nobody that holds it can be chosen, the first in the list is.
            other = 0.5 if j == candidates[0] else 1.0
            cost[j] = 0.0 if j == owner or (owner < 0 and _holds(memory, code, j)) else other
        return
    taken = False
    for j in candidates:
        # The first of the least loaded wins, and not one of them at random.
        cost[j] = known(snapshot[j, _INFLIGHT]) + (0.5 if taken else 0.0)
        taken = taken or cost[j] == least


@dataclass(frozen=True, slots=True)
class SglangCacheAware(Policy):
    """The instance that the matched beginning of the prompt was first sent to, in a tree of what was sent.

    With counts c of requests in flight: if max c - min c > `balance_abs_threshold` and max c > `balance_rel_threshold`
    · min c, the fewest in flight. Otherwise, if matched / prompt tokens > `cache_threshold`, the owner of the deepest
    run that matches, wholly or in part: who made it, or, if that one lost it, any holder (the peer takes what comes
    first in a hash map, the policy draws). Otherwise the fewest in flight. The first in the list wins a tie. Whatever
    decided, the prompt is entered for the instance.

    Every `eviction_interval_s` (0: never), each instance over `max_tree_tokens` loses its least recently used runs that
    it holds nothing after. A run is used by the prompt that ends with it, and by one look-up in eight that does.

    It departs from the peer in four points. Tokens stand for characters, `max_tree_tokens` too, and prompts part where
    prefix blocks do. A tail is held by the last instance that it was sent to. An interval begins with the first event
    and ends with the first event after it: a decision before that sees the tree as it was. An instance that joins later
    does not move the count of one in eight.

    Source: SGLang ``sgl-model-gateway/src/policies/cache_aware.rs`` and ``tree.rs``, as of sglang-router 0.3.2.
    """

    cache_threshold: float = tunable(0.3, 0.0, 1.0, most=1.0)
    balance_abs_threshold: float = tunable(64.0, 1.0, 256.0, log=True, whole=True)
    balance_rel_threshold: float = tunable(1.5, 1.0, 4.0)
    eviction_interval_s: float = 60.0
    max_tree_tokens: float = 67_108_864.0

    name: ClassVar[str] = "sglang-cache-aware"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS,)
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(numbers=3, of_instance=3, of_node=4, of_pair=2, of_request=5)

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the settings in the order of their fields."""
        thresholds = self.cache_threshold, self.balance_abs_threshold, self.balance_rel_threshold
        return Parameters.of(*thresholds, self.eviction_interval_s, self.max_tree_tokens)
