"""What the log tells of each coefficient and limit, and what it leaves to the prior; in figures and in words."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.replay.calibration.bootstrap import Draws
from lodestar.pipeline.replay.calibration.capacity import Capacity
from lodestar.pipeline.replay.calibration.coefficients import NAMES, OVERHEAD, values_at
from lodestar.pipeline.replay.calibration.fleet import Fleet
from lodestar.pipeline.replay.calibration.search import Fit

__all__ = ["identified", "intervals", "limit_notes"]

Floats = NDArray[np.float64]

_NORMAL: Final = 1.96
#: An interval from end to end wider than this factor tells little,
_WIDE: Final = 3.0
#: nor does one that leaves so much of the prior's spread.
_LEFT: Final = 0.7


def identified(draws: Draws, capacity: Capacity, told: dict[str, bool]) -> dict[str, bool]:
    """Say of each coefficient and limit whether the log tells it."""
    wide = 2 * _NORMAL * draws.at.std(axis=0) > np.log(_WIDE)
    wide[OVERHEAD] = False  # it may be nothing, of which no factor makes an interval
    found = {name: bool(not wide[k] and draws.left[k] < _LEFT) for k, name in enumerate(NAMES)}
    return {**found, **told, "kv_capacity_tokens": bool(capacity.logged or draws.left[-1] < _LEFT)}


def intervals(fit: Fit, fleet: Fleet, draws: Draws) -> dict[str, tuple[float, float]]:
    """Return 95 % of each coefficient, in milliseconds, and of the typical capacity."""
    spread = _NORMAL * draws.at.std(axis=0)
    low, high = values_at(fit.at - spread), values_at(fit.at + spread)
    tokens, factor = fleet.typical("kv_capacity_tokens"), np.exp(_NORMAL * draws.capacity.std())
    return {
        **{name: (low[name], high[name]) for name in NAMES},
        "kv_capacity_tokens": (float(tokens / factor), float(tokens * factor)),
    }


def limit_notes(fleet: Fleet, capacity: Capacity, known: dict[str, bool]) -> list[str]:
    """Say in words where limits are from, and what is left open."""
    engine, tokens = fleet.limits[0], fleet.typical("kv_capacity_tokens")
    source = "logged usage tells" if capacity.logged else "latencies tell"
    told = source if known["kv_capacity_tokens"] else "the log does not tell"
    notes = [f"key-value capacity of {tokens:,.0f} tokens: {told}"]
    if capacity.test is not None and capacity.test.differ:
        sizes = ", ".join(f"{each.kv_capacity_tokens:,}" for each in fleet.limits)
        notes.append(f"key-value capacities differ (p = {capacity.test.p_value:.1g}): {sizes} tokens")
    prompts = "prompts in chunks" if engine.chunked_prefill else "prompts whole and before decoding"
    limits = {
        "max_sequences": f"at most {engine.max_sequences} requests at once",
        "max_batched_tokens": f"at most {engine.max_batched_tokens:,} tokens a step, {prompts}",
    }
    open_or_not = {True: "latencies tell", False: "the log does not tell"}
    notes += [f"{words}: {open_or_not[known[name]]}" for name, words in limits.items()]
    left_open = [name for name in NAMES if not known[name]]
    if left_open:
        notes.append(f"the log does not tell {', '.join(left_open)}: near what engines at large have")
    return notes
