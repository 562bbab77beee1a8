"""The scores of llm-d's router that its default profile adds up, and that others of its policies use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction, jit_inner
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import Fleet, Policy, tunable
from lodestar.pipeline.replay.routing.shared_rules import known

__all__ = ["LlmDScores", "check_blocks", "prefix_score"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_WAITING = schema.SNAPSHOT_FIELDS.index(schema.WAITING_REQUESTS)
_KV_USAGE = schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)


def check_blocks(block_tokens: float, max_prefix_tokens: float) -> None:
    """Refuse blocks that can't be counted.

    Raises:
        ConfigError: a block is empty, or not one fits into the prefix that is looked up.
    """
    if not 1 <= block_tokens <= max_prefix_tokens:
        raise ConfigError(
            f"block_tokens is {block_tokens:g}; expected 1 to max_prefix_tokens, which is "
            f"{max_prefix_tokens:g}. Correct one of them"
        )


@jit_inner
def prefix_score(hit_ratio: float, prompt_tokens: float, block_tokens: float, max_prefix_tokens: float) -> float:
    """Return matched blocks by all blocks of a prompt; its last, partly filled block counts as one.

    Only the first blocks are looked up, as many as fit into `max_prefix_tokens`.
    """
    total = min(math.ceil(prompt_tokens / block_tokens), math.floor(max_prefix_tokens / block_tokens))
    if total <= 0.0:
        return 0.0
    if hit_ratio >= 1.0:
        return 1.0
    # A ratio that stands for a whole number of blocks gives that number.
    matched = math.floor(known(hit_ratio) * prompt_tokens / block_tokens + 1e-6)
    return min(matched, total) / total


@jit_inner
def _clamped(score: float) -> float:
    return min(max(score, 0.0), 1.0)


@jit_inner
def _queue_score(waiting: float, least: float, most: float) -> float:
    return (most - waiting) / (most - least) if most > least else 1.0


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
    least, most = np.inf, -np.inf
    for j in candidates:
        waiting = known(snapshot[j, _WAITING])
        least, most = min(least, waiting), max(most, waiting)
    for j in candidates:
        queue = _queue_score(known(snapshot[j, _WAITING]), least, most)
        free = _clamped(1.0 - known(snapshot[j, _KV_USAGE]))
        prefix = prefix_score(snapshot[j, _HIT], request.prompt_tokens, values[3], values[4])
        cost[j] = -(queue * values[0] + free * values[1] + prefix * values[2])


@dataclass(frozen=True, slots=True)
class LlmDScores(Policy):
    """What the policies that add up llm-d's scores have in common: the cost is minus the sum.

    sum = `queue_weight` · (max q - q) / (max q - min q) + `kv_weight` · (1 - u) + `prefix_weight` · matched / blocks

    for q requests waiting and a share u of the KV cache in use, as the engine last told; the first score is 1 wherever
    all q are equal, and each is kept within 0 and 1. An instance that has not told anything yet counts as empty.

    Attributes:
        queue_weight: of the requests waiting.
        kv_weight: of the free part of the KV cache.
        prefix_weight: of the cached part of the prompt.
        block_tokens: of the router's prefix index. llm-d takes the engine's block, but at least 64.
        max_prefix_tokens: how much of a prompt is looked up.
    """

    queue_weight: float = tunable(2.0, 0.0, 10.0)
    kv_weight: float = tunable(2.0, 0.0, 10.0)
    prefix_weight: float = tunable(3.0, 0.0, 10.0)
    block_tokens: float = 64.0
    max_prefix_tokens: float = 131_072.0

    fields: ClassVar[tuple[str, ...]] = (schema.HIT_RATIO, schema.WAITING_REQUESTS, schema.KV_USAGE_RATIO)
    rule: ClassVar[LateFunction] = _rule

    def __post_init__(self) -> None:
        """Refuse settings that make no score."""
        check_blocks(self.block_tokens, self.max_prefix_tokens)
        for name in ("queue_weight", "kv_weight", "prefix_weight"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return weights and blocks."""
        return Parameters.of(
            self.queue_weight, self.kv_weight, self.prefix_weight, self.block_tokens, self.max_prefix_tokens
        )
