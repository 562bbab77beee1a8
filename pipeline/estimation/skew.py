"""How much further an interval by Student's t must reach on the side that its blocks are skewed to.

Where a few bursts make the cost, blocks without one tell a low mean and a low error alike, so that t errs to one side:
by γ (1 + 2 t²) / 6 standard errors, γ being the skew of the estimate itself. The same holds of any sum of independent
parts, such as a difference of two means: its third moment is the sum of theirs, as its variance is of theirs, and what
it and its estimated variance have in common is that third moment (Welch's t in place of Student's).

References: Johnson 1978 (modified t tests for skewed populations); Hall 1992 (Edgeworth expansion of Student's t).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["lean", "skew"]

Floats = NDArray[np.float64]


def skew(parts: Floats) -> float:
    """Return the skew of a sum from its independent parts: Σ e³ / (Σ e²)^(3/2), 0 where they are all 0.

    Args:
        parts: what each block contributes to the error of the estimate, with its sign, shape (blocks,).

    >>> [round(skew(np.array(parts)), 3) for parts in ([-1.0, -1.0, 2.0], [1.0, 1.0, -2.0], [-1.0, 1.0])]
    [0.408, -0.408, 0.0]
    """
    square = float(np.sum(parts**2))
    return float(np.sum(parts**3)) / (square * float(np.sqrt(square))) if square > 0 else 0.0


def lean(skew: float, t: float) -> float:
    """Return by how many standard errors one end moves outwards: above 0 the upper one, below 0 the lower one.

    Args:
        skew: of the estimate.
        t: how many standard errors the interval goes to each side.

    >>> round(lean(0.3, 2.0), 2)
    0.45
    """
    return skew * (1 + 2 * t * t) / 6
