"""AIBrix's ``least-request``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.pipeline.replay.policies.contract import (
    Parameters,
    Rule,
    is_candidate,
    policy_function,
    spread,
)

__all__ = ["LeastRequest", "mark_least_loaded"]

Floats = NDArray[np.float64]

_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)


@policy_function
def mark_least_loaded(prompt_tokens: float, snapshot: Floats, parameters: Parameters, probability: Floats) -> None:
    """Split the probability among the candidates with the fewest requests in flight; none known counts as none."""
    least = np.inf
    for j in range(len(probability)):
        if is_candidate(snapshot, j):
            load = snapshot[j, _INFLIGHT]
            least = min(least, 0.0 if np.isnan(load) else load)
    for j in range(len(probability)):
        load = snapshot[j, _INFLIGHT]
        known = 0.0 if np.isnan(load) else load
        probability[j] = 1.0 if is_candidate(snapshot, j) and known == least else 0.0
    spread(probability)


@dataclass(frozen=True, slots=True)
class LeastRequest:
    """Argmin of the requests in flight that the gateway itself counts, ties at random.

    Source: AIBrix ``pkg/plugins/gateway/algorithms/least_request.go``.
    """

    name: ClassVar[str] = "least-request"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS,)

    @property
    def rule(self) -> Rule:
        """Return the compiled rule."""
        return mark_least_loaded

    def parameters(self) -> Parameters:
        """Return no settings."""
        return Parameters.of()
