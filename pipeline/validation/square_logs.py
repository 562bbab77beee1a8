"""Logs whose decisions all have the same candidates, of which each is drawn by a known probability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.logged import LoggedDecisions

__all__ = ["drawn", "square_log"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def drawn(random: np.random.Generator, probability: Floats) -> Ints:
    """Draw a candidate for every decision, by the probability of each, shape (n, m) → (n,).

    >>> drawn(np.random.default_rng(0), np.array([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [1, 0]
    """
    luck = random.random((len(probability), 1))
    return np.asarray((luck > probability.cumsum(axis=1)[:, :-1]).sum(axis=1))


def square_log(cost: Floats, column: Ints, probability: Floats) -> LoggedDecisions:
    """Return the log of what was drawn.

    Args:
        cost: shape (n,).
        column: of the chosen candidate, shape (n,).
        probability: that the logging policy gave every candidate, shape (n, m).

    >>> square_log(np.ones(2), np.array([1, 0]), np.array([[0.25, 0.75], [0.5, 0.5]])).propensity.tolist()
    [0.75, 0.5]
    """
    propensity = probability[np.arange(len(column)), column]
    every = np.ones(probability.shape, dtype=np.bool_)
    return LoggedDecisions.of_padded(cost, every, column, propensity, probability)
