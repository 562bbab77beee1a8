"""AIBrix's ``prefix-cache``: the heuristic that learned routers are measured against."""

from __future__ import annotations

import math
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
from lodestar.pipeline.replay.policies.least_request import mark_least_loaded

__all__ = ["AibrixPrefixCache"]

Floats = NDArray[np.float64]

_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)


@policy_function
def _rule(prompt_tokens: float, snapshot: Floats, parameters: Parameters, probability: Floats) -> None:
    imbalance, deviations = parameters.values[0], parameters.values[1]
    least, most, total, squares, candidates = np.inf, -np.inf, 0.0, 0.0, 0
    for j in range(len(probability)):
        if is_candidate(snapshot, j):
            load = snapshot[j, _INFLIGHT]
            least, most = min(least, load), max(most, load)
            total += load
            squares += load * load
            candidates += 1
    mean = total / candidates
    # Go's sample deviation of one pod is NaN, which admits nothing: least-request decides.
    limit = np.nan
    if candidates > 1:
        limit = mean + deviations * math.sqrt(max(squares - candidates * mean * mean, 0.0) / (candidates - 1))
    best_percent, best_load = 0.0, np.inf
    for j in range(len(probability)):
        # AIBrix counts whole percent of matched blocks.
        percent = math.floor(100.0 * snapshot[j, _HIT] + 1e-9)
        load = snapshot[j, _INFLIGHT]
        if (
            percent > 0.0
            and load <= limit
            and (percent > best_percent or (percent == best_percent and load < best_load))
        ):
            best_percent, best_load = percent, load
    if most - least > imbalance or best_percent == 0.0:
        mark_least_loaded(prompt_tokens, snapshot, parameters, probability)
        return
    for j in range(len(probability)):
        percent = math.floor(100.0 * snapshot[j, _HIT] + 1e-9)
        probability[j] = 1.0 if percent == best_percent and snapshot[j, _INFLIGHT] == best_load else 0.0
    spread(probability)


@dataclass(frozen=True, slots=True)
class AibrixPrefixCache:
    """The longest cached prefix among instances that are not overloaded.

    With counts c of requests in flight: if max c - min c > `imbalance_requests`, a random instance with the fewest.
    Otherwise, of the instances with a match, sorted by (match descending, c ascending), the first with
    c ≤ mean + `deviations` · sample deviation; with no such instance, least-request. Ties at random.

    Source: AIBrix ``pkg/plugins/gateway/algorithms/prefix_cache.go``, defaults of
    ``AIBRIX_PREFIX_CACHE_POD_RUNNING_REQUEST_IMBALANCE_ABS_COUNT`` and
    ``AIBRIX_PREFIX_CACHE_STANDARD_DEVIATION_FACTOR``.
    """

    imbalance_requests: float = 8.0
    deviations: float = 1.0

    name: ClassVar[str] = "aibrix-prefix-cache"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS, schema.HIT_RATIO)

    @property
    def rule(self) -> Rule:
        """Return the compiled rule."""
        return _rule

    def parameters(self) -> Parameters:
        """Return the two limits."""
        return Parameters.of(self.imbalance_requests, self.deviations)
