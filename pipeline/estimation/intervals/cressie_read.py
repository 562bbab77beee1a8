"""Cressie–Read intervals: the values that some reweighting of the log near to its own can give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.intervals.bounds import Bounds
from lodestar.pipeline.estimation.intervals.interval import ALONG_PATH, Interval, check_level

__all__ = ["cressie_read"]

Floats = NDArray[np.float64]

_NOTHING: Final = 1e-9  # an error as small as this is none


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of the log, and the least and largest weight that any decision could have."""

    n: float
    w: float
    ww: float
    wr: float
    wwr: float
    wwrr: float
    r: float
    least: float
    largest: float
    about_mean: float

    def spread(self, unseen: float) -> float:
        """Return the variance of the weights with that of an unseen decision among them.

        As a mean square less a squared mean it would be lost to rounding where all weights are nearly alike.
        """
        return (self.about_mean + self.n * (unseen - self.w / self.n) ** 2 / (1 + self.n)) / (1 + self.n)


def cressie_read(
    cost: Floats, weight: Floats, bounds: Bounds, largest_weight: float = math.inf, level: float = 0.95
) -> Interval:
    """Return the Cressie–Read estimate and interval, of the power −2, which has a closed form.

    The log and one decision that was not seen are reweighted so that weights average 1 and the divergence from equal
    shares stays below that of the best such reweighting by no more than F(1, n) allows; the interval is the range of
    values that this leaves. The estimate puts what is left of the probability on the mean logged cost.

    The conservative interval: where SNIPS and DR intervals hold 95 %, it holds 99 % and is up to twice as wide. It
    takes decisions one by one and claims the value along this logged path.

    Args:
        cost: of every decision, within the bounds, shape (n,).
        weight: importance weight of every decision, shape (n,).
        bounds: the least and the largest cost that any request could have; they must hold, and not only for this log.
        largest_weight: that any decision could have, such as 1 over the least propensity; infinite where unknown.
        level: how often it should hold.

    Reference: Karampatziakis, Langford and Mineiro 2019, Empirical likelihood for contextual bandits; as
    vw-estimators 0.2.2 computes it, but where all weights are 0 the interval is all of the bounds.

    >>> w, y = np.tile([0.5, 1.5], 50), np.tile([0.2, 0.6, 0.4, 0.8], 25)
    >>> found = cressie_read(y, w, Bounds(0.0, 1.0))
    >>> print(f"{found.value:.3f} in {found.lower:.3f} to {found.upper:.3f}")
    0.603 in 0.521 to 0.626
    """
    check_level(level)
    bounds.check(cost)
    if weight.shape != cost.shape or not ((weight >= 0) & np.isfinite(weight)).all():
        raise DataError(f"weight has shape {weight.shape}; expected {cost.shape}, all finite and none below 0")
    if not largest_weight > 1 or weight.max() > largest_weight:
        raise ConfigError(
            f"largest weight {largest_weight} is not usable; expected above 1, and {weight.max():.6g} or more"
        )
    sums = _sums(cost, weight, largest_weight)
    cut = _cut(sums, level)
    below = min(_candidates(sums, bounds.least, 1, cut))
    above = -min(_candidates(sums, bounds.largest, -1, cut))
    return Interval(
        _point(sums), bounds.clip(below), bounds.clip(above), level, ALONG_PATH, "Cressie-Read of the power -2"
    )


def _sums(cost: Floats, weight: Floats, largest_weight: float) -> _Sums:
    weighted = weight * cost
    return _Sums(
        float(len(cost)),
        float(weight.sum()),
        float(np.sum(weight**2)),
        float(weighted.sum()),
        float(np.sum(weight * weighted)),
        float(np.sum(weighted**2)),
        float(cost.sum()),
        0.0,
        largest_weight,
        float(np.sum((weight - weight.mean()) ** 2)),
    )


def _unseen(of: _Sums) -> float:
    """Return the weight of the unseen decision that brings the average nearer to 1."""
    return of.largest if of.w < of.n else of.least


def _point(of: _Sums) -> float:
    n, unseen = of.n, _unseen(of)
    if math.isinf(unseen):
        gamma, beta = -(1 + n) / n, 0.0
    else:
        mean, square, spread = (unseen + of.w) / (1 + n), (unseen**2 + of.ww) / (1 + n), of.spread(unseen)
        gamma, beta = (mean - square) / spread, (mean - 1) / spread
    missing = 1 - (-gamma * of.w - beta * of.ww) / (1 + n)
    return (-gamma * of.wr - beta * of.wwr) / (1 + n) + missing * of.r / n


def _cut(of: _Sums, level: float) -> float:
    """Return φ: how far from equal shares a reweighting may go, less the divergence of the best one."""
    n, unseen = of.n, _unseen(of)
    best = 1 + 1 / n if math.isinf(unseen) else (1 + n) * ((unseen + of.w) / (1 + n) - 1) ** 2 / of.spread(unseen)
    return (-best - float(fdtri(1, n, level))) / (2 * (1 + n))


def _candidates(of: _Sums, r: float, sign: int, cut: float) -> Iterator[float]:
    """Yield sign × the extreme value, with an unseen decision of cost r and the least, then the largest weight.

    One at least: that with the weight of `_unseen` is always near enough.
    """
    n = of.n
    for unseen in (of.least, of.largest):
        if math.isinf(unseen):
            x = sign * (r + (of.wr - of.w * r) / n)
            y = (r * of.w - of.wr) ** 2 / (n * (1 + n)) - (r**2 * of.ww - 2 * r * of.wwr + of.wwrr) / (1 + n)
            z = cut + 1 / (2 * n)
        else:
            w, spread = (unseen + of.w) / (1 + n), of.spread(unseen)
            wr, wwr = sign * (unseen * r + of.wr) / (1 + n), sign * (unseen**2 * r + of.wwr) / (1 + n)
            if spread == 0:
                continue
            x = wr + (1 - w) * (wwr - w * wr) / spread
            y = (wwr - w * wr) ** 2 / spread - ((unseen**2 * r**2 + of.wwrr) / (1 + n) - wr**2)
            z = cut + (1 - w) ** 2 / (2 * spread)
        y = min(y, 0.0)  # the negative of a variance, which rounding makes positive where all costs are alike
        if abs(y * z) <= _NOTHING**2:
            yield x - math.sqrt(2) * _NOTHING
        elif z <= 0 <= y * z:
            yield x - math.sqrt(2 * y * z)
