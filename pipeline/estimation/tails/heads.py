"""The distribution of the cost of every candidate, from the quantile heads of a model.

Between the heads, and beyond them, log cost is linear in the normal score of the level: pieces of log-normal
distributions. Beyond the highest head the tail is therefore a guess, and so is any quantile above its level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.tails.conditional import Steps

__all__ = ["QuantileHeads", "heads_cdf"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SCORES: Final = np.linspace(-4.0, 4.0, 41)  # at which a distribution is held
_SHARES: Final = np.diff(ndtr(np.concatenate([[-np.inf], (_SCORES[1:] + _SCORES[:-1]) / 2, [np.inf]])))


@dataclass(frozen=True, slots=True)
class QuantileHeads:
    """Predicted quantiles of the cost of every candidate, by models that have not seen its request.

    Attributes:
        levels: ascending, strictly between 0 and 1, two at least, shape (k,).
        values: shape (c, k), in the unit of the cost; heads that cross are put in order.
    """

    levels: Floats
    values: Floats

    def __post_init__(self) -> None:
        """Refuse what is no set of quantiles."""
        k = len(self.levels)
        if k < 2 or not ((self.levels > 0) & (self.levels < 1)).all() or not (np.diff(self.levels) > 0).all():
            raise DataError(f"levels {self.levels.tolist()} are not usable; expected two or more, ascending in (0, 1)")
        if self.values.ndim != 2 or self.values.shape[1] != k:
            raise DataError(f"quantiles have shape {self.values.shape}; expected (candidates, {k}), one a level")


@dataclass(frozen=True, slots=True)
class Heads:
    """The same as parts of 41 points each, at fixed normal scores.

    Attributes:
        steps: log costs at which points stand.
        fold: 0 for every block, as the heads were fitted elsewhere, shape (blocks,).
        log_values: of the heads in order, NaN where nothing is foretold, shape (c, k).
        from_heads: how a point follows from the heads, shape (k, points).
        highest: level of the highest head.
    """

    steps: Steps
    fold: Ints
    log_values: Floats
    from_heads: Floats
    highest: float

    @property
    def count(self) -> int:
        """Number of steps."""
        return self.steps.count

    @property
    def top(self) -> float:
        """The largest cost at any point."""
        return float(np.exp(self.steps.values[-1]))

    def places(self, candidates: Ints) -> Iterator[tuple[float, Ints]]:
        """Yield every point of the distributions."""
        log_values = self.log_values[candidates]
        if np.isnan(log_values).any():
            raise DataError(
                "a quantile is not finite and above 0 for a candidate that the policy may choose or the log chose; "
                "expected one for each"
            )
        for share, mix in zip(_SHARES, self.from_heads.T, strict=True):
            yield float(share), self.steps.place(log_values @ mix)

    def table(self, fold: int, grid: Floats) -> Floats:
        """Return 1 where a step is at or below t, shape (steps, grid)."""
        return (self.steps.values[:, None] <= np.log(grid) + 1e-9).astype(np.float64)


def heads_cdf(heads: QuantileHeads, candidates: int, blocks: int) -> Heads:
    """Make conditional CDFs of quantile heads.

    >>> heads = QuantileHeads(np.array([0.5, 0.9]), np.array([[1.0, 2.0]]))
    >>> model = heads_cdf(heads, candidates=1, blocks=2)
    >>> points = [(share, model.steps.values[place[0]]) for share, place in model.places(np.array([0]))]
    >>> round(sum(share for share, log_cost in points if log_cost <= np.log(2.0)), 2)
    0.9
    """
    if len(heads.values) != candidates:
        raise DataError(f"quantiles have {len(heads.values)} rows; expected {candidates}, one a candidate")
    known = (np.isfinite(heads.values) & (heads.values > 0)).all(axis=1)
    if not known.any():
        raise DataError("no candidate has quantiles that are finite and above 0; expected them for each")
    log_values = np.full(heads.values.shape, np.nan)
    log_values[known] = np.sort(np.log(heads.values[known]), axis=1)
    mix = _mix(ndtri(heads.levels))
    ends = log_values[known] @ mix[:, [0, -1]]
    steps, highest = Steps.over(float(ends.min()), float(ends.max())), float(heads.levels[-1])
    return Heads(steps, np.zeros(blocks, np.int64), log_values, mix, highest)


def _mix(scores: Floats) -> Floats:
    """Return the weights of the heads for every point: a straight line through the two next to it."""
    right = np.clip(np.searchsorted(scores, _SCORES), 1, len(scores) - 1)
    share = (_SCORES - scores[right - 1]) / (scores[right] - scores[right - 1])
    mix, points = np.zeros((len(scores), len(_SCORES))), np.arange(len(_SCORES))
    mix[right, points] += share
    mix[right - 1, points] += 1 - share
    return mix
