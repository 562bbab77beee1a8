"""Rows by group, such as candidates by instance, and each group in blocks of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.logged import LoggedDecisions

__all__ = ["DRAW_BLOCKS", "Groups"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Blocks in tests of the draws. More than costs are cut into: a queue hangs together for long, draws for a session.
DRAW_BLOCKS: Final = 50
_FEWEST_BLOCKS: Final = 5


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows by group, each group cut into blocks of consecutive rows.

    Attributes:
        labels: numbers of the groups that have rows, shape (g,).
        rows: of each, shape (g,).
        place: of every row's group among `labels`, shape (m,).
        cell: of every row: its place, times blocks, plus its block, shape (m,).
        blocks: of a group, at most.
    """

    labels: Ints
    rows: Ints
    place: Ints
    cell: Ints
    blocks: int

    @classmethod
    def of(cls, label: Ints, blocks: int) -> Groups:
        """Cut every group into blocks of as many rows, labels being 0 or more, shape (m,).

        >>> groups = Groups.of(np.array([4, 0, 4, 0, 0]), 2)
        >>> groups.labels.tolist(), groups.rows.tolist(), groups.cell.tolist()
        ([0, 4], [3, 2], [2, 0, 3, 0, 1])
        """
        labels, rows, place = _placed(label)
        few = np.int16 if len(labels) <= np.iinfo(np.int16).max else np.int64  # which NumPy sorts by its digits
        order = np.argsort(place.astype(few), kind="stable")
        first = np.repeat(np.cumsum(rows) - rows, rows)
        cell = np.empty(len(label), np.int64)
        cell[order] = (np.arange(len(label)) - first) * blocks // np.repeat(rows, rows)
        cell += place * blocks
        return cls(labels, rows, place, cell, blocks)

    @classmethod
    def of_candidates(cls, label: Ints, log: LoggedDecisions, blocks: int) -> Groups:
        """Cut candidates by the block of their decision, labels being 0 or more, shape (c,)."""
        labels, rows, place = _placed(label)
        block = np.arange(log.decisions) * blocks // log.decisions
        cell = np.repeat(block, log.counts)
        cell += place * blocks
        return cls(labels, rows, place, cell, blocks)

    @classmethod
    def one(cls, rows: int, blocks: int) -> Groups:
        """Return all rows as one group."""
        nothing = np.zeros(1, np.int64)
        return cls(nothing, np.array([rows]), np.zeros(rows, np.int64), np.arange(rows) * blocks // rows, blocks)

    def sums(self, values: Floats) -> Floats:
        """Add up each group, shape (m,) → (g,)."""
        return np.asarray(np.bincount(self.place, values, len(self.labels)), np.float64)

    def block_sums(self, values: Floats) -> Floats:
        """Add up each block of each group, shape (m,) → (g, blocks)."""
        cells = np.bincount(self.cell, values, len(self.labels) * self.blocks)
        return np.asarray(cells, np.float64).reshape(-1, self.blocks)

    def block_variance(self, sums: Floats) -> Floats:
        """Return the variance of each group's sum, from that between its blocks, shape (g, blocks) → (g,).

        Blocks without rows do not count; a group with rows in fewer than five says nothing, and has NaN.

        >>> groups = Groups.one(5, 5)
        >>> groups.block_variance(groups.block_sums(np.arange(5.0))).tolist()
        [12.5]
        """
        filled = np.bincount(self.cell, minlength=sums.size).reshape(sums.shape) > 0
        k = filled.sum(axis=1)
        apart = np.where(filled, sums - sums.sum(axis=1, keepdims=True) / k[:, None], 0.0)
        return np.asarray(np.where(k >= _FEWEST_BLOCKS, k / np.maximum(k - 1, 1) * np.sum(apart**2, axis=1), np.nan))

    def largest(self, values: Floats) -> Floats:
        """Return the largest absolute value of each group, shape (m,) → (g,)."""
        highest, lowest = np.zeros((2, len(self.labels)))
        np.maximum.at(highest, self.place, values)
        np.minimum.at(lowest, self.place, values)
        return np.asarray(np.maximum(highest, -lowest))


def _placed(label: Ints) -> tuple[Ints, Ints, Ints]:
    """Number the labels that occur from 0; return them, their rows, and every row's number."""
    label = np.asarray(label, np.int64)  # cells are numbered by many times as many
    every = np.bincount(label)
    labels = np.flatnonzero(every)
    if len(labels) == len(every):
        return labels, every, label
    place = np.zeros(len(every), np.int64)
    place[labels] = np.arange(len(labels))
    return labels, every[labels], place[label]
