"""AIBrix's ``least-kv-cache``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.routing.pick import Pick

__all__ = ["LeastKvCache"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_KV_USAGE = schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)


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
        usage = snapshot[j, _KV_USAGE]
        if usage == usage:  # not NaN
            cost[j] = usage


@dataclass(frozen=True, slots=True)
class LeastKvCache(Policy):
    """The lowest share of KV blocks in use, on GPU and CPU together.

    An instance that has not told its share yet is passed over while another has; if none has, any of them at random.
    The CPU's share is 0, as the gateway reads engines that do not report one; vLLM no longer does.

    Ties: AIBrix picks at random since it scores all its simple strategies alike; up to the summer of 2026, the last in
    the list won (`ties` = last).

    Source: AIBrix ``pkg/plugins/gateway/algorithms/least_kv_cache.go``.
    """

    ties: str = "random"

    name: ClassVar[str] = "least-kv-cache"
    fields: ClassVar[tuple[str, ...]] = (schema.KV_USAGE_RATIO,)
    rule: ClassVar[LateFunction] = _rule

    def __post_init__(self) -> None:
        """Refuse an unknown tie rule."""
        self.pick()

    def pick(self) -> Pick:
        """Settle ties as told."""
        return Pick(ties=self.ties)
