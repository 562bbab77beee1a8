"""Validation forward in time: cuts from which on a model is measured on what followed, in blocks of requests."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.tuning.losses import Losses, Metric

__all__ = ["BLOCKS", "FOLDS", "Fold", "folds", "fresh_folds", "pieces"]

Floats = NDArray[np.float64]

FOLDS: Final = 6  # fits a trial
BLOCKS: Final = 3  # what a fold is compared by: three neighbouring stretches of its requests
FIRST_SHARE: Final = 0.6  # of the window, which the first fold learns from


@dataclass(frozen=True, slots=True)
class Fold:
    """One cut in time.

    Attributes:
        earlier: all rows that had finished at the cut.
        later: rows of the stretch after it.
        losses: of a model on the later rows.
    """

    earlier: Rows
    later: Rows
    losses: Losses

    def fitted(self, parameters: Parameters, target: str, seed: int, heads: bool) -> Floats:
        """Fit on the earlier rows; return the loss of every later one."""
        return self.losses(fit(self.earlier, target, parameters, seed, heads=heads)[0])


def folds(rows: Rows, metric: Metric) -> list[Fold]:
    """Cut the newer 40 % into six stretches; each model learns from all that finished before its stretch."""
    return _between(rows, metric, np.linspace(FIRST_SHARE, 1.0, FOLDS + 1))


def fresh_folds(rows: Rows, metric: Metric) -> list[Fold]:
    """Cut halfway between the cuts of `folds`: other models on other stretches, so that no luck of a cut is kept."""
    cuts = np.linspace(FIRST_SHARE, 1.0, FOLDS + 1)
    return _between(rows, metric, (cuts[1:] + cuts[:-1]) / 2.0)


def pieces(losses: Floats, most: int) -> Floats:
    """Return the means of at most so many neighbouring runs of equal length (the last may be shorter).

    >>> pieces(np.arange(5.0), 3).tolist()
    [0.5, 2.5, 4.0]
    """
    length = -(-len(losses) // most)
    starts = np.arange(0, len(losses), length)
    means: Floats = np.add.reduceat(losses, starts) / np.diff(np.append(starts, len(losses)))
    return means


def _between(rows: Rows, metric: Metric, shares: Floats) -> list[Fold]:
    first, end = int(rows.request_index[0]), int(rows.request_index[-1]) + 1
    found = []
    for cut, stop in pairwise(first + round((end - first) * float(share)) for share in shares):
        earlier, after = rows.split(cut)
        later = after.only(after.request_index < stop)
        if len(later):
            found.append(Fold(earlier, later, metric.on(earlier, later)))
    return found
