"""The fewest prompt tokens ahead, cached or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.routing.shared_rules import known

__all__ = ["LeastPrefillTokens"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PREFILL_TOKENS = schema.SNAPSHOT_FIELDS.index(schema.PREFILL_TOKENS)


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
        cost[j] = known(snapshot[j, _PREFILL_TOKENS])


@dataclass(frozen=True, slots=True)
class LeastPrefillTokens(Policy):
    """The fewest prompt tokens of requests that were sent there and have no first token yet, ties at random.

    What is cached of them counts like the rest; `least-uncached-tokens` leaves it out. An instance whose count is not
    known counts as idle.

    Source: gangmuk/Lodestar ``pkg/plugins/gateway/algorithms/least_prefill_tokens.go``.
    """

    name: ClassVar[str] = "least-prefill-tokens"
    fields: ClassVar[tuple[str, ...]] = (schema.PREFILL_TOKENS,)
    rule: ClassVar[LateFunction] = _rule
