"""AIBrix's ``least-request``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.routing.shared_rules import cost_by_inflight

__all__ = ["LeastRequest"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    cost_by_inflight(snapshot, candidates, cost)


@dataclass(frozen=True, slots=True)
class LeastRequest(Policy):
    """The fewest requests in flight that the gateway itself counts, ties at random.

    An instance whose count is not known counts as idle.

    Source: AIBrix ``pkg/plugins/gateway/algorithms/least_request.go``.
    """

    name: ClassVar[str] = "least-request"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS,)
    rule: ClassVar[LateFunction] = _rule
