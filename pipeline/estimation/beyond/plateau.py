"""Where a path of estimates no longer moves: the first of them that all later ones agree with, up to luck."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["errors_of", "plateau"]

Floats = NDArray[np.float64]

#: So many standard errors are luck.
_LUCK: Final = 1.0


def errors_of(parts: Floats) -> Floats:
    """Return the standard error of each estimate of a path: the root of the sum of its squared parts.

    Args:
        parts: what each block of the log contributes to the error of each estimate, shape (blocks, k).

    >>> errors_of(np.array([[-3.0], [4.0]]))
    array([5.])
    """
    return np.asarray(np.sqrt(np.sum(parts**2, axis=0)))


def plateau(values: Floats, parts: Floats) -> int:
    """Return the first place of a path whose value no later one differs from by more than the error of the difference.

    Later estimates leave less out and know less. Their luck is largely the same, so that the error of a difference,
    taken from the differences of the parts, is much below that of either. The last place is always a plateau of its
    own: where it is returned, the path has not come to rest.

    Args:
        values: of the path, shape (k,).
        parts: see `errors_of`, shape (blocks, k).

    >>> parts = np.array([[-3.0, -3.0, -3.0], [4.0, 4.0, 4.2]])
    >>> plateau(np.array([1.0, 2.0, 2.1]), parts)
    1
    """
    for place in range(len(values)):
        later = slice(place + 1, None)
        error = errors_of(parts[:, later] - parts[:, [place]])
        if (np.abs(values[later] - values[place]) <= _LUCK * error).all():
            return place
    return len(values) - 1
