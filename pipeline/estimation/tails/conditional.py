"""The distribution of the cost of every candidate, and sums of such distributions over blocks of decisions.

A model that foretells one number says nothing of a tail: taken as certain, it puts every candidate's P99 at its mean.
So each candidate has a CDF F̂(t | x, a), by `residuals` or by `heads`. Candidates stand at steps of log cost, 0.2 %
apart, which makes a table of (step × t), and sums over it do for millions of candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.pipeline.estimation.logged import LoggedDecisions

__all__ = ["Conditional", "OnGrid", "Steps", "block_cdfs", "on_grid"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_STEP: Final = 0.002  # of log cost
_STEPS: Final = 20_000  # at most
_NUMBERS: Final = 20_000_000  # of a table of blocks, at most: 160 MB
_AT_ONCE: Final = 8_000_000  # numbers of a temporary table


@dataclass(frozen=True, slots=True)
class Steps:
    """Log costs in steps from a least one on.

    Attributes:
        least: log cost of step 0.
        step: from one to the next.
        count: of steps.
    """

    least: float
    step: float
    count: int

    @classmethod
    def over(cls, least: float, most: float) -> Steps:
        """Cover a range of log costs.

        >>> Steps.over(0.0, 0.01)
        Steps(least=0.0, step=0.002, count=6)
        """
        step = max(_STEP, (most - least) / (_STEPS - 1))
        return cls(least, step, int(np.rint((most - least) / step)) + 1)

    def place(self, log_cost: Floats) -> Ints:
        """Return the nearest step."""
        return np.rint((log_cost - self.least) / self.step).astype(np.int64)

    @property
    def values(self) -> Floats:
        """Log cost of every step, shape (count,)."""
        return self.least + self.step * np.arange(self.count, dtype=np.float64)


class Conditional(Protocol):
    """A conditional CDF of every candidate.

    Attributes:
        count: number of steps of log cost at which candidates stand.
        fold: of every block of decisions, numbered from 0, shape (blocks,).
        top: the largest cost that any candidate can have.
        highest: the highest level of a quantile that it can carry.
    """

    @property
    def count(self) -> int:
        """Number of steps of log cost at which candidates stand."""

    @property
    def fold(self) -> Ints:
        """Fold of every block of decisions, shape (blocks,)."""

    @property
    def top(self) -> float:
        """The largest cost that any candidate can have."""

    @property
    def highest(self) -> float:
        """The highest level of a quantile that it can carry."""

    def places(self, candidates: Ints) -> Iterator[tuple[float, Ints]]:
        """Yield shares that add up to 1, each with the step at which it stands, shape (len(candidates),)."""

    def table(self, fold: int, grid: Floats) -> Floats:
        """Return F̂(t) for what stands at each step, shape (steps, grid)."""


@dataclass(frozen=True, slots=True)
class OnGrid:
    """Conditional CDFs at costs t of a grid.

    Attributes:
        model: the conditional CDFs.
        grid: costs t, ascending, shape (g,).
        tables: of each fold, F̂(t) for what stands at each step, shape (steps, g).
    """

    model: Conditional
    grid: Floats
    tables: tuple[Floats, ...]


def on_grid(model: Conditional, grid: Floats) -> OnGrid:
    """Read conditional CDFs at costs t, ascending, once for all estimators."""
    blocks = len(model.fold)
    if blocks > (most := _NUMBERS // len(grid)):
        raise ConfigError(f"{blocks:,} blocks are too many for a CDF; expected at most {most:,}: choose a longer block")
    return OnGrid(model, grid, tuple(model.table(fold, grid) for fold in range(int(model.fold[-1]) + 1)))


def block_cdfs(on: OnGrid, log: LoggedDecisions, weight: Floats, block: int) -> Floats:
    """Add up weight × F̂(t | x, a) over the candidates of every block, shape (blocks, grid).

    Args:
        on: the conditional CDFs.
        log: the decisions.
        weight: of every candidate, shape (c,); what has none need not be foretold.
        block: consecutive decisions that count as one.
    """
    fold, sums = on.model.fold, np.empty((len(on.model.fold), len(on.grid)))
    at_once = max(1, _AT_ONCE // on.model.count)
    for number, table in enumerate(on.tables):
        first, end = np.searchsorted(fold, [number, number + 1])
        for start in range(first, end, at_once):
            stop = min(end, start + at_once)
            sums[start:stop] = _masses(on.model, log, weight, block, start, stop) @ table
    return sums


def _masses(model: Conditional, log: LoggedDecisions, weight: Floats, block: int, start: int, stop: int) -> Floats:
    """Return the weight that stands at each step in each block from `start` to `stop`, shape (blocks, steps)."""
    first, end = start * block, min(stop * block, log.decisions)
    low, high = log.offsets[first], log.offsets[end]
    weighty = np.flatnonzero(weight[low:high])
    inside = np.repeat(np.arange(end - first) // block, np.diff(log.offsets[first : end + 1]))[weighty]
    candidates, count = weighty + low, model.count
    masses = np.zeros((stop - start) * count)
    for share, place in model.places(candidates):
        masses += share * np.bincount(inside * count + place, weight[candidates], len(masses))
    return masses.reshape(stop - start, count)
