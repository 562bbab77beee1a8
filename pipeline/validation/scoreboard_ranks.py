"""Whether values order policies as the truth does, where the truth does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["apart", "kendall_tau"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_ERRORS = 2.0
_LEAST_RATIO = 0.02


def apart(truth: Floats, se: Floats) -> Bools:
    """Say which pairs the truth tells apart: by two standard errors of the difference, and by 2 % of the lower.

    >>> apart(np.array([1.0, 2.0, 2.01]), np.zeros(3)).tolist()
    [[False, True, True], [True, False, False], [True, False, False]]
    """
    difference = np.abs(truth[:, None] - truth)
    lower = np.minimum(truth[:, None], truth)
    return np.asarray((difference > _ERRORS * np.hypot(se[:, None], se)) & (difference > _LEAST_RATIO * lower))


def kendall_tau(values: Floats, truth: Floats, counted: Bools) -> float:
    """Return (pairs in the right order − pairs in the wrong one) / pairs, over the pairs that count.

    Kendall's τ of 1938, over some pairs; a tie of the values, or one that is NaN, is neither. NaN where
    no pair counts.

    Args:
        values: of each policy.
        truth: of each policy.
        counted: pairs, symmetric, shape (policies, policies).

    >>> three = np.array([1.0, 2.0, 3.0])
    >>> round(kendall_tau(np.array([1.0, 3.0, 2.0]), three, apart(three, np.zeros(3))), 3)
    0.333
    """
    agree = np.sign(values[:, None] - values) * np.sign(truth[:, None] - truth)
    return float(np.nan_to_num(agree[counted]).mean()) if counted.any() else float("nan")
