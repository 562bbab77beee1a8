"""AIBrix's ``prefix-cache``: the heuristic that learned routers are measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import Fleet, Policy, tunable
from lodestar.pipeline.replay.routing.shared_rules import cost_by_prefix_cache

__all__ = ["AibrixPrefixCache"]

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
    cost_by_prefix_cache(snapshot, candidates, parameters.values[0], parameters.values[1], cost)


@dataclass(frozen=True, slots=True)
class AibrixPrefixCache(Policy):
    """The longest cached prefix among instances that are not overloaded.

    With counts c of requests in flight: if max c - min c > `imbalance_requests`, a random instance with the fewest.
    Otherwise, of the instances with a match, sorted by (match descending, c ascending), the first with
    c ≤ mean + `deviations` · sample deviation; with no such instance, least-request. Ties at random.

    Source: AIBrix ``pkg/plugins/gateway/algorithms/prefix_cache.go``, defaults of
    ``AIBRIX_PREFIX_CACHE_POD_RUNNING_REQUEST_IMBALANCE_ABS_COUNT`` and
    ``AIBRIX_PREFIX_CACHE_STANDARD_DEVIATION_FACTOR``.
    """

    imbalance_requests: float = tunable(8.0, 1.0, 64.0, log=True, whole=True)
    deviations: float = tunable(1.0, 0.0, 4.0)

    name: ClassVar[str] = "aibrix-prefix-cache"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS, schema.HIT_RATIO)
    rule: ClassVar[LateFunction] = _rule

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the two limits."""
        return Parameters.of(self.imbalance_requests, self.deviations)
