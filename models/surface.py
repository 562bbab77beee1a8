"""Where a fitted surface defies physics: steps that slow any engine down, and how often a prediction falls by them.

Trees may be kept monotone in each feature by itself (`lodestar.models.monotone`), but LightGBM refuses that for
quantiles, terms of the baseline may have either sign, and what happens to a candidate moves several features at once.
So the whole model is asked, on real rows::

    before, steps = logged_steps(log, snapshot)
    table = violations(model.predict, before, steps)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.log import RequestLog
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.slices import SLICES, load_slice

__all__ = ["DECODING", "LESS_CACHED", "LONGER_PROMPT", "STEPS", "WAITING", "logged_steps", "violations"]

Floats = NDArray[np.float64]
Snapshot = Mapping[str, Floats]

WAITING: Final = "one more waiting request"
DECODING: Final = "one more decoding request"
LONGER_PROMPT: Final = "1000 more prompt tokens"
LESS_CACHED: Final = "10 points less cached"
STEPS: Final = (WAITING, DECODING, LONGER_PROMPT, LESS_CACHED)

_TOKENS: Final = 1000.0
_POINTS: Final = 0.1
_ROUNDING: Final = 1e-9  # share of a prediction that sums in another order can differ by


def logged_steps(log: RequestLog, snapshot: Snapshot) -> tuple[Floats, dict[str, Floats]]:
    """Return the features of the chosen candidates, and what they are after each of `STEPS`; shape (n, k) each.

    The snapshot of the chosen candidate takes the step and `candidate_features` is computed anew, so that all that
    derives from it moves along. A waiting request has a prompt of the median length; a decoding one has generated the
    median of what requests past their first token have. A hit ratio falls to 0 at the least.

    Args:
        log: the decisions.
        snapshot: field → values, shape (n, m), without gaps that can be filled: see `complete_snapshot`.
    """
    decided = log.chosen >= 0
    at = np.flatnonzero(decided), log.chosen[decided]
    typical = _typical_request(log, snapshot)
    after = {
        step: _features(log, {name: _moved(values, at, moves.get(name, 0.0)) for name, values in snapshot.items()})
        for step, moves in _moves(*typical).items()
    }
    prompt_tokens = np.where(log.prompt_tokens > 0, log.prompt_tokens + int(_TOKENS), log.prompt_tokens)
    after[LONGER_PROMPT] = _features(replace(log, prompt_tokens=prompt_tokens), snapshot)
    cached = _moved(snapshot[schema.HIT_RATIO], at, -_POINTS)
    after[LESS_CACHED] = _features(log, {**snapshot, schema.HIT_RATIO: np.where(cached < 0.0, 0.0, cached)})
    return _features(log, snapshot), {step: after[step] for step in STEPS}


def _moves(prompt_tokens: float, generated_tokens: float) -> dict[str, dict[str, float]]:
    """Return by how much one more request moves each field of the snapshot."""
    return {
        WAITING: {
            schema.INFLIGHT_REQUESTS: 1.0,
            schema.WAITING_REQUESTS: 1.0,
            schema.INFLIGHT_PREFILL_REQUESTS: 1.0,
            schema.PREFILL_TOKENS: prompt_tokens,
        },
        DECODING: {
            schema.INFLIGHT_REQUESTS: 1.0,
            schema.RUNNING_REQUESTS: 1.0,
            schema.INFLIGHT_DECODE_REQUESTS: 1.0,
            schema.DECODE_TOKENS: generated_tokens,
        },
    }


def _moved(values: Floats, at: tuple[Any, Any], by: float) -> Floats:
    if by == 0.0:
        return values
    moved = values.copy()
    moved[at] += by
    return moved


def _features(log: RequestLog, snapshot: Snapshot) -> Floats:
    return chosen_features(log, decision_features(log, dict(snapshot)))


def _typical_request(log: RequestLog, snapshot: Snapshot) -> tuple[float, float]:
    return _typical(
        log.prompt_tokens.astype(np.float64), snapshot[schema.DECODE_TOKENS], snapshot[schema.INFLIGHT_DECODE_REQUESTS]
    )


def _typical(prompt_tokens: Floats, decode_tokens: Floats, decoding: Floats) -> tuple[float, float]:
    """Return the median prompt, and the median of the tokens that a decoding request has generated; 0 for none."""
    generated = decode_tokens[decoding > 0] / decoding[decoding > 0]
    medians = [
        float(np.median(known)) if len(known) else 0.0
        for known in (prompt_tokens[prompt_tokens > 0], generated[~np.isnan(generated)])
    ]
    return medians[0], medians[1]


def violations(
    predict: Callable[[Floats], Floats], before: Floats, steps: Mapping[str, Floats]
) -> list[dict[str, Any]]:
    """Tabulate how often, and how far, a prediction falls by a step that can only slow an engine down.

    Args:
        predict: rows of features → ms: `model.predict`, or one of its quantiles.
        before: rows, shape (n, k).
        steps: name of the step → the same rows after it. A row that it leaves as it is, because nothing that it moves
            is known there, or no hit is left to lose, is not counted.

    Returns:
        One line a step and load slice ('all' first): 'step', 'waiting_requests' (the slice), 'rows' that took the step,
        'falls' (their share whose prediction fell), 'mean_fall_ms' and 'mean_fall_ratio' of those that fell, and
        'worst_fall_ms' and 'worst_fall_ratio'; the falls are 0 where none did. Slices without rows are left out.

    >>> from lodestar.features.definitions import FEATURE_NAMES
    >>> before = np.zeros((4, len(FEATURE_NAMES)))
    >>> waiting = np.eye(len(FEATURE_NAMES))[FEATURE_NAMES.index("waiting_requests")]
    >>> table = violations(lambda rows: 90.0 - 9.0 * rows @ waiting, before, {WAITING: before + waiting})
    >>> [(line["waiting_requests"], line["falls"], line["worst_fall_ms"], line["mean_fall_ratio"]) for line in table]
    [('all', 1.0, 9.0, 0.1), ('0', 1.0, 9.0, 0.1)]
    """
    before_ms, of_slice = predict(before), load_slice(before)
    table = []
    for step, after in steps.items():
        moved = ~((after == before) | (np.isnan(after) & np.isnan(before))).all(axis=1)
        fall_ms = before_ms - predict(after)
        for name, inside in [("all", moved), *((SLICES[s], moved & (of_slice == s)) for s in range(len(SLICES)))]:
            if inside.any():
                table.append({"step": step, "waiting_requests": name} | _falls(fall_ms[inside], before_ms[inside]))
    return table


def _falls(fall_ms: Floats, before_ms: Floats) -> dict[str, Any]:
    fell = fall_ms > _ROUNDING * before_ms
    ms = fall_ms[fell] if fell.any() else np.zeros(1)
    ratio = fall_ms[fell] / before_ms[fell] if fell.any() else np.zeros(1)
    return {
        "rows": len(fall_ms),
        "falls": float(fell.mean()),
        "mean_fall_ms": float(ms.mean()),
        "mean_fall_ratio": float(ratio.mean()),
        "worst_fall_ms": float(ms.max()),
        "worst_fall_ratio": float(ratio.max()),
    }
