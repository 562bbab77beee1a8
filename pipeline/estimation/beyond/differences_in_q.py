"""Two routers on one system, a coin for every request: what all of the traffic under one would cost, less the other.

Estimand: *closed loop, all B minus all A*. The plain difference of the arms' means is not it: requests of both arms
stand in the same queues and caches, so that a router that spares them spares the other arm as well.

ATE ≈ mean over requests of B of G^H − mean over those of A of G^H, with G_i^H = Σ_{k<H} (y_{i+k} − ȳ) over all later
requests of both arms. It is the difference of the values of the mixed system's own Q function, cut off at H requests;
H = 1 is the plain difference. The error is of second order in how much the arms differ in where they lead the system:
small for two good routers, large where one arm alone would overload it, or where one alone would keep caches warm and
the mix of both does not. A log of one mix tells the slope at that mix and nothing of how it bends on the way to either
arm, so that the interval cannot know. What the log tells well is the plain difference: where it is more than a quarter
of the mean cost, intervals often hold too seldom; where it is less, they hold, but for caches
(`tests/bench/router_worlds.py`).

Reference: Farias, Li, Peng and Zheng 2022, Markovian interference in experiments (NeurIPS, arXiv:2206.02371).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.beyond.derivative import DerivativePath, contrast

__all__ = ["ESTIMAND", "DifferencesInQ", "differences_in_q"]

ESTIMAND: Final = "closed loop, all B minus all A"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NOTE: Final = (
    "its error is of second order in how differently the two arms load the system and fill its caches: near for two "
    "good routers"
)
#: Of the mean cost: a plain difference beyond it is of arms that differ too much for a slope.
_MUCH: Final = 0.25
_FAR: Final = 3.0  # standard errors, beyond which a coin was not what it is said to be


@dataclass(frozen=True, slots=True)
class DifferencesInQ:
    """The difference of two arms as the plain means have it, and with what later requests pay.

    Attributes:
        naive: mean cost of B less that of A, in the unit of the cost.
        naive_se: its standard error by blocks.
        path: the estimate over horizons; `path.value` and `path.se` are the answer.
    """

    naive: float
    naive_se: float
    path: DerivativePath

    def to_dict(self) -> dict[str, Any]:
        """Return all of it ready for JSON."""
        return {**self.path.to_dict(), "estimand": ESTIMAND, "naive": self.naive, "naive_se": self.naive_se}


def differences_in_q(
    cost: Floats,
    arm: Ints,
    share: float | Floats = 0.5,
    horizons: Ints | None = None,
    block: int | None = None,
    known: Floats | None = None,
) -> DifferencesInQ:
    """Estimate what all of the traffic under arm 1 would cost more than all of it under arm 0.

    Args:
        cost: of each request, in order of arrival, shape (n,).
        arm: that the coin gave each request, 0 or 1, shape (n,).
        share: probability of arm 1, of all requests or of each, shape (n,); it may depend on what was known before.
        horizons: as for `derivative`.
        block: as for `derivative`.
        known: as for `derivative`.

    Raises:
        DataError: arms or shares that are none, or an arm without requests.
        ConfigError: as `derivative`.

    >>> random = np.random.default_rng(0)
    >>> arm = random.integers(0, 2, 20_000)
    >>> found = differences_in_q(arm + 2.0 * np.append(0, arm[:-1]), arm)  # costs 1 now, and 2 the next request
    >>> print(f"{found.naive:.1f} for the plain difference, {found.path.values[1]:.1f} with the next request")
    1.0 for the plain difference, 3.0 with the next request
    """
    if arm.shape != cost.shape or not np.isin(arm, (0, 1)).all():
        raise DataError(f"arms have shape {arm.shape}; expected {cost.shape}, each 0 or 1")
    chance = np.broadcast_to(np.asarray(share, dtype=np.float64), cost.shape)
    if not ((chance > 0) & (chance < 1)).all():
        raise DataError("the share of arm 1 must lie between 0 and 1 for every request; expected a coin for each")
    if not 0 < arm.sum() < len(arm):
        raise DataError(f"all {len(arm)} requests are of one arm; expected both, by a coin for each request")
    path = contrast(cost, arm / chance, (1 - arm) / (1 - chance), horizons, block, known)
    off = float(np.sum(arm - chance) / np.sqrt(np.sum(chance * (1 - chance))))
    plain = contrast(cost, arm / chance, (1 - arm) / (1 - chance), np.ones(1, dtype=np.int64), block)
    notes = [_NOTE, *path.notes[1:]]
    if abs(plain.value) > _MUCH * abs(float(cost.mean())):
        notes.append(
            f"the arms differ by {abs(plain.value / cost.mean()):.0%} of the mean cost at once: beyond {_MUCH:.0%} the "
            "interval is often too narrow, and the true difference mostly larger; read it as a direction, and let the "
            "routers take turns to learn the size"
        )
    if abs(off) > _FAR:
        notes.append(
            f"arm 1 has {arm.mean():.1%} of the requests, {off:+.1f} standard errors off its share: no fair coin"
        )
    return DifferencesInQ(plain.value, plain.se, replace(path, notes=tuple(notes)))
