"""Whether engines keep the prefixes of finished requests, as far as latencies tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.replay.calibration.blocks import block_draws
from lodestar.pipeline.replay.calibration.fleet import Fleet
from lodestar.pipeline.replay.calibration.forced import Forced
from lodestar.pipeline.replay.calibration.per_instance import best_slowness
from lodestar.pipeline.replay.calibration.search import Fit, refine

__all__ = ["Caching", "find_caching"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FEWEST: Final = 30  # requests that share a prefix with an earlier one on their instance
_STEPS: Final = 3
_WORTH: Final = 0.02
_DRAWS: Final = 100
_SIGMAS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Caching:
    """A fleet whose engines cache prefixes or do not, the fit, and what the log told of it."""

    fleet: Fleet
    fit: Fit
    note: str


def find_caching(forced: Forced, fleet: Fleet, fit: Fit, names: list[str]) -> Caching:
    """Fit with and without prefix caching; then see for each instance which of the two gives its latencies."""
    cached = forced.outcome(fleet.at(fit.at)).cached_tokens > 0
    if cached.sum() < _FEWEST:
        why = f"{cached.sum()} requests share a prefix with an earlier one on their instance"
        return Caching(fleet, fit, f"prefix caching is assumed: {why}")
    without = fleet.limited(prefix_caching=False)
    off = refine(forced, without, fit, _STEPS)
    if off.objective < (1 - _WORTH) * fit.objective:
        fleet, fit = without, off
    kept = np.array([engine.prefix_caching for engine in fleet.limits])
    kept ^= _better_otherwise(forced, fleet, fit, cached)
    if (kept != [engine.prefix_caching for engine in fleet.limits]).any():
        fleet = fleet.each("prefix_caching", kept.tolist())
        fit = refine(forced, fleet, fit, _STEPS)
    none = [name for name, each in zip(names, kept, strict=True) if not each]
    where = "no instance" if len(none) == len(names) else f"all but {', '.join(none)}" if none else "every instance"
    return Caching(fleet, fit, f"prefix caching on {where}, as the latencies of {cached.sum()} requests tell")


def _better_otherwise(forced: Forced, fleet: Fleet, fit: Fit, cached: Bools) -> Bools:
    """Say which instances' latencies are closer when the caching is the other way about, far beyond their error.

    Each way has its own slowness: a slow instance must not pass for one that does not cache.
    """
    kept = np.array([engine.prefix_caching for engine in fleet.limits])
    there, otherwise = (_apart(forced, fleet.each("prefix_caching", way.tolist()), fit) for way in (kept, ~kept))
    of_each = forced.instance[:, None] == np.arange(len(kept))
    gain = (there - otherwise)[:, None] * of_each
    drawn = np.stack([forced.weights(counts) @ gain for counts in block_draws(len(forced.choices), _DRAWS)])
    enough = np.bincount(forced.choices[cached], minlength=len(kept)) >= _FEWEST
    better: Bools = enough & (gain.sum(axis=0) > _SIGMAS * drawn.std(axis=0))
    return better


def _apart(forced: Forced, fleet: Fleet, fit: Fit) -> Floats:
    slow = best_slowness(forced, fleet, fit.at)
    return np.abs(forced(fleet.slowed(slow).at(fit.at)) - forced.logged)
