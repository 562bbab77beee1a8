"""llm-d's predicted-latency profile: two affinity filters around a filter by SLO, then a draw by predicted headroom."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction, jit_inner
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import MODEL, Fleet, Models, Policy, model_field, tunable
from lodestar.pipeline.replay.routing.llm_d_scores import check_blocks, prefix_score
from lodestar.pipeline.replay.routing.pick import Pick
from lodestar.pipeline.replay.routing.shared_rules import known

__all__ = ["LlmDPredictedLatency"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_WAITING = schema.SNAPSHOT_FIELDS.index(schema.WAITING_REQUESTS)
_KV_USAGE = schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)

# Where settings stand in `Parameters.values`.
_STRICT, _LOOSE, _PENALTY, _EPSILON, _TTFT_SLO, _TPOT_SLO = 0, 1, 2, 3, 4, 5
_TTFT_WEIGHT, _TPOT_WEIGHT, _MOST, _BLOCK, _PREFIX = 6, 7, 8, 9, 10

#: While the rule works, `cost` says what becomes of a candidate: filtered out, kept and within its SLOs, kept and not
#: within them. What is done with has minus its probability there.
_OUT, _WITHIN, _BEYOND = 0.0, 1.0, 2.0
#: Kinds of candidates, the best first: only those of the best kind there is are scored.
_MEETS, _IDLE, _MISSES_TPOT, _MISSES_TTFT, _MISSES_BOTH = 0, 1, 2, 3, 4

_EPS: Final = 1e-9


class _Case(NamedTuple):
    """A decision at work, in one piece."""

    prompt_tokens: float
    snapshot: Floats
    predicted_ms: Floats
    candidates: Ints
    values: Floats
    cost: Floats


class _Scale(NamedTuple):
    """Least size and range of the headroom of candidates, and what each counts."""

    ttft_least: float
    ttft_range: float
    tpot_least: float
    tpot_range: float
    ttft_weight: float
    tpot_weight: float


@jit_inner
def _prefix(case: _Case, j: int) -> float:
    return prefix_score(case.snapshot[j, _HIT], case.prompt_tokens, case.values[_BLOCK], case.values[_PREFIX])


@jit_inner
def _headroom(case: _Case, j: int) -> tuple[float, float]:
    """Return what is left of the SLOs for TTFT and TPOT; a TPOT that is not predicted meets its SLO exactly."""
    ttft_ms, tpot_ms = case.predicted_ms[j, 0], case.predicted_ms[j, 1]
    return case.values[_TTFT_SLO] - ttft_ms, case.values[_TPOT_SLO] - tpot_ms if tpot_ms == tpot_ms else 0.0


@jit_inner
def _kind(case: _Case, j: int) -> int:
    ttft_ms, tpot_ms = _headroom(case, j)
    if ttft_ms >= 0.0 and tpot_ms >= 0.0:
        return _MEETS
    if known(case.snapshot[j, _INFLIGHT]) == 0.0:
        return _IDLE
    if ttft_ms >= 0.0:
        return _MISSES_TPOT
    return _MISSES_TTFT if tpot_ms >= 0.0 else _MISSES_BOTH


@jit_inner
def _keep_sticky(case: _Case, threshold: float, group: float) -> None:
    """Keep those of a group that have the prompt cached, unless these all answer too late."""
    sticky_ms, other_ms, sticky, others = np.inf, np.inf, 0, 0
    for j in case.candidates:
        if case.cost[j] == group:
            if _prefix(case, j) >= threshold:
                sticky, sticky_ms = sticky + 1, min(sticky_ms, case.predicted_ms[j, 0])
            else:
                others, other_ms = others + 1, min(other_ms, case.predicted_ms[j, 0])
    if sticky == 0 or others == 0 or 0.0 < case.values[_PENALTY] < sticky_ms - other_ms:
        return
    for j in case.candidates:
        if case.cost[j] == group and _prefix(case, j) < threshold:
            case.cost[j] = _OUT


@jit_inner
def _keep_best_kind(case: _Case, group: float) -> int:
    best = _MISSES_BOTH
    for j in case.candidates:
        if case.cost[j] == group:
            best = min(best, _kind(case, j))
    for j in case.candidates:
        if case.cost[j] == group and _kind(case, j) != best:
            case.cost[j] = _OUT
    return best


@jit_inner
def _scale(case: _Case, group: float) -> _Scale:
    ttft_least, ttft_most, tpot_least, tpot_most = np.inf, -np.inf, np.inf, -np.inf
    for j in case.candidates:
        if case.cost[j] == group:
            ttft_ms, tpot_ms = _headroom(case, j)
            ttft_least, ttft_most = min(ttft_least, abs(ttft_ms)), max(ttft_most, abs(ttft_ms))
            tpot_least, tpot_most = min(tpot_least, abs(tpot_ms)), max(tpot_most, abs(tpot_ms))
    ttft_range, tpot_range = ttft_most - ttft_least, tpot_most - tpot_least
    ttft_weight, tpot_weight = case.values[_TTFT_WEIGHT], case.values[_TPOT_WEIGHT]
    # What is the same for all tells nothing.
    if ttft_range <= _EPS < tpot_range:
        ttft_weight, tpot_weight = 0.0, 1.0
    elif tpot_range <= _EPS < ttft_range:
        ttft_weight, tpot_weight = 1.0, 0.0
    return _Scale(ttft_least, ttft_range, tpot_least, tpot_range, ttft_weight, tpot_weight)


@jit_inner
def _latency_score(case: _Case, j: int, scale: _Scale, most: bool) -> float:
    """Return 0.01 to 1, in whole hundredths: the more, the closer to the SLO, or if `most`, the farther from it."""
    ttft_ms, tpot_ms = _headroom(case, j)
    ttft = (abs(ttft_ms) - scale.ttft_least) / scale.ttft_range if scale.ttft_range > _EPS else 0.5
    tpot = (abs(tpot_ms) - scale.tpot_least) / scale.tpot_range if scale.tpot_range > _EPS else 0.5
    combined = scale.ttft_weight * ttft + scale.tpot_weight * tpot
    # The best would have 1.01; the scheduler cuts scores at 1.
    return min((math.floor((combined if most else 1.0 - combined) * 100.0) + 1.0) / 100.0, 1.0)


@jit_inner
def _draw_by_headroom(case: _Case, group: float, chance: float) -> None:
    """Share the chance of a group among those of its best kind, in proportion to their scores."""
    most = _keep_best_kind(case, group) == _MEETS and case.values[_MOST] > 0.0
    scale, total = _scale(case, group), 0.0
    for j in case.candidates:
        if case.cost[j] == group:
            total += _latency_score(case, j, scale, most)
    for j in case.candidates:
        if case.cost[j] == group:
            case.cost[j] = -chance * _latency_score(case, j, scale, most) / total


@jit_inner
def _draw_without_predictions(case: _Case) -> None:
    """Weigh by free KV cache, queue and prefix alike, in whole hundredths."""
    longest, third = 0.0, 1.0 / 3.0
    for j in case.candidates:
        longest = max(longest, known(case.snapshot[j, _WAITING]))
    for j in case.candidates:
        queue = (longest - known(case.snapshot[j, _WAITING])) / longest if longest > 0.0 else 1.0
        composite = third * (1.0 - known(case.snapshot[j, _KV_USAGE])) + third * queue + third * _prefix(case, j)
        case.cost[j] = -min(math.floor(100.0 * composite + 0.5) / 100.0, 1.0)


@jit_inner
def _set_apart(case: _Case) -> tuple[int, int]:
    """Part those within their SLOs from those beyond, and return how many there are of either."""
    within, beyond = 0, 0
    for j in case.candidates:
        if case.cost[j] == _WITHIN:
            if _kind(case, j) == _MEETS:
                within += 1
            else:
                beyond += 1
                case.cost[j] = _BEYOND
    return within, beyond


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
    values = parameters.values
    case = _Case(request.prompt_tokens, snapshot, predicted_ms, candidates, values, cost)
    for j in candidates:
        if math.isnan(predicted_ms[j, 0]):
            _draw_without_predictions(case)
            return
        cost[j] = _WITHIN
    _keep_sticky(case, values[_STRICT], _WITHIN)
    within, beyond = _set_apart(case)
    if beyond > 0:
        _keep_sticky(case, values[_LOOSE], _BEYOND)
        _draw_by_headroom(case, _BEYOND, values[_EPSILON] if within > 0 else 1.0)
    if within > 0:
        _keep_sticky(case, values[_LOOSE], _WITHIN)
        _draw_by_headroom(case, _WITHIN, 1.0 - values[_EPSILON] if beyond > 0 else 1.0)


@dataclass(frozen=True, slots=True)
class LlmDPredictedLatency(Policy):
    """Filters by prefix and by SLO, then a draw by predicted headroom; the cost is minus the exact probability.

    1. Affinity: of all candidates, keep those whose share of matched blocks is at least `strict_threshold`, unless
       there are none, or the best predicted TTFT among them is over `max_ttft_penalty_ms` worse than among the others.
    2. SLO: headroom = SLO - prediction, for TTFT and for TPOT. Where there are both, keep those with no negative
       headroom, and with probability `explore_beyond` the others instead.
    3. Affinity again, by `loose_threshold`, among those kept.
    4. Score those of the best kind there is: within both SLOs, else without a request in flight, else beyond the SLO
       for TPOT only, for TTFT only, for both. The sizes of headroom, each scaled to 0 to 1 among them and weighed by
       `ttft_weight` and `tpot_weight`, give c; one that is the same for all counts nothing. The score is
       (⌊100 · (1 - c)⌋ + 1) / 100, at most 1: the closest to its SLO first, on both sides of it. With
       ``headroom="most"``, c stands for 1 - c where the SLOs are met.
    5. Draw in proportion to the scores.

    An SLO of 0 is what llm-d has for a request without the header: all headroom is negative. Without a TPOT model only
    TTFT counts, as in llm-d without streaming. Where TTFT is not predicted, nothing is filtered, and free KV cache,
    queue (relative to the longest) and matched blocks weigh the draw, a third each. All requests have the same SLOs.
    Left out: admission of requests, and exploration in the affinity filters, which is off by default.

    Source: llm-d/llm-d-router, below ``pkg/epp/framework/plugins``: ``scheduling/filter/prefixcacheaffinity``,
    ``scheduling/filter/sloheadroomtier``, ``scheduling/scorer/latency``, ``scheduling/picker/weightedrandom``,
    ``requestcontrol/dataproducer/predictedlatency/prediction.go``. Profile and settings: llm-d/llm-d
    ``guides/predicted-latency-routing/router/predicted-latency-slo.values.yaml``.

    Attributes:
        strict_threshold: see 1.
        loose_threshold: see 3.
        max_ttft_penalty_ms: see 1; 0 is no limit.
        explore_beyond: see 2.
        ttft_slo_ms: for every request; 0 is none.
        tpot_slo_ms: the same.
        ttft_weight: see 4.
        tpot_weight: see 4.
        headroom: "least" or "most", see 4.
        block_tokens: of the router's prefix index. llm-d takes the engine's block, but at least 64.
        max_prefix_tokens: how much of a prompt is looked up.
    """

    strict_threshold: float = tunable(0.99, 0.5, 1.0)
    loose_threshold: float = tunable(0.8, 0.0, 1.0)
    max_ttft_penalty_ms: float = tunable(5000.0, 10.0, 60_000.0, log=True)
    explore_beyond: float = 0.01
    ttft_slo_ms: float = 0.0
    tpot_slo_ms: float = 0.0
    ttft_weight: float = tunable(0.8, 0.0, 1.0)
    tpot_weight: float = tunable(0.2, 0.0, 1.0)
    headroom: str = "least"
    block_tokens: float = 64.0
    max_prefix_tokens: float = 262_144.0
    models: Models = model_field()

    name: ClassVar[str] = "llm-d-predicted-latency"
    fields: ClassVar[tuple[str, ...]] = (schema.HIT_RATIO, schema.INFLIGHT_REQUESTS)
    rule: ClassVar[LateFunction] = _rule
    predictor: ClassVar[int] = MODEL

    def __post_init__(self) -> None:
        """Refuse what llm-d refuses."""
        check_blocks(self.block_tokens, self.max_prefix_tokens)
        if self.headroom not in ("least", "most"):
            raise ConfigError(f"headroom is {self.headroom!r}; expected least or most")
        for name in ("strict_threshold", "loose_threshold", "explore_beyond"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        for name in ("max_ttft_penalty_ms", "ttft_slo_ms", "tpot_slo_ms", "ttft_weight", "tpot_weight"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")

    def pick(self) -> Pick:
        """Draw by the probabilities that the rule works out."""
        return Pick(weighted=True)

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the settings in the order in which the rule reads them."""
        both = self.ttft_weight + self.tpot_weight
        return Parameters.of(
            self.strict_threshold,
            self.loose_threshold,
            self.max_ttft_penalty_ms,
            self.explore_beyond,
            self.ttft_slo_ms,
            self.tpot_slo_ms,
            self.ttft_weight / both if both > 0.0 else 1.0,
            self.tpot_weight / both if both > 0.0 else 0.0,
            float(self.headroom == "most"),
            self.block_tokens,
            self.max_prefix_tokens,
        )
