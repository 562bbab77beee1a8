"""The distribution of the cost of every candidate, from what a model foretells and by how much it was off.

The CDF of a candidate is its predicted cost times how far the measured costs of other requests, with about the same
prediction, were from theirs: F̂(t | x, a) = share of residuals r ≤ log t − log q̂(x, a), with r = log y − log q̂ of
logged choices. Residuals are kept apart by predicted cost, which rises with load: the busier, the wider. The log
is cut into folds of time, of whole blocks, and a residual never enters a CDF that is used in its own fold.

Where residuals of other instances or loads differ at one predicted cost, the direct CDF is wrong, and the doubly robust
one corrects it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.blocks import blocks_in
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.tails.conditional import Steps
from lodestar.pipeline.estimation.tails.support import LEAST_TAIL_ESS

__all__ = ["Residuals", "chosen_quantiles", "residual_cdf"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FOLDS: Final = 4
_BINS: Final = 20  # of predicted cost, at most
_ROWS: Final = 500  # residuals of a bin, at least
_TIE: Final = 1e-9  # of log cost, by which rounding may part what is equal


@dataclass(frozen=True, slots=True)
class Residuals:
    """Predicted costs times the residuals of other requests.

    Attributes:
        log_cost: at which predictions stand, ascending, shape (steps,).
        place: step of every candidate, −1 where nothing is foretold or the policy and the log never go, shape (c,).
        fold: of every block, shape (blocks,).
        edges: of each fold, the steps at which the next bin begins.
        residual: of each fold and bin, sorted.
    """

    log_cost: Floats
    place: Ints
    fold: Ints
    edges: tuple[Ints, ...]
    residual: tuple[tuple[Floats, ...], ...]

    @property
    def count(self) -> int:
        """Number of steps."""
        return len(self.log_cost)

    @property
    def top(self) -> float:
        """The largest predicted cost times the largest residual."""
        return float(np.exp(self.log_cost[-1] + max(each[-1] for bins in self.residual for each in bins)))

    @property
    def fewest(self) -> int:
        """The least number of residuals that a fold is foretold by."""
        return min(sum(len(each) for each in bins) for bins in self.residual)

    @property
    def highest(self) -> float:
        """The level beyond which the folds hold fewer than 30 residuals, 0 where they hold no more in all."""
        return max(0.0, 1.0 - LEAST_TAIL_ESS / self.fewest)

    def places(self, candidates: Ints) -> Iterator[tuple[float, Ints]]:
        """Yield the steps of the predictions."""
        place = self.place[candidates]
        if (place < 0).any():
            raise DataError(
                "the prediction is not finite and above 0 for a candidate that the policy may choose or the log chose; "
                "expected one for each. Train a model for this dataset, or use snipw, which needs none"
            )
        yield 1.0, place

    def table(self, fold: int, grid: Floats) -> Floats:
        """Return the share of the bin's residuals at or below log t − log q̂, shape (steps, grid)."""
        table, log_t = np.empty((self.count, len(grid))), np.log(grid) + _TIE
        of_step = np.searchsorted(self.edges[fold], np.arange(self.count), side="right")
        for number, residual in enumerate(self.residual[fold]):
            inside = of_step == number
            below = np.searchsorted(residual, log_t - self.log_cost[inside, None], side="right")
            table[inside] = below / len(residual)
        return table


def residual_cdf(rows: OneStepInput, block: int) -> Residuals:
    """Fit the conditional CDF of every candidate to residuals of other times.

    Args:
        rows: logged decisions with predictions, all costs above 0.
        block: consecutive decisions that count as one; folds are whole blocks.

    >>> from lodestar.pipeline.estimation.logged import LoggedDecisions
    >>> from lodestar.pipeline.estimation.tails.conditional import block_cdfs, on_grid
    >>> log = LoggedDecisions(np.array([1.0, 2.0, 3.0, 4.0]), np.arange(5), np.arange(4), np.ones(4))
    >>> model = residual_cdf(OneStepInput(log, np.ones(4), np.full(4, 2.0)), block=2)
    >>> block_cdfs(on_grid(model, np.array([1.0, 2.0, 3.0, 4.0])), log, np.ones(4), block=2).tolist()
    [[0.0, 0.0, 1.0, 2.0], [1.0, 2.0, 2.0, 2.0]]
    """
    log = rows.log
    if rows.predicted is None:
        raise DataError("no prediction is given; train a model for this dataset, or use snipw, which needs none")
    known = np.isfinite(rows.predicted) & (rows.predicted > 0)
    if not known[log.chosen].all():
        raise DataError("the prediction is not finite and above 0 for a chosen candidate; expected one for each")
    needed = rows.target > 0
    needed[log.chosen] = True
    known &= needed
    log_predicted = np.log(rows.predicted, out=np.zeros(log.candidates), where=known)
    log_cost, place = _stand(log_predicted, known)
    stands = place[log.chosen]
    residual = np.log(log.cost) - log_cost[stands]
    fold = _folds(log.decisions, block)
    fold_of_row = np.repeat(fold, block)[: log.decisions]
    order = np.argsort(stands, kind="stable")
    others = [order[fold_of_row[order] != each] for each in range(fold[-1] + 1)]
    fitted = [_bins(stands[each], residual[each]) for each in others]
    return Residuals(log_cost, place, fold, tuple(edges for edges, _ in fitted), tuple(bins for _, bins in fitted))


def chosen_quantiles(rows: OneStepInput, block: int, levels: Sequence[float]) -> dict[float, Floats]:
    """Return quantiles of the cost of every logged choice, shape (n,), as residuals of other times foretell them.

    Args:
        rows: logged decisions with predictions, all costs above 0.
        block: consecutive decisions that count as one; folds are whole blocks.
        levels: of the quantiles, in (0, 1); those beyond `Residuals.highest` are left out.

    >>> from lodestar.pipeline.estimation.logged import LoggedDecisions
    >>> log = LoggedDecisions(np.arange(1.0, 101.0), np.arange(101), np.arange(100), np.ones(100))
    >>> found = chosen_quantiles(OneStepInput(log, np.ones(100), np.full(100, 10.0)), block=50, levels=(0.1, 0.9))
    >>> {level: [float(each) for each in quantile[[0, 99]].round(6)] for level, quantile in found.items()}
    {0.1: [55.0, 5.0]}
    """
    model, log = residual_cdf(rows, block), rows.log
    fold, stands = np.repeat(model.fold, block)[: log.decisions], model.place[log.chosen]
    foretold = {level: np.empty(log.decisions) for level in levels if level <= model.highest}
    for number, (edges, bins) in enumerate(zip(model.edges, model.residual, strict=True)):
        inside = fold == number
        bin_of = np.searchsorted(edges, stands[inside], side="right")
        for level, quantile in foretold.items():
            off = np.array([each[max(0, int(np.ceil(level * len(each) * (1 - _TIE))) - 1)] for each in bins])
            quantile[inside] = np.exp(model.log_cost[stands[inside]] + off[bin_of] + _TIE)
    return foretold


def _stand(log_predicted: Floats, known: NDArray[np.bool_]) -> tuple[Floats, Ints]:
    """Return the log costs at which predictions stand and the place of every candidate among them, −1: nowhere."""
    steps = Steps.over(float(log_predicted[known].min()), float(log_predicted[known].max()))
    nearest = steps.place(np.where(known, log_predicted, steps.least))
    used = np.bincount(nearest, known, steps.count) > 0
    return steps.values[used], np.where(known, (np.cumsum(used) - 1)[nearest], -1)


def _folds(decisions: int, block: int) -> Ints:
    blocks = blocks_in(decisions, block)
    return np.arange(blocks) * min(_FOLDS, blocks) // blocks


def _bins(stands: Ints, residual: Floats) -> tuple[Ints, tuple[Floats, ...]]:
    """Cut residuals, in order of predicted cost, into bins with as many rows each; equal predictions stay together."""
    count = max(1, min(_BINS, len(stands) // _ROWS))
    edges = np.unique(stands[np.arange(1, count) * len(stands) // count])
    edges = edges[edges > stands[0]]
    return edges, tuple(np.sort(each) for each in np.split(residual, np.searchsorted(stands, edges)))
