"""What is searched for: coefficients, on scales where equal steps matter equally, and how weakly they are held."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.engine import EngineModel

__all__ = [
    "NAMES",
    "OVERHEAD",
    "RELATED",
    "START",
    "center_of",
    "coefficients_of",
    "engine_at",
    "penalty",
    "precision",
    "values_at",
]

Floats = NDArray[np.float64]

#: Where the search starts: an 8B model on a mid-range GPU. The scale of all but the overhead is searched first, so that
#: a much faster or slower engine is found as well.
START: Final = {
    "decode_base_ms": 20.0,
    "decode_sequence_ms": 0.04,
    "context_token_ms": 2e-4,
    "prefill_base_ms": 16.0,
    "prompt_token_ms": 0.15,
    "prefill_sequence_ms": 0.06,
    "prefill_context_token_ms": 2e-4,
    "attention_ms": 3e-6,
    "request_overhead_ms": 20.0,
}
NAMES: Final = tuple(START)
#: The one that may well be nothing: its scale is linear near zero and logarithmic far from it, 1 at the start.
OVERHEAD: Final = NAMES.index("request_overhead_ms")
_LEAST: Final = 1e-3
_OVERHEAD_MS: Final = START["request_overhead_ms"] / np.expm1(1.0)
#: A step that prefills does the same decoding beside it: these are held near their counterparts, whatever those are.
RELATED: Final = {
    "prefill_base_ms": "decode_base_ms",
    "prefill_sequence_ms": "decode_sequence_ms",
    "prefill_context_token_ms": "context_token_ms",
}
#: A weak prior: a coefficient that is a factor e from the scaled start costs this much loss. It decides only where the
#: log does not, such as between overhead and prompt work when arrival times are uncertain.
_HELD: Final = 0.03
#: The same for the ratio of two related ones: in measured step times these keep within a factor of two.
_HELD_RATIO: Final = 0.12


def values_at(at: Floats) -> dict[str, float]:
    """Return the coefficients in milliseconds.

    >>> {name: round(value, 6) for name, value in values_at(center_of()).items()} == START
    True
    """
    values = np.exp(at)
    values[OVERHEAD] = _OVERHEAD_MS * np.expm1(max(0.0, at[OVERHEAD]))
    return dict(zip(NAMES, values.tolist(), strict=True))


def coefficients_of(engine: EngineModel) -> Floats:
    """Return the coefficients of an engine on their scales; one that is zero, as the smallest that may be.

    >>> float(coefficients_of(engine_at(EngineModel(), center_of()))[OVERHEAD].round(6))
    1.0
    """
    at = np.log([max(getattr(engine, name), _LEAST * START[name]) for name in NAMES])
    at[OVERHEAD] = np.log1p(engine.request_overhead_ms / _OVERHEAD_MS)
    return at


def engine_at(engine: EngineModel, at: Floats) -> EngineModel:
    """Return the engine with these coefficients, its limits kept.

    >>> round(engine_at(EngineModel(), center_of()).decode_base_ms, 6)
    20.0
    """
    coefficients: dict[str, Any] = {**values_at(at)}
    return replace(engine, **coefficients)


def center_of() -> Floats:
    """Return the start."""
    center = np.log(list(START.values()))
    center[OVERHEAD] = 1.0
    return center


def precision() -> Floats:
    """Return the matrix whose quadratic form around the center is what the prior costs."""
    ways = np.eye(len(NAMES))
    held = np.full(len(NAMES), _HELD)
    for name, counterpart in RELATED.items():
        k = NAMES.index(name)
        ways[k, NAMES.index(counterpart)] = -1.0
        held[k] = _HELD_RATIO
    return ways.T @ (held[:, None] * ways)


def penalty(at: Floats, center: Floats) -> float:
    """Return what the prior adds to the loss."""
    off = at - center
    return float(off @ precision() @ off)
