"""The fewest uncached prompt tokens ahead, the request's own included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import (
    Memory,
    MemoryShape,
    Parameters,
    Prefixes,
    Request,
    rule_function,
)
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.routing.shared_rules import known
from lodestar.pipeline.replay.routing.uncached import UNCACHED, note_uncached

__all__ = ["LeastUncachedTokens"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)


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
        cost[j] = memory.of_instance[j, 0] + request.prompt_tokens * (1.0 - known(snapshot[j, _HIT]))


@dataclass(frozen=True, slots=True)
class LeastUncachedTokens(Policy):
    """The fewest uncached prompt tokens to compute before this request's first token, its own included.

    cost = Σ prompt · (1 - hit) over the requests sent there that have no first token yet + the request's own
    prompt · (1 - hit), where hit is what the router believed cached as it sent each. No parameter.

    Source: the first factor of LMETRIC (arXiv 2603.15202), alone.
    """

    name: ClassVar[str] = "least-uncached-tokens"
    fields: ClassVar[tuple[str, ...]] = (schema.HIT_RATIO,)
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = note_uncached
    memory: ClassVar[MemoryShape] = UNCACHED
