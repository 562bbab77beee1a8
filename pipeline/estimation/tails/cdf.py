"""A CDF on a grid of costs, with its error by blocks; what the model's CDFs are summed up to.

A doubly robust CDF need not rise everywhere, and may leave 0 to 1. Taken is the largest value so far, cut off at 0 and
1: a share is never outside. Where it dips, this finds quantiles a little early; the mean with the least value still to
come is no nearer to the truth.

Reference: Huang, Leqi, Lipton and Azizzadenesheli 2021 (OPRA).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.tails.support import LEAST_TAIL_ESS

__all__ = ["GridCdf", "cost_grid", "grid_cdf", "tied_costs"]

Floats = NDArray[np.float64]

_POINTS: Final = 300
_JUST_BELOW: Final = 1e-6  # relative, and more than CDFs take for equal
_TIED: Final = 0.01  # of the requests at one cost, from which on the CDF is held to jump there


def cost_grid(cost: Floats, top: float, slo: float | None) -> Floats:
    """Return costs t at which to hold a CDF.

    They lie evenly on a log scale, and exactly at the least cost, at the limit, and at and just below what many share.

    >>> cost_grid(np.array([1.0, 10.0]), top=100.0, slo=20.0).size
    302
    >>> np.isin([40.0, 50.0], cost_grid(np.array([20.0, 40.0] + 98 * [50.0]), top=100.0, slo=None)).tolist()
    [False, True]
    """
    evenly = np.geomspace(np.quantile(cost, 0.001), max(float(cost.max()), top), _POINTS)
    least, tied = float(cost.min()), tied_costs(cost)
    exact = [np.array([least] if slo is None else [least, slo]), tied, tied[tied > least] * (1 - _JUST_BELOW)]
    if slo is not None and slo < least:  # between them no cost fell: a straight line would move the least ones down
        exact.append(np.array([least * (1 - _JUST_BELOW)]))
    kept = np.unique(np.concatenate(exact))
    near = np.abs(evenly[:, None] / kept - 1).min(axis=1) <= _JUST_BELOW  # rounding parts what is equal
    return np.unique(np.concatenate([evenly[~near], kept]))


def tied_costs(cost: Floats) -> Floats:
    """Return the costs that many requests share, ascending: 1 % of them, and as many as a tail must have.

    >>> tied_costs(np.repeat([1.0, 2.0, 3.0], [30, 29, 40])).tolist()
    [1.0, 3.0]
    """
    values, counts = np.unique(cost, return_counts=True)
    return np.asarray(values[counts >= max(LEAST_TAIL_ESS, _TIED * len(cost))])


@dataclass(frozen=True, slots=True)
class GridCdf:
    """A CDF on a grid; between its points it is a straight line, and a step where they are next to each other.

    Attributes:
        grid: costs t, ascending, shape (g,).
        raw: F(t) as it was estimated, shape (g,).
        rising: the same, monotone and within 0 to 1, shape (g,).
        sums: what each block contributes to the error of n · F(t), shape (blocks, g).
        decisions: n.
    """

    grid: Floats
    raw: Floats
    rising: Floats
    sums: Floats
    decisions: int

    def quantile(self, level: float) -> float:
        """Return the cost at which F reaches the level; the last of the grid where it does not."""
        at = int(np.searchsorted(self.rising, level))
        if at in (0, len(self.grid)):
            return float(self.grid[min(at, len(self.grid) - 1)])
        if self.grid[at] * (1 - 2 * _JUST_BELOW) < self.grid[at - 1]:  # a tie: nothing lies between
            return float(self.grid[at])
        return float(np.interp(level, self.rising[at - 1 : at + 1], self.grid[at - 1 : at + 1]))

    def level_error(self, cost: float) -> float:
        """Return the standard error of F at a cost."""
        return float(np.interp(cost, self.grid, self._errors(self.sums)))

    def error_below(self, cost: float) -> float:
        """Return the standard error of F just below a cost."""
        return self.level_error(cost * (1 - _JUST_BELOW))

    def share(self, cost: float) -> tuple[float, float]:
        """Return F at a cost, as it was estimated, with its standard error."""
        return float(np.interp(cost, self.grid, self.raw)), self.level_error(cost)

    def beyond(self, level: float) -> tuple[float, float]:
        """Return the mean of the tail above the quantile, Q + ∫ (1 − F) / (1 − q) from Q on, with its standard error.

        Where the mean turns on Q itself it does so to second order only, so the error is that of the integral.
        """
        start = self.quantile(level)
        grid = np.concatenate([[start], self.grid[self.grid > start]])
        steps = np.diff(grid)
        part = np.concatenate([[0.0], steps]) / 2 + np.concatenate([steps, [0.0]]) / 2
        left = part / (1 - level)
        rising = np.interp(grid, self.grid, self.rising)
        last = len(self.grid) - len(grid) + 1
        by_block = self.sums[:, last:] @ left[1:] + self._at(start) * left[0]
        return float(start + np.sum((1 - rising) * left)), float(self._errors(by_block))

    def _at(self, cost: float) -> Floats:
        """Return what each block contributes at a cost between two points."""
        right = int(np.clip(np.searchsorted(self.grid, cost), 1, max(1, len(self.grid) - 1)))
        if len(self.grid) == 1:
            return np.asarray(self.sums[:, 0])
        share = np.clip((cost - self.grid[right - 1]) / (self.grid[right] - self.grid[right - 1]), 0.0, 1.0)
        return np.asarray((1 - share) * self.sums[:, right - 1] + share * self.sums[:, right])

    def _errors(self, sums: Floats) -> Floats:
        blocks = len(sums)
        return np.asarray(np.sqrt(blocks / (blocks - 1) * np.sum(sums**2, axis=0)) / self.decisions)


def grid_cdf(grid: Floats, sums: Floats, decisions: int, block: int) -> GridCdf:
    """Make a CDF of the sums of its blocks, shape (blocks, g).

    >>> cdf = grid_cdf(np.array([1.0, 2.0, 3.0]), np.array([[0.0, 1.2, 1.0], [0.0, 1.0, 1.0]]), decisions=2, block=1)
    >>> cdf.raw.tolist(), cdf.rising.tolist(), cdf.quantile(0.5)
    ([0.0, 1.1, 1.0], [0.0, 1.0, 1.0], 1.5)
    """
    length = np.full(len(sums), float(block))
    length[-1] = decisions - block * (len(sums) - 1)
    raw = sums.sum(axis=0) / decisions
    rising = np.clip(np.maximum.accumulate(raw), 0.0, 1.0)
    return GridCdf(grid, raw, rising, sums - length[:, None] * raw, decisions)
