"""How slow each instance is beside the others: forced replay keeps instances apart, so all are searched at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.replay.calibration.blocks import BLOCKS, block_draws
from lodestar.pipeline.replay.calibration.fleet import Fleet
from lodestar.pipeline.replay.calibration.forced import Forced
from lodestar.pipeline.replay.calibration.heterogeneity import Heterogeneity, heterogeneity
from lodestar.pipeline.replay.calibration.search import DIFFERENCE

__all__ = ["Slowness", "best_slowness", "slowness"]

Floats = NDArray[np.float64]

_GRID: Final = np.log([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.45, 1.7, 2.0, 2.5, 3.2])
_STEPS: Final = 3
_REACH: Final = 0.2
_DRAWS: Final = 200
#: What a standard error leaves out: that the model is one, and is off by other amounts under other loads.
_MODEL_ERROR: Final = 0.005
_FEWEST: Final = 30  # latencies of an instance, to estimate anything


@dataclass(frozen=True, slots=True)
class Slowness:
    """How many times as long the steps of each instance are, as logs.

    Attributes:
        test: whether the instances differ, and the estimates to be used.
        draws: of the estimates to be used, shape (draws, instances).
    """

    test: Heterogeneity
    draws: Floats


def slowness(forced: Forced, fleet: Fleet, at: Floats, seed: int = 0) -> Slowness:
    """Estimate the slowness of every instance beside that of the fit, and test whether they differ.

    The slowness that the fleet may have already is estimated anew.
    """
    fleet = replace(fleet, slowness=np.zeros(len(fleet.limits)))
    factor = best_slowness(forced, fleet, at)
    residual, slope = _linearised(forced, fleet, at, factor)
    drawn = block_draws(len(forced.choices), _DRAWS, seed)
    moved = np.stack([_steps(forced, residual, slope, forced.weights(counts)) for counts in drawn])
    few = np.bincount(forced.instance, minlength=len(factor)) < _FEWEST
    test = heterogeneity(np.where(few, np.nan, factor), np.hypot(moved.std(axis=0), _MODEL_ERROR), BLOCKS)
    if not test.differ:
        return Slowness(test, np.zeros_like(moved))
    believed = np.where(few, 0.0, test.spread**2 / (test.spread**2 + test.errors**2))
    return Slowness(test, test.shrunk + believed * (moved - moved.mean(axis=0)))


def best_slowness(forced: Forced, fleet: Fleet, at: Floats) -> Floats:
    """Return what brings each instance's latencies closest: the best of a grid, then steps of weighted medians."""
    instances = len(fleet.limits)
    losses = []
    for factor in _GRID:
        off = np.abs(forced(fleet.slowed(np.full(instances, factor)).at(at)) - forced.logged)
        losses.append(np.bincount(forced.instance, weights=off, minlength=instances))
    found: Floats = _GRID[np.argmin(losses, axis=0)]
    for _ in range(_STEPS):
        residual, slope = _linearised(forced, fleet, at, found)
        found = found + np.clip(_steps(forced, residual, slope, forced.weights()), -_REACH, _REACH)
    return found


def _linearised(forced: Forced, fleet: Fleet, at: Floats, factor: Floats) -> tuple[Floats, Floats]:
    """Return how far each latency is off, and how it follows the slowness of its instance."""
    below, above = (forced(fleet.slowed(factor + way).at(at)) for way in (-DIFFERENCE / 2, DIFFERENCE / 2))
    return (below + above) / 2 - forced.logged, (above - below) / DIFFERENCE


def _steps(forced: Forced, residual: Floats, slope: Floats, weight: Floats) -> Floats:
    """Return each instance's step of least absolute deviations: a weighted median."""
    telling = slope > 1e-3  # a latency that does not follow the step time tells nothing of it
    wanted = np.where(telling, -residual / np.where(telling, slope, 1.0), 0.0)
    counts = np.where(telling, weight * slope, 0.0)
    order = np.lexsort((wanted, forced.instance))
    ends = np.cumsum(np.bincount(forced.instance, minlength=len(forced.cluster.engines)))
    parts = zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)
    return np.array([_weighted_median(wanted[order[a:b]], counts[order[a:b]]) for a, b in parts])


def _weighted_median(ascending: Floats, weight: Floats) -> float:
    share = np.cumsum(weight)
    return float(ascending[np.searchsorted(share, share[-1] / 2)]) if len(share) and share[-1] > 0 else 0.0
