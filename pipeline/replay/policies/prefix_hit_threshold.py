"""Where most of the prompt is cached, if that is enough of it; else least-request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import Fleet, Policy, tunable
from lodestar.pipeline.replay.routing.shared_rules import cost_by_inflight, whole_percent

__all__ = ["PrefixHitThreshold"]

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
    best = 0.0
    for j in candidates:
        # The peer's index counts whole percent of matched blocks.
        percent = whole_percent(snapshot[j, _HIT])
        cost[j] = 100.0 - percent
        best = max(best, percent)
    if not best > parameters.values[0]:
        cost_by_inflight(snapshot, candidates, cost)


@dataclass(frozen=True, slots=True)
class PrefixHitThreshold(Policy):
    """The instance with the most of the prompt cached, if that is more than `tau` of it; else least-request.

    Shares are whole percent, and exactly `tau` is not enough. cost = 100 - percent cached, or the requests in flight.
    Ties at random: of equal shares the peer takes the first in the order of a Go map, which is random; load does not
    decide between them. What is not known counts as 0.

    Source: gangmuk/Lodestar ``pkg/plugins/gateway/algorithms/prefix_cache.go``,
    ``prefix_hit_threshold_or_least_request``, default of ``PREFIX_HIT_THRESHOLD``.
    """

    tau: float = tunable(0.5, 0.0, 1.0, most=1.0)

    name: ClassVar[str] = "prefix-hit-threshold"
    fields: ClassVar[tuple[str, ...]] = (schema.HIT_RATIO, schema.INFLIGHT_REQUESTS)
    rule: ClassVar[LateFunction] = _rule

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0.0 <= self.tau <= 1.0:
            raise ConfigError(f"tau is {self.tau:g}; expected a share of the prompt, 0 to 1, such as tau=0.5")

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the threshold in percent."""
        return Parameters.of(round(100.0 * self.tau, 9))  # 0.29 is 29 %, not a little less
