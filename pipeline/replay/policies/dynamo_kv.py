"""NVIDIA Dynamo's KV router: prefill still to do, less what is cached, and blocks in use, in one sum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction, jit_inner
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
from lodestar.pipeline.replay.routing.shared_rules import known

__all__ = ["ACTIVE_BLOCKS", "ACTIVE_REQUESTS", "PREFILL_TOKENS", "DynamoKv"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)

#: Columns of `Memory.of_instance`: uncached prompt tokens without a first token yet, distinct prompt blocks of the
#: requests under way, and how many these are.
PREFILL_TOKENS, ACTIVE_BLOCKS, ACTIVE_REQUESTS = 0, 1, 2
#: How often the instance has left, plus one in `of_request` while the instance counts the request.
_DEPARTURES: Final = 3
_TOKENS_LEFT, _COUNTED_SINCE = 0, 1

# Places in `Parameters.values`.
_BLOCK, _SCALE, _CREDIT, _DECAY, _PER_REQUEST = 0, 1, 2, 3, 4


@jit_inner
def _overlap_blocks(hit_ratio: float, prompt_tokens: float, block_tokens: float) -> float:
    """Return the whole blocks cached; a ratio that stands for a whole number of blocks gives that number."""
    return float(math.floor(known(hit_ratio) * prompt_tokens / block_tokens + 1e-6))


@jit_inner
def _least_prefill(candidates: Ints, memory: Memory) -> float:
    least = np.inf
    for j in candidates:
        least = min(least, memory.of_instance[j, PREFILL_TOKENS])
    return least


@jit_inner
def _blocks_in_use(request: Request, j: int, prefixes: Prefixes, memory: Memory, block_tokens: float) -> float:
    """Return the distinct blocks of requests under way on j, this one's included."""
    shared_tokens = 0.0
    for at in range(request.path_from, request.path_to):
        node = prefixes.path[at]
        if prefixes.node_end[node] > request.prompt_tokens or memory.of_pair[node, j, 0] == 0.0:
            break
        shared_tokens = float(prefixes.node_end[node])
    new = math.floor(request.prompt_tokens / block_tokens) - math.floor(shared_tokens / block_tokens)
    return float(memory.of_instance[j, ACTIVE_BLOCKS]) + new


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
    values, prompt_tokens = parameters.values, request.prompt_tokens
    block_tokens = values[_BLOCK]
    least = _least_prefill(candidates, memory)
    for j in candidates:
        waiting_tokens = memory.of_instance[j, PREFILL_TOKENS]
        excess = (waiting_tokens - least) / block_tokens / max(math.ceil(prompt_tokens / block_tokens), 1)
        credit = values[_CREDIT] * (1.0 / (1.0 + values[_DECAY] * excess))
        cached = credit * _overlap_blocks(snapshot[j, _HIT], prompt_tokens, block_tokens)
        prefill = values[_SCALE] * max((waiting_tokens + prompt_tokens) / block_tokens - cached, 0.0)
        decode = _blocks_in_use(request, j, prefixes, memory, block_tokens)
        cost[j] = prefill + decode + values[_PER_REQUEST] * memory.of_instance[j, ACTIVE_REQUESTS]


@jit_inner
def _count_blocks(
    step: float, request: Request, instance: int, prefixes: Prefixes, memory: Memory, block_tokens: float
) -> None:
    """Add the request's blocks to those in use, or take them off; shared ones count once."""
    before, blocks = 0.0, 0.0
    for at in range(request.path_from, request.path_to):
        node = prefixes.path[at]
        if prefixes.node_end[node] > request.prompt_tokens:
            break
        users = memory.of_pair[node, instance, 0]
        memory.of_pair[node, instance, 0] = users + step
        # A block belongs to the node that it ends in.
        upto = math.floor(prefixes.node_end[node] / block_tokens)
        if min(users, users + step) == 0.0:
            blocks += upto - before
        before = upto
    blocks += math.floor(request.prompt_tokens / block_tokens) - before
    memory.of_instance[instance, ACTIVE_BLOCKS] += step * blocks
    memory.of_instance[instance, ACTIVE_REQUESTS] += step


@jit_inner
def _end_prefill(request: Request, instance: int, memory: Memory) -> None:
    memory.of_instance[instance, PREFILL_TOKENS] -= memory.of_request[request.index, _TOKENS_LEFT]
    memory.of_request[request.index, _TOKENS_LEFT] = 0.0


@jit_inner
def _forget(instance: int, memory: Memory) -> None:
    """Drop all that is counted of an instance; what its requests do from now on is ignored."""
    for column in (PREFILL_TOKENS, ACTIVE_BLOCKS, ACTIVE_REQUESTS):
        memory.of_instance[instance, column] = 0.0
    memory.of_instance[instance, _DEPARTURES] += 1.0
    for node in range(len(memory.of_pair)):
        memory.of_pair[node, instance, 0] = 0.0


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    block_tokens = parameters.values[_BLOCK]
    if event.kind == LEFT:
        _forget(instance, memory)
        return
    since = memory.of_instance[instance, _DEPARTURES] + 1.0
    if event.kind == SENT:
        cached_tokens = block_tokens * _overlap_blocks(event.hit_ratio, request.prompt_tokens, block_tokens)
        tokens = max(request.prompt_tokens - cached_tokens, 0.0)
        memory.of_request[request.index, _TOKENS_LEFT] = tokens
        memory.of_request[request.index, _COUNTED_SINCE] = since
        memory.of_instance[instance, PREFILL_TOKENS] += tokens
        _count_blocks(1.0, request, instance, prefixes, memory, block_tokens)
    elif memory.of_request[request.index, _COUNTED_SINCE] == since:
        if event.kind == FIRST_TOKEN or event.kind == DONE:
            _end_prefill(request, instance, memory)
        if event.kind == DONE:
            _count_blocks(-1.0, request, instance, prefixes, memory, block_tokens)
            memory.of_request[request.index, _COUNTED_SINCE] = 0.0


@dataclass(frozen=True, slots=True)
class DynamoKv(Policy):
    """The least work, in KV blocks: prefill that is still to do after cache hits, and blocks of requests under way.

    cost = `prefill_load_scale` · max((T + P) / b - C, 0) + B + `decode_active_request_weight` · R, for a prompt of P
    tokens and blocks of b = `block_tokens`, where of each instance

    - T are the uncached prompt tokens of requests without a first token: charged when one is sent, by the whole blocks
      believed cached then; released at its first token, or its end;
    - C = `overlap_score_credit` / (1 + `overlap_score_credit_decay` · E) · ⌊hit · P / b⌋, with the excess
      E = (T - min T) / b / ⌈P / b⌉ over the candidates;
    - B are the distinct whole prompt blocks of the requests under way, this one's included; what several share counts
      once; a block that the prompt fills only partly, or that is output, does not count;
    - R are the requests under way.

    The lowest cost wins, ties at random; with a `temperature`, p ∝ exp(-(c - min c) / ((max c - min c) · temperature)).
    An instance that leaves is forgotten, with all that is under way there. The peer's index of cached blocks is the
    snapshot's hit ratio. Left out, as the peer has it off by default: shared caches, the queue in front of a busy
    fleet, output blocks, predicted prefill times. Left out too: host and disk tiers, which count where workers report
    them, and that it drops a request after an hour.

    Source: ai-dynamo/dynamo ``lib/kv-router/src/scheduling/selector`` (cost and pick) and
    ``lib/kv-router/src/sequences`` (loads), release 1.6.1, with the defaults of ``KvRouterConfig``.
    """

    prefill_load_scale: float = tunable(1.0, 0.1, 100.0, log=True)
    overlap_score_credit: float = tunable(1.0, 0.0, 2.0)
    overlap_score_credit_decay: float = tunable(0.0, 0.0, 4.0)
    decode_active_request_weight: float = tunable(0.0, 0.0, 256.0)
    temperature: float = tunable(0.0, 0.0, 1.0)
    block_tokens: int = 16

    name: ClassVar[str] = "dynamo-kv"
    fields: ClassVar[tuple[str, ...]] = (schema.HIT_RATIO,)
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(of_instance=4, of_pair=1, of_request=2)

    def __post_init__(self) -> None:
        """Refuse what the peer refuses."""
        if self.block_tokens < 1:
            raise ConfigError(f"block_tokens is {self.block_tokens}; expected 1 or more. Take the engines' block size")
        weights = ("prefill_load_scale", "overlap_score_credit", "overlap_score_credit_decay")
        for each in (*weights, "decode_active_request_weight"):
            value = getattr(self, each)
            if not (value >= 0.0 and math.isfinite(value)):
                raise ConfigError(f"{each} is {value:g}; expected 0 or more. Correct it")

    def pick(self) -> Pick:
        """Soften the pick by the temperature."""
        return Pick(temperature=self.temperature)

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the settings in the order that the rule reads them."""
        return Parameters.of(
            self.block_tokens,
            self.prefill_load_scale,
            self.overlap_score_credit,
            self.overlap_score_credit_decay,
            self.decode_active_request_weight,
        )
