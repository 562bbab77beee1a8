"""Tests of what has mean 0 where the propensities are right, group by group, with few false alarms among many groups.

Under right propensities, weight minus 1 has mean 0 whatever came before, so the variance of its sum is Σ (w − 1)²,
however much the costs of neighbours hang together. Where the log holds every logging probability, what that is on
average is known, even if the rare large weights happen to be missing. A draw that holds for a session or for a time
breaks this, and shows in the variance between blocks. The larger is taken: a test that misses a little, and cries wolf
at neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from lodestar.pipeline.estimation.diagnostics.groups import Groups
from lodestar.pipeline.estimation.intervals.simultaneous import holm

__all__ = ["ALARM", "Family", "Sums", "Tested", "family"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Below this probability a family fails: some six are looked at together, and a right log is to pass them all.
ALARM: Final = 0.005
_CARRY: Final = 25.0  # a variance must be this many times the largest square of one term, or one request decides
_ROUNDING: Final = 1e-3  # standard errors are at least this share of what is expected: logs round their probabilities


@dataclass(frozen=True, slots=True)
class Tested:
    """One group.

    Attributes:
        name: such as 'instance 3'.
        rows: decisions or candidates in it.
        off: by which share of what is expected the sum misses; 0 is expected.
        z: the same in standard errors.
        p: probability of a |z| as large by luck in any group of the family, by Holm's rule.
    """

    name: str
    rows: int
    off: float
    z: float
    p: float


@dataclass(frozen=True, slots=True)
class Family:
    """Groups that are tested together.

    Attributes:
        name: what is tested.
        tests: by p, the worst first.
        too_few: names of groups in which one request carries too much to tell.
        signed: whether a z above 0 means too much weight, which choices that the log never makes do not explain.
    """

    name: str
    tests: tuple[Tested, ...]
    too_few: tuple[str, ...] = ()
    signed: bool = True

    @property
    def worst(self) -> Tested | None:
        """The test with the least p, if any could be made."""
        return self.tests[0] if self.tests else None

    @property
    def fails(self) -> bool:
        """Whether the worst misses by more than luck explains."""
        return self.worst is not None and self.worst.p < ALARM


@dataclass(frozen=True, slots=True)
class Sums:
    """What a test of each group needs, every field of shape (g,).

    Attributes:
        rows: in the group.
        total: Σ terms.
        scale: Σ expected.
        variance: of the total.
        largest: absolute term.
    """

    rows: Ints
    total: Floats
    scale: Floats
    variance: Floats
    largest: Floats

    @classmethod
    def of(cls, groups: Groups, terms: Floats, expected: Floats, variance: Floats | None = None) -> Sums:
        """Add up, and take the larger variance: between blocks, or the known one; Σ terms² where none is known.

        Args:
            groups: of the rows.
            terms: found minus expected of each row, shape (m,).
            expected: what a miss is a share of, 0 or more, shape (m,).
            variance: of each group's total given what was known before each draw, shape (g,); None: not known.
        """
        sums = groups.block_sums(terms)
        known = groups.sums(terms**2) if variance is None else variance
        spread = np.fmax(groups.block_variance(sums), known)  # NaN where there are too few blocks
        return cls(groups.rows, sums.sum(axis=1), groups.sums(expected), spread, groups.largest(terms))

    @classmethod
    def joined(cls, parts: Sequence[Sums]) -> Sums:
        """Put several together."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))


def family(name: str, names: Sequence[str], sums: Sums, blocks: int, more_only: bool = False) -> Family:
    """Test that the terms of each group have mean 0, or, with `more_only`, that it is not above 0.

    Formula: z = Σ terms / s, with s² their variance and s at least 0.1 % of Σ expected; p by Student's t with one
    degree of freedom less than there are blocks.

    Args:
        name: what is tested.
        names: of the groups.
        sums: of the groups.
        blocks: that each was cut into.
        more_only: whether a mean below 0 is no miss; its p is 1.

    >>> groups, terms = Groups.one(10_000, 25), np.random.default_rng(0).poisson(2.1, 10_000) - 2.0
    >>> found = family("counts", ["all"], Sums.of(groups, terms, np.full(10_000, 2.0)), 25)
    >>> found.fails, round(found.tests[0].off, 2)
    (True, 0.05)
    """
    variance = np.maximum(sums.variance, (_ROUNDING * sums.scale) ** 2)
    told = sums.largest**2 * _CARRY <= variance
    z = np.divide(sums.total, np.sqrt(variance), out=np.zeros_like(variance), where=variance > 0)
    off = np.divide(sums.total, sums.scale, out=np.zeros_like(variance), where=sums.scale > 0)
    kept = np.flatnonzero(told)
    beyond = z[kept] if more_only else np.abs(z[kept])
    p = np.array(holm(np.minimum(1.0, 2 * stdtr(blocks - 1, -beyond))))
    worst_first = np.lexsort((-np.abs(z[kept]), p))
    tests = tuple(
        Tested(names[g], int(sums.rows[g]), float(off[g]), float(z[g]), float(p[place]))
        for place, g in zip(worst_first.tolist(), kept[worst_first].tolist(), strict=True)
    )
    return Family(name, tests, tuple(names[g] for g in np.flatnonzero(~told).tolist()))
