"""Predictions by models that have not seen the decision: folds are blocks of time, never shuffled rows.

Neighbours in time share queues and caches, and a shuffled fold would tell a model what its neighbours went through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.pipeline.estimation.logged import LoggedDecisions

__all__ = ["FOLDS", "Fit", "cross_fitted", "time_folds"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Blocks of time, each predicted by a model of the others.
FOLDS: Final = 4

#: Takes which decisions to learn from, shape (n,); returns what predicts the cost of a slice of the candidates.
Fit = Callable[[Bools], Callable[[slice], Floats]]


def time_folds(decisions: int, folds: int) -> Ints:
    """Return the fold of every decision, shape (n,): as many consecutive ones in each, to within one.

    >>> time_folds(7, 3)
    array([0, 0, 0, 1, 1, 2, 2])
    """
    if not 2 <= folds <= decisions:
        raise ConfigError(f"{folds} folds do not fit {decisions} decisions; expected from 2 to one a decision")
    return np.arange(decisions) * folds // decisions


def cross_fitted(fit: Fit, log: LoggedDecisions, folds: int = FOLDS, gap: int = 0) -> Floats:
    """Return a predicted cost of every candidate, shape (c,), each by a model fitted to other blocks of time.

    A request in flight where two blocks meet was slowed by requests of both, so a model of the one knows a little of
    the other. That touches as many decisions a border as requests are in flight, few among the thousands of a block;
    where blocks are short, leave out that many on either side.

    Args:
        fit: how a model is made.
        log: the decisions, in order of arrival.
        folds: blocks of time.
        gap: decisions before and after a block that its model does not learn from either.

    >>> log = LoggedDecisions(np.array([1.0, 3.0, 5.0, 7.0]), np.arange(5), np.arange(4), np.ones(4))
    >>> def mean_cost(training):
    ...     return lambda candidates: np.full(candidates.stop - candidates.start, log.cost[training].mean())
    >>> cross_fitted(mean_cost, log, folds=2)
    array([6., 6., 2., 2.])
    """
    if gap < 0:
        raise ConfigError(f"gap {gap} does not fit; expected 0 or more decisions")
    fold = time_folds(log.decisions, folds)
    predicted = np.empty(log.candidates)
    for number in range(folds):
        first, last = np.searchsorted(fold, [number, number + 1])
        training = np.ones(log.decisions, dtype=np.bool_)
        training[max(first - gap, 0) : last + gap] = False
        if not training.any():
            raise ConfigError(f"gap {gap} leaves nothing to learn from in {log.decisions} decisions; make it smaller")
        inside = slice(int(log.offsets[first]), int(log.offsets[last]))
        predicted[inside] = fit(training)(inside)
    return predicted
