"""Ray Serve's prefix cache affinity router: the longest prefix, else the smallest tree, then the shortest queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction, jit_inner
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
from lodestar.pipeline.replay.routing.pick import Pick
from lodestar.pipeline.replay.routing.shared_rules import cost_by_better_of_two, known, spread

__all__ = ["RayPrefixAffinity"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)

# Memory. Every request sent has a number, from 1. `of_pair` keeps the number of the last one that brought a node to an
# instance, 0 for none, and `of_node` the tokens of the node. Each instance keeps its tokens, and a list of requests,
# the oldest first, by index + 1.
_SENT_COUNT, _FIRST_S, _CHECKS = 0, 1, 2  # of `numbers`: requests sent, time of the first, checks for eviction done
_TOKENS, _OLDEST, _NEWEST = 0, 1, 2  # of `of_instance`
_NEXT, _NUMBER, _TAIL_TOKENS, _PATH_FROM, _PATH_TO = 0, 1, 2, 3, 4  # of `of_request`; the tail is what none shares

# Places in `Parameters.values`.
_MATCH_RATE, _IMBALANCED, _EVICT, _EVICT_ABOVE, _EVICT_TO, _INTERVAL_S = 0, 1, 2, 3, 4, 5

_NOWHERE: Final = -1


@jit_inner
def _checks_due(now_s: float, memory: Memory, values: Floats) -> float:
    """Return how many checks for eviction there should have been by now."""
    if values[_EVICT] == 0.0 or memory.numbers[_SENT_COUNT] == 0.0:
        return 0.0
    return float(np.floor((now_s - memory.numbers[_FIRST_S]) / values[_INTERVAL_S]))


@jit_inner
def _group_tokens(i: int, j: int, prefixes: Prefixes, memory: Memory) -> float:
    """Return the tokens on j that request i was the last to bring."""
    tokens = float(memory.of_request[i, _TAIL_TOKENS])
    for at in range(int(memory.of_request[i, _PATH_FROM]), int(memory.of_request[i, _PATH_TO])):
        node = prefixes.path[at]
        if memory.of_pair[node, j, 0] == memory.of_request[i, _NUMBER]:
            tokens += memory.of_node[node, 0]
    return tokens


@jit_inner
def _eviction(j: int, prefixes: Prefixes, memory: Memory, values: Floats) -> tuple[float, float]:
    """Return the number of the last request that a check drops on j, and the tokens that go with all up to it."""
    excess = 0.0
    if memory.of_instance[j, _TOKENS] > values[_EVICT_ABOVE]:
        excess = memory.of_instance[j, _TOKENS] - values[_EVICT_TO]
    number, tokens, at = 0.0, 0.0, int(memory.of_instance[j, _OLDEST])
    while tokens < excess and at > 0:
        tokens += _group_tokens(at - 1, j, prefixes, memory)
        number = memory.of_request[at - 1, _NUMBER]
        at = int(memory.of_request[at - 1, _NEXT])
    return number, tokens


@jit_inner
def _evict(j: int, prefixes: Prefixes, memory: Memory, values: Floats) -> None:
    number, tokens = _eviction(j, prefixes, memory, values)
    memory.of_instance[j, _TOKENS] -= tokens
    while memory.of_instance[j, _OLDEST] > 0.0:
        i = int(memory.of_instance[j, _OLDEST]) - 1
        if memory.of_request[i, _NUMBER] > number:
            return
        for at in range(int(memory.of_request[i, _PATH_FROM]), int(memory.of_request[i, _PATH_TO])):
            if memory.of_pair[prefixes.path[at], j, 0] == memory.of_request[i, _NUMBER]:
                memory.of_pair[prefixes.path[at], j, 0] = 0.0
        memory.of_instance[j, _OLDEST] = memory.of_request[i, _NEXT]
        memory.of_request[i, _NUMBER] = 0.0


@jit_inner
def _insert(request: Request, j: int, prefixes: Prefixes, memory: Memory) -> None:
    if memory.numbers[_SENT_COUNT] == 0.0:
        memory.numbers[_FIRST_S] = request.now_s
    memory.numbers[_SENT_COUNT] += 1.0
    number, end = memory.numbers[_SENT_COUNT], 0.0
    for at in range(request.path_from, request.path_to):
        node = prefixes.path[at]
        start, end = end, min(float(prefixes.node_end[node]), request.prompt_tokens)
        if memory.of_pair[node, j, 0] == 0.0:
            memory.of_node[node, 0] = end - start
            memory.of_instance[j, _TOKENS] += end - start
        memory.of_pair[node, j, 0] = number
    tail = request.prompt_tokens - end
    memory.of_instance[j, _TOKENS] += tail
    i = request.index
    if memory.of_request[i, _NUMBER] > 0.0:  # still in the list of another instance, which has not left
        return
    memory.of_request[i, _NEXT] = 0.0
    memory.of_request[i, _NUMBER] = number
    memory.of_request[i, _TAIL_TOKENS] = tail
    memory.of_request[i, _PATH_FROM] = request.path_from
    memory.of_request[i, _PATH_TO] = request.path_to
    if memory.of_instance[j, _OLDEST] == 0.0:
        memory.of_instance[j, _OLDEST] = i + 1.0
    else:
        memory.of_request[int(memory.of_instance[j, _NEWEST]) - 1, _NEXT] = i + 1.0
    memory.of_instance[j, _NEWEST] = i + 1.0


@jit_inner
def _forget(j: int, memory: Memory) -> None:
    for node in range(memory.of_pair.shape[0]):
        memory.of_pair[node, j, 0] = 0.0
    at = int(memory.of_instance[j, _OLDEST])
    while at > 0:
        memory.of_request[at - 1, _NUMBER] = 0.0
        at = int(memory.of_request[at - 1, _NEXT])
    memory.of_instance[j, _TOKENS] = 0.0
    memory.of_instance[j, _OLDEST] = 0.0


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind == SENT:
        # Trees grow only here, so checks that were due since the last request are made up for before this one.
        due = _checks_due(request.now_s, memory, parameters.values)
        if due > memory.numbers[_CHECKS]:
            memory.numbers[_CHECKS] = due
            for j in range(memory.of_instance.shape[0]):
                _evict(j, prefixes, memory, parameters.values)
        _insert(request, instance, prefixes, memory)
    elif event.kind == LEFT:
        _forget(instance, memory)


@jit_inner
def _deepest(request: Request, candidates: Ints, prefixes: Prefixes, memory: Memory, dropped: Floats) -> int:
    """Return the last node of the request's path that any candidate has, as long as each before it is there too."""
    deepest = _NOWHERE
    for at in range(request.path_from, request.path_to):
        node = prefixes.path[at]
        held = False
        for j in candidates:
            held = held or memory.of_pair[node, j, 0] > dropped[j]
        if not held:
            break
        deepest = node
    return deepest


@jit_inner
def _tokens(j: int, due: bool, prefixes: Prefixes, memory: Memory, values: Floats) -> float:
    return float(memory.of_instance[j, _TOKENS]) - (_eviction(j, prefixes, memory, values)[1] if due else 0.0)


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
    values = parameters.values
    least, most = spread(snapshot, candidates)
    if most - least > values[_IMBALANCED]:
        cost_by_better_of_two(snapshot, candidates, cost)
        return
    due = _checks_due(request.now_s, memory, values) > memory.numbers[_CHECKS]
    for j in candidates:  # until the end, `cost` says what the checks that are due have dropped
        cost[j] = _eviction(j, prefixes, memory, values)[0] if due else 0.0
    deepest, matched_tokens, fewest = _deepest(request, candidates, prefixes, memory, cost), 0.0, np.inf
    if deepest != _NOWHERE:
        matched_tokens = min(float(prefixes.node_end[deepest]), request.prompt_tokens)
    too_little = matched_tokens / request.prompt_tokens < values[_MATCH_RATE]
    if too_little:
        for j in candidates:
            fewest = min(fewest, _tokens(j, due, prefixes, memory, values))
    winner, shortest = _NOWHERE, np.inf
    for j in candidates:
        if too_little:
            chosen = _tokens(j, due, prefixes, memory, values) == fewest
        else:
            chosen = deepest == _NOWHERE or memory.of_pair[deepest, j, 0] > cost[j]
        if chosen and known(snapshot[j, _INFLIGHT]) < shortest:
            winner, shortest = j, known(snapshot[j, _INFLIGHT])
    for j in candidates:
        cost[j] = -1.0 if j == winner else 0.0


@dataclass(frozen=True, slots=True)
class RayPrefixAffinity(Policy):
    """Among the replicas with the longest match, or else the smallest trees, the shortest queue; the cost is minus p.

    The router keeps a tree of the prompts that it sent to each replica. The queue is the requests in flight.

    1. If the longest queue and the shortest differ by more than `imbalanced_threshold`: of two replicas at random, the
       one with the shorter queue, or the first drawn.
    2. Otherwise, the replicas that hold the longest prefix of the prompt that any holds; but if that is a share of the
       prompt below `match_rate_threshold`, those with the fewest characters in the tree.
    3. Of these, the shortest queue, and of several the first in the list.

    A prompt is inserted as it is sent, the answer never; a replica that leaves is forgotten. With `do_eviction`, every
    `eviction_interval_s` from the first request on, each replica with more than `eviction_threshold_chars` loses what
    it was sent longest ago, all that one request was the last to bring at a time, down to `eviction_target_chars`.

    Prompts are compared by prefix blocks, where Ray compares characters, so a match ends with a block; a token counts
    as `chars_per_token` characters, which only eviction depends on. Left out: a limit of requests per replica, which
    Ray Serve LLM sets out of reach; locality, sessions and multiplexed models.

    Source: ray-project/ray ``python/ray/llm/_internal/serve/routing_policies/prefix_aware``, ``prefix_tree.py`` and
    ``prefix_aware_router.py``; ``python/ray/serve/_private/request_router``, ``request_router.py`` and
    ``pow_2_router.py``.

    Attributes:
        match_rate_threshold: see 2.
        imbalanced_threshold: see 1; Ray's default is infinite, and no fleet comes near ours.
        do_eviction: whether the tree forgets.
        eviction_threshold_chars: of one replica.
        eviction_target_chars: the same.
        eviction_interval_s: time between two checks.
        chars_per_token: an average.
    """

    match_rate_threshold: float = tunable(0.1, 0.0, 0.9, most=1.0)
    imbalanced_threshold: float = tunable(1e6, 1.0, 1e6, log=True, whole=True)
    do_eviction: bool = False
    eviction_threshold_chars: float = 400_000.0
    eviction_target_chars: float = 360_000.0
    eviction_interval_s: float = 10.0
    chars_per_token: float = 4.0

    name: ClassVar[str] = "ray-prefix-affinity"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS,)
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(numbers=3, of_instance=3, of_node=1, of_pair=1, of_request=5)

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("eviction_interval_s", "chars_per_token"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} is {getattr(self, name):g}; expected more than 0")
        if not 0.0 <= self.eviction_target_chars <= self.eviction_threshold_chars:
            raise ConfigError(
                f"eviction_target_chars is {self.eviction_target_chars:g}; expected 0 to "
                f"eviction_threshold_chars, which is {self.eviction_threshold_chars:g}"
            )

    def pick(self) -> Pick:
        """Draw by the probabilities that the rule works out."""
        return Pick(weighted=True)

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the settings in the order in which the rule reads them, lengths in tokens."""
        return Parameters.of(
            self.match_rate_threshold,
            self.imbalanced_threshold,
            float(self.do_eviction),
            self.eviction_threshold_chars / self.chars_per_token,
            self.eviction_target_chars / self.chars_per_token,
            self.eviction_interval_s,
        )
