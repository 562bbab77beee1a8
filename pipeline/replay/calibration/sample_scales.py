"""How much slower one instance is than the others, from the busy time of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.least_squares import solve
from lodestar.pipeline.replay.calibration.sample_work import BusyRows

__all__ = ["Scale", "scales_of"]

Floats = NDArray[np.float64]

_FEWEST: Final = 8
_ROUNDS: Final = 50
_DRAWS: Final = 200
#: Instances differ if one is off by so many standard errors, and by this ratio.
_ERRORS_OFF: Final = 4.0
_RATIO_OFF: Final = 0.05


@dataclass(frozen=True, slots=True)
class Scale:
    """How much slower than the pooled engine one instance is, with its standard error and its rows."""

    factor: float
    standard_error: float
    rows: int


def scales_of(rows: BusyRows, seed: int) -> dict[int, Scale]:
    """Return the scale of each instance with rows enough, their geometric mean 1; none where they are all alike.

    An engine that all share is fitted first. Only if an instance is clearly off it are both fitted in turns, as scales
    take from the coefficients what instances under unlike load say of them.
    """
    counted = dict(zip(*(column.tolist() for column in np.unique(rows.owners, return_counts=True)), strict=True))
    enough = [owner for owner, count in counted.items() if count >= _FEWEST]
    if len(enough) < 2:
        return {}
    factors = {owner: _scale(rows, owner, 1.0, seed) for owner in enough}
    if not any(_differs(scale) for scale in factors.values()):
        return {}
    for _ in range(_ROUNDS):
        scaled = _brought_together(rows, factors)
        factors = {owner: _scale(scaled, owner, factors[owner].factor, seed) for owner in enough}
        middle = float(np.exp(np.mean([np.log(scale.factor) for scale in factors.values()])))
        factors = {owner: replace(scale, factor=scale.factor / middle) for owner, scale in factors.items()}
    return factors


def _differs(scale: Scale) -> bool:
    off = abs(scale.factor - 1)
    return off > _ERRORS_OFF * scale.standard_error and off > _RATIO_OFF


def _brought_together(rows: BusyRows, factors: dict[int, Scale]) -> BusyRows:
    factor = np.array([factors[owner].factor if owner in factors else 1.0 for owner in rows.owners.tolist()])
    return rows.slowed(factor)


def _scale(rows: BusyRows, owner: int, before: float, seed: int) -> Scale:
    """Return what an instance's time is of what all say, times what it was taken for before."""
    own = (rows.shares.values @ solve(rows.shares))[rows.owners == owner]
    drawn = before / own[np.random.default_rng(seed).integers(0, len(own), (_DRAWS, len(own)))].mean(axis=1)
    return Scale(before / float(own.mean()), float(drawn.std(ddof=1)), len(own))
