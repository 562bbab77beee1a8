"""How uncertain the fit is: blocks of requests drawn anew, and the coefficients refitted to each draw.

A draw is refitted where the fit is nearly linear: with the slopes at the fit, once from there and once from where that
leads; the cache, whose effect is anything but linear, is chosen among a range of sizes. The center of the prior is
drawn as well, so that a coefficient that the log does not tell comes out as wide as what is known of engines at large,
not as narrow as the prior would hold it. Errors of the model itself, and of inferred arrivals and prefixes, are not in
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.replay.calibration.blocks import block_draws
from lodestar.pipeline.replay.calibration.capacity import Capacity
from lodestar.pipeline.replay.calibration.coefficients import NAMES, RELATED, penalty, precision
from lodestar.pipeline.replay.calibration.fleet import Fleet
from lodestar.pipeline.replay.calibration.forced import Forced
from lodestar.pipeline.replay.calibration.limits import CAPACITIES, HELD
from lodestar.pipeline.replay.calibration.linear import linear_step
from lodestar.pipeline.replay.calibration.search import Fit, slopes

__all__ = ["DRAWS", "Draws", "bootstrap"]

Floats = NDArray[np.float64]

DRAWS: Final = 40
#: Spread of the logs of coefficients at large, and of the ratio of related ones, as far as draws follow it.
_SPREAD: Final = 0.5
_RATIO_SPREAD: Final = 0.25
_REACHES: Final = (1.0, 0.3)


@dataclass(frozen=True, slots=True)
class Draws:
    """Refitted coefficients.

    Attributes:
        at: logs of the coefficients, shape (draws, coefficients).
        capacity: log of the factor on the key-value capacities, shape (draws,).
        left: share of the spread that the prior has; near 1 the log tells nothing. In the order of `NAMES`, then the
            capacity.
    """

    at: Floats
    capacity: Floats
    left: Floats


def bootstrap(forced: Forced, fleet: Fleet, fit: Fit, capacity: Capacity, draws: int = DRAWS, seed: int = 0) -> Draws:
    """Refit to so many draws of blocks."""
    random = np.random.default_rng(seed)
    slope, weights = slopes(forced, fleet, fit), block_draws(len(forced.choices), draws, seed)
    sizes = _sizes(forced, fleet, fit, capacity, weights, random.standard_normal(draws) * capacity.error)
    at = np.array(
        [
            _refitted(forced, fleet.resized(size, capacity.fewest), fit, slope, fit.center + _off(random), weight)
            for size, weight in zip(sizes.tolist(), weights, strict=True)
        ]
    )
    known = np.array([np.hypot(_SPREAD, _RATIO_SPREAD) if name in RELATED else _SPREAD for name in NAMES])
    return Draws(at, sizes, np.array([*at.std(axis=0) / known, sizes.std() / capacity.error]))


def _sizes(forced: Forced, fleet: Fleet, fit: Fit, capacity: Capacity, weights: Floats, centers: Floats) -> Floats:
    """Choose the log of a factor on the capacities for every draw, with the coefficients as they are."""
    tried = np.array(sorted([0.0, *CAPACITIES]))
    replayed = [forced(fleet.resized(factor, capacity.fewest).at(fit.at)) for factor in tried]
    fine = np.linspace(tried[0], tried[-1], 561)
    found = []
    for of_requests, center in zip(weights, centers, strict=True):
        weight = forced.weights(of_requests)
        losses = [forced.loss(each, weight) for each in replayed]
        pull = HELD * fit.objective * ((fine - center) / capacity.error) ** 2
        found.append(fine[np.argmin(np.interp(fine, tried, losses) + pull)])
    return np.array(found)


def _refitted(forced: Forced, fleet: Fleet, fit: Fit, slope: Floats, center: Floats, of_requests: Floats) -> Floats:
    """Return the coefficients that fit one draw, with a prior of its own."""
    weight, parts = forced.weights(of_requests), list(forced.parts.values())
    at, tried = fit.at, []
    replayed = forced(fleet.at(at))
    for reach in _REACHES:
        at = at + linear_step(replayed, forced.logged, slope, parts, weight, at - center, precision(), reach)
        replayed = forced(fleet.at(at))
        tried.append((forced.loss(replayed, weight) + penalty(at, center), at))
    return min(tried, key=lambda pair: pair[0])[1]


def _off(random: np.random.Generator) -> Floats:
    """Draw how far the center of the prior is off."""
    off = random.standard_normal(len(NAMES)) * _SPREAD
    for name, counterpart in RELATED.items():
        k = NAMES.index(name)
        off[k] = off[NAMES.index(counterpart)] + off[k] * _RATIO_SPREAD / _SPREAD
    return off
