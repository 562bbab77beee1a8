"""Every feature, defined once: training, serving and the replay kernel all call `candidate_features`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import jit

__all__ = ["FEATURES", "FEATURE_NAMES", "HIT_HALF_LIFE_S", "Feature", "candidate_features"]

Floats = NDArray[np.float64]

#: After this long without use a matched prefix counts half: it may have been evicted behind the router's back.
HIT_HALF_LIFE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Feature:
    """One number about one candidate, known when the router decides.

    Attributes:
        name: column of the feature matrix.
        unit: 'requests', 'tokens' or 'ratio' (0–1; a difference of ratios lies between -1 and 1).
        formula: in terms of the snapshot fields, ``prompt_tokens`` and the features above it; ``best(x)`` and
            ``mean(x)`` run over the candidates of the decision that have x.
        fields: snapshot fields it needs; it is missing (NaN) where one of them is.
    """

    name: str
    unit: str
    formula: str
    fields: tuple[str, ...]


_HIT, _INFLIGHT, _PREFILL = schema.HIT_RATIO, schema.INFLIGHT_REQUESTS, schema.PREFILL_TOKENS


def _copied(field: str, unit: str) -> Feature:
    return Feature(field, unit, field, (field,))


#: In the order of the feature matrix. None of them names the instance: a model must hold for one it has not seen.
FEATURES: Final[tuple[Feature, ...]] = (
    Feature(schema.PROMPT_TOKENS, "tokens", "prompt_tokens", ()),
    _copied(schema.INFLIGHT_PREFILL_REQUESTS, "requests"),
    _copied(schema.INFLIGHT_DECODE_REQUESTS, "requests"),
    _copied(schema.KV_USAGE_RATIO, "ratio"),
    _copied(schema.RUNNING_REQUESTS, "requests"),
    _copied(schema.WAITING_REQUESTS, "requests"),
    _copied(_PREFILL, "tokens"),
    _copied(schema.DECODE_TOKENS, "tokens"),
    _copied(_HIT, "ratio"),
    Feature(
        "fresh_hit_ratio", "ratio", "hit_ratio * exp(-ln 2 * last_access_age_s / 15)", (_HIT, schema.LAST_ACCESS_AGE_S)
    ),
    _copied(_INFLIGHT, "requests"),
    Feature("uncached_prompt_tokens", "tokens", "(1 - hit_ratio) * prompt_tokens", (_HIT,)),
    Feature("tokens_to_first_token", "tokens", "prefill_tokens + uncached_prompt_tokens", (_PREFILL, _HIT)),
    Feature(
        "queued_requests",
        "requests",
        "max(inflight_requests - running_requests, 0)",
        (_INFLIGHT, schema.RUNNING_REQUESTS),
    ),
    Feature("inflight_above_best", "requests", "inflight_requests - best(inflight_requests)", (_INFLIGHT,)),
    Feature("inflight_above_mean", "requests", "inflight_requests - mean(inflight_requests)", (_INFLIGHT,)),
    Feature("tokens_above_best", "tokens", "tokens_to_first_token - best(tokens_to_first_token)", (_PREFILL, _HIT)),
    Feature("tokens_above_mean", "tokens", "tokens_to_first_token - mean(tokens_to_first_token)", (_PREFILL, _HIT)),
    Feature("hit_above_best", "ratio", "hit_ratio - best(hit_ratio)", (_HIT,)),
    Feature("hit_above_mean", "ratio", "hit_ratio - mean(hit_ratio)", (_HIT,)),
)
FEATURE_NAMES: Final = tuple(feature.name for feature in FEATURES)

# Columns of the snapshot (S_) and of the features (F_), resolved once so that the kernel below reads plain numbers.
_S_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_S_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_S_RUNNING = schema.SNAPSHOT_FIELDS.index(schema.RUNNING_REQUESTS)
_S_WAITING = schema.SNAPSHOT_FIELDS.index(schema.WAITING_REQUESTS)
_S_KV = schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)
_S_PREFILL_REQUESTS = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_PREFILL_REQUESTS)
_S_DECODE_REQUESTS = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_DECODE_REQUESTS)
_S_PREFILL_TOKENS = schema.SNAPSHOT_FIELDS.index(schema.PREFILL_TOKENS)
_S_DECODE_TOKENS = schema.SNAPSHOT_FIELDS.index(schema.DECODE_TOKENS)
_S_AGE = schema.SNAPSHOT_FIELDS.index(schema.LAST_ACCESS_AGE_S)
_F_HIT = FEATURE_NAMES.index(schema.HIT_RATIO)
_F_INFLIGHT = FEATURE_NAMES.index(schema.INFLIGHT_REQUESTS)
_F_TOKENS = FEATURE_NAMES.index("tokens_to_first_token")
_F_INFLIGHT_ABOVE = FEATURE_NAMES.index("inflight_above_best")
_F_TOKENS_ABOVE = FEATURE_NAMES.index("tokens_above_best")
_F_HIT_ABOVE = FEATURE_NAMES.index("hit_above_best")
_DECAY_PER_S = math.log(2.0) / HIT_HALF_LIFE_S


@jit
def _compare(out: Floats, of: int, above_best: int, sign: float) -> None:
    """Write each candidate's distance from the best (sign 1: lowest, -1: highest) and from the mean candidate."""
    best, total, known = np.inf, 0.0, 0
    for j in range(out.shape[0]):
        value = out[j, of]
        if not np.isnan(value):
            best = min(best, sign * value)
            total += value
            known += 1
    mean = total / known
    for j in range(out.shape[0]):
        out[j, above_best] = out[j, of] - sign * best
        out[j, above_best + 1] = out[j, of] - mean


@jit
def candidate_features(prompt_tokens: float, snapshot: Floats, out: Floats) -> None:
    """Fill `out` (m, len(FEATURES)) for one decision from the snapshot (m, len(SNAPSHOT_FIELDS)); allocates nothing.

    A row of NaN is an instance that is not a candidate: its features but `prompt_tokens` are NaN, and no candidate is
    compared with it.

    >>> out = np.empty((2, len(FEATURES)))
    >>> candidate_features(1000.0, np.array([[0.25, 3, 2, 1, 0.1, 1, 2, 500, 60, np.nan], [0.0] * 10]), out)
    >>> {name: out[0, FEATURE_NAMES.index(name)].item() for name in ("uncached_prompt_tokens", "inflight_above_best")}
    {'uncached_prompt_tokens': 750.0, 'inflight_above_best': 3.0}
    """
    for j in range(snapshot.shape[0]):
        hit = snapshot[j, _S_HIT]
        uncached = (1.0 - hit) * prompt_tokens
        out[j, 0] = prompt_tokens
        out[j, 1] = snapshot[j, _S_PREFILL_REQUESTS]
        out[j, 2] = snapshot[j, _S_DECODE_REQUESTS]
        out[j, 3] = snapshot[j, _S_KV]
        out[j, 4] = snapshot[j, _S_RUNNING]
        out[j, 5] = snapshot[j, _S_WAITING]
        out[j, 6] = snapshot[j, _S_PREFILL_TOKENS]
        out[j, 7] = snapshot[j, _S_DECODE_TOKENS]
        out[j, 8] = hit
        out[j, 9] = hit * math.exp(-_DECAY_PER_S * snapshot[j, _S_AGE])
        out[j, 10] = snapshot[j, _S_INFLIGHT]
        out[j, 11] = uncached
        out[j, 12] = snapshot[j, _S_PREFILL_TOKENS] + uncached
        queued = snapshot[j, _S_INFLIGHT] - snapshot[j, _S_RUNNING]
        out[j, 13] = queued if not queued < 0.0 else 0.0  # a stale snapshot can run more than is in flight; NaN stays
    _compare(out, _F_INFLIGHT, _F_INFLIGHT_ABOVE, 1.0)
    _compare(out, _F_TOKENS, _F_TOKENS_ABOVE, 1.0)
    _compare(out, _F_HIT, _F_HIT_ABOVE, -1.0)
