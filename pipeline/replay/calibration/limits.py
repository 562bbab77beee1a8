"""The limits of a batch and of the cache, which latencies tell wherever the engine ran into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lodestar.pipeline.replay.calibration.capacity import Capacity
from lodestar.pipeline.replay.calibration.fleet import Fleet
from lodestar.pipeline.replay.calibration.forced import Forced
from lodestar.pipeline.replay.calibration.search import Fit, centers, fit_at, refine

__all__ = ["CAPACITIES", "HELD", "KINDS", "Limited", "find_limits", "likely_fleets"]

KINDS: Final = ("max_sequences", "max_batched_tokens", "kv_capacity_tokens")
#: Logs of factors on the capacity that are tried.
CAPACITIES: Final = (-0.7, -0.35, -0.2, -0.1, -0.05, -0.025, 0.025, 0.05, 0.1, 0.2, 0.35, 0.7)
#: Share of the objective that a capacity costs that is one standard error off what the log's usage tells.
HELD: Final = 0.01
_SEQUENCES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKENS: Final = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_AMPLE: Final = float(np.log(4.0))
_STARTS: Final = 1
_ROUNDS: Final = 6
_REFINED: Final = 2  # the best of each kind get coefficients of their own
_STEPS: Final = 2
#: Another limit must lower the objective by this share; one that raises it by half as much is ruled out.
_WORTH: Final = 0.02


@dataclass(frozen=True, slots=True)
class Limited:
    """A fleet with its limits, and the fit under them.

    Attributes:
        told: limit → whether the log tells it: all others that were tried fit worse.
    """

    fleet: Fleet
    fit: Fit
    told: dict[str, bool]


def likely_fleets(forced: Forced, fleet: Fleet, fewest: int) -> list[Fleet]:
    """Return the fleets with the limits of a batch and a cache from which a search is likely to find the right ones.

    A cache taken for too small passes for a limit of the batch and the other way about, so both are tried at once, at
    several scales of the coefficients.
    """
    fleets = [
        fleet.limited(max_sequences=each).resized(factor, fewest)
        for each in _SEQUENCES
        for factor in (0.0, _AMPLE)
        if each <= fleet.limits[0].max_batched_tokens
    ]
    costs = [min(fit_at(forced, other, center, center).objective for center in centers()) for other in fleets]
    return [fleets[k] for k in np.argsort(costs, kind="stable")[:_STARTS].tolist()]


def find_limits(forced: Forced, fleet: Fleet, fit: Fit, capacity: Capacity) -> Limited:
    """Try other limits and keep what fits best, one change at a time; the coefficients follow."""
    for _ in range(_ROUNDS):
        tried = {kind: _tried(forced, fit, capacity, _others(kind, fleet, capacity)) for kind in KINDS}
        now = _cost(fit, fleet, capacity)
        found = min((one for ones in tried.values() for one in ones), key=lambda one: one.cost)
        told = {
            kind: bool(min((one.cost for one in ones), default=np.inf) > (1 + _WORTH / 2) * now)
            for kind, ones in tried.items()
        }
        if found.cost > (1 - _WORTH) * now:
            break
        fleet, fit = found.fleet, found.fit
    return Limited(fleet, fit, told)


@dataclass(frozen=True, slots=True)
class _Tried:
    fleet: Fleet
    fit: Fit
    cost: float


def _tried(forced: Forced, fit: Fit, capacity: Capacity, fleets: list[Fleet]) -> list[_Tried]:
    """Replay other fleets, and refine the fit of the best of them."""
    found = []
    for fleet in fleets:
        at_once = fit_at(forced, fleet, fit.at, fit.center)
        found.append(_Tried(fleet, at_once, _cost(at_once, fleet, capacity)))
    found.sort(key=lambda one: one.cost)
    for k, one in enumerate(found[:_REFINED]):
        better = refine(forced, one.fleet, one.fit, _STEPS)
        found[k] = _Tried(one.fleet, better, _cost(better, one.fleet, capacity))
    return found


def _cost(fit: Fit, fleet: Fleet, capacity: Capacity) -> float:
    """Return the objective, with the pull of a logged usage on the capacity."""
    if not capacity.logged:
        return fit.objective
    off = np.log(fleet.typical("kv_capacity_tokens") / capacity.tokens) / capacity.error
    return fit.objective * (1 + HELD * float(off) ** 2)


def _others(kind: str, fleet: Fleet, capacity: Capacity) -> list[Fleet]:
    """Return the fleet with every other value of one kind of limit that an engine can have."""
    present, fewest = fleet.limits[0], capacity.fewest
    if kind == "kv_capacity_tokens":
        resized = [fleet.resized(factor, fewest) for factor in CAPACITIES]
        return [other for other in resized if other.typical(kind) > fewest]
    if kind == "max_sequences":
        known = [each for each in _SEQUENCES if each <= present.max_batched_tokens and each != present.max_sequences]
        others = [fleet.limited(max_sequences=each) for each in known]
        return others + ([] if capacity.logged else [other.resized(_AMPLE, fewest) for other in others])
    batches = [(tokens, True) for tokens in _TOKENS] + [(max(2048, fewest), False)]
    return [
        fleet.limited(
            max_batched_tokens=tokens, chunked_prefill=chunked, max_sequences=min(tokens, present.max_sequences)
        )
        for tokens, chunked in batches
        if (tokens, chunked) != (present.max_batched_tokens, present.chunked_prefill)
    ]
