"""AIBrix's ``power-of-two``: the better of two at random."""

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
from lodestar.pipeline.replay.routing.shared_rules import cost_by_better_of_two

__all__ = ["PowerOfTwo"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)


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
    cost_by_better_of_two(snapshot, candidates, cost)


@dataclass(frozen=True, slots=True)
class PowerOfTwo(Policy):
    """Of two different candidates at random, the one with fewer requests in flight; if as many, the first drawn.

    cost = -p with p = (2 · candidates with more in flight + other candidates with as many) / (m · (m - 1)) for m
    candidates; a single one has p = 1. An instance whose count is not known counts as idle.

    The gateway keeps these counts in Redis, one a model and instance, and counts a request as soon as it is routed.
    Left out: a count begins anew with each hour of the clock, and one that no request came to for five minutes is lost.

    Source: AIBrix ``pkg/plugins/gateway/algorithms/power_of_two.go``.
    """

    name: ClassVar[str] = "power-of-two"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS,)
    rule: ClassVar[LateFunction] = _rule

    def pick(self) -> Pick:
        """Draw by the probabilities themselves."""
        return Pick(weighted=True)
