"""Lodestar as published: the best predicted reward, with a cold start, a filter for full caches, and exploration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import LateFunction, jit_inner
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
    Event,
    Memory,
    MemoryShape,
    Parameters,
    Prefixes,
    Request,
    notice_function,
    rule_function,
)
from lodestar.pipeline.replay.routing.contract import MODEL, Fleet, Models, Policy, model_field, tunable
from lodestar.pipeline.replay.routing.pick import Pick
from lodestar.pipeline.replay.routing.shared_rules import cost_by_prefix_cache, known

__all__ = ["Lodestar"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_KV_USAGE = schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)
_IMBALANCE, _DEVIATIONS = 8.0, 1.0  # of the fallback, AIBrix's prefix-cache
_WORTH_TOKENS = 100.0  # a smaller hit keeps nobody from going elsewhere


@jit_inner
def _group(request: Request, prefixes: Prefixes, depth_tokens: float) -> int:
    """Return the prefix node in which the prompt reaches a depth, or its last one; -1 where nothing is shared."""
    node = -1
    for at in range(request.path_from, request.path_to):
        node = prefixes.path[at]
        if prefixes.node_end[node] >= depth_tokens:
            break
    return node


@jit_inner
def _mixed(group: int, salt: int) -> np.uint64:
    """Hash a group with a salt (SplitMix64's finaliser)."""
    x = np.uint64(group) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt + 1) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@jit_inner
def _saturated(request: Request, snapshot: Floats, candidates: Ints, usage_ratio: float) -> bool:
    """Say whether the caches are so full, and a hit so large, that it should not be spread."""
    usage, hit = 0.0, 0.0
    for j in candidates:
        usage += known(snapshot[j, _KV_USAGE])
        hit = max(hit, known(snapshot[j, _HIT]))
    return usage > usage_ratio * len(candidates) and hit * request.prompt_tokens > _WORTH_TOKENS


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
    if memory.numbers[0] < parameters.values[0]:
        cost_by_prefix_cache(snapshot, candidates, _IMBALANCE, _DEVIATIONS, cost)
        return
    kept, group = int(parameters.values[1]), _group(request, prefixes, parameters.values[3])
    if kept == 0 or group < 0 or not _saturated(request, snapshot, candidates, parameters.values[2]):
        for j in candidates:
            cost[j] = predicted_ms[j, 0] / 1e3
        return
    for salt in range(kept):
        j = candidates[int(_mixed(group, salt) % np.uint64(len(candidates)))]
        cost[j] = predicted_ms[j, 0] / 1e3


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind == DONE and event.output_tokens > 0.0:
        memory.numbers[0] += 1.0


@dataclass(frozen=True, slots=True)
class Lodestar(Policy):
    """The highest predicted reward, -TTFT in seconds, ties at random.

    Until `cold_start_requests` have been answered, AIBrix's ``prefix-cache`` decides. While the mean cache usage is
    above `saturation_ratio` and the best hit is worth more than 100 tokens, only `filtered_instances` instances that a
    hash of the prefix group names are considered, so that no widely shared prefix is evicted; the group is the prefix
    at `group_depth_tokens`. With probability `exploration`, any instance.

    Source: gangmuk/Lodestar ``pkg/plugins/gateway/algorithms/rl_routing.go`` and its routing service, with
    gradient-boosted trees for the network, which come trained. Defaults as its experiments ran: no filter (2 instances
    in its README), no exploration, and no cold start, since the model is there; theirs began with 5,000 requests. Their
    dropout at inference and the features that were empty at inference are defects, and left out.
    """

    cold_start_requests: int = 0
    filtered_instances: int = tunable(0, 0, 4, whole=True)
    saturation_ratio: float = tunable(0.8, 0.3, 1.0, most=1.0)
    group_depth_tokens: int = 10
    exploration: float = field(default=0.0, metadata={"most": 1.0})
    models: Models = model_field()

    name: ClassVar[str] = "lodestar"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS, schema.HIT_RATIO)
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(numbers=1)
    predictor: ClassVar[int] = MODEL

    def pick(self) -> Pick:
        """Return the best, with exploration."""
        return Pick(epsilon=self.exploration)

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the settings of cold start and filter."""
        return Parameters.of(
            self.cold_start_requests, self.filtered_instances, self.saturation_ratio, self.group_depth_tokens
        )
