"""Which policy is the best: how often each comes first, second, … over bootstrap draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["rank_probabilities"]

Floats = NDArray[np.float64]


def rank_probabilities(drawn: Floats) -> Floats:
    """Return the share of draws in which row k has the r-th least value, shape (rows, ranks).

    Rows that tie share the ranks that they take. It is the share of draws and claims no more: no prior, and no word on
    how right the engine model is.

    Args:
        drawn: one row a policy, the draws in columns, the same draws for all; draws with a NaN are left out.

    >>> rank_probabilities(np.array([[1.0, 1.0, 5.0, 1.0], [2.0, 2.0, 2.0, 1.0]])).tolist()
    [[0.625, 0.375], [0.375, 0.625]]
    """
    whole = drawn[:, ~np.isnan(drawn).any(axis=0)]
    less = (whole[None] < whole[:, None]).sum(axis=1)
    same = (whole[None] == whole[:, None]).sum(axis=1)
    shares = [np.where((less <= rank) & (rank < less + same), 1 / same, 0.0).mean(axis=1) for rank in range(len(drawn))]
    return np.stack(shares, axis=1)
