"""Whether instances differ, and by how much one may believe that they do.

Cochran's Q compares the spread of the instances' estimates with their standard errors; a random-effects variance then
says how far each estimate is to be drawn towards the common one. It is that of Paule and Mandel (1982), under which Q
comes to what it should be: that of DerSimonian and Laird (1986) follows the most certain instances alone, and so misses
one that is far off but less certain. Standard errors from few blocks are themselves uncertain, so Q is judged by an F
distribution. The test assumes that the instances' errors are independent, and says nothing of why they differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import f as f_distribution

__all__ = ["SIGNIFICANT", "Heterogeneity", "heterogeneity"]

Floats = NDArray[np.float64]

SIGNIFICANT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """What instances have in common, and what not.

    Attributes:
        estimates: of each instance; NaN where it has none.
        errors: their standard errors.
        p_value: how often instances that are alike would differ so much.
        spread: standard deviation between instances beyond the errors.
        typical: the median of the estimates as far as to be believed; the common one where no difference is found.
        shrunk: the estimates as far as to be believed, less the typical one; 0 where no difference is found.
    """

    estimates: Floats
    errors: Floats
    p_value: float
    spread: float
    typical: float
    shrunk: Floats

    @property
    def differ(self) -> bool:
        """Whether the instances differ."""
        return self.p_value < SIGNIFICANT


def heterogeneity(estimates: Floats, errors: Floats, blocks: int) -> Heterogeneity:
    """Test whether estimates differ by more than their errors, which come from so many blocks.

    >>> alike = heterogeneity(np.array([0.01, -0.01, 0.0]), np.full(3, 0.02), blocks=20)
    >>> alike.differ, alike.shrunk.tolist()
    (False, [0.0, 0.0, 0.0])
    >>> one_slow = heterogeneity(np.array([0.4, -0.01, 0.0]), np.full(3, 0.02), blocks=20)
    >>> one_slow.differ, one_slow.shrunk.round(2).tolist()
    (True, [0.4, -0.01, 0.0])
    """
    known = np.isfinite(estimates) & (errors > 0)
    found, weight = estimates[known], errors[known] ** -2.0
    nothing = np.zeros(len(estimates))
    if len(found) < 2:
        return Heterogeneity(estimates, errors, 1.0, 0.0, float(found.mean()) if len(found) else 0.0, nothing)
    common = float(np.average(found, weights=weight))
    q, freedom = float(weight @ (found - common) ** 2), len(found) - 1
    p_value = float(f_distribution.sf(q / freedom, freedom, freedom * max(1, blocks - 1)))
    variance = _variance_between(found, errors[known])
    if p_value >= SIGNIFICANT:
        return Heterogeneity(estimates, errors, p_value, variance**0.5, common, nothing)
    common = float(np.average(found, weights=1 / (variance + errors[known] ** 2)))
    believed = common + variance / (variance + errors[known] ** 2) * (found - common)
    shrunk = nothing
    shrunk[known] = believed - np.median(believed)
    return Heterogeneity(estimates, errors, p_value, variance**0.5, float(np.median(believed)), shrunk)


def _variance_between(found: Floats, errors: Floats) -> float:
    """Return the variance between instances under which Q is what it should be."""

    def excess(variance: float) -> float:
        weight = 1 / (variance + errors**2)
        off = found - np.average(found, weights=weight)
        return float(weight @ off**2) - (len(found) - 1)

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, len(found) * float(np.ptp(found)) ** 2))
