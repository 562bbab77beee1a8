"""Bounds that a cost cannot leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError

__all__ = ["Bounds"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the largest cost that any request could have, such as 0 and a timeout.

    They are a promise about requests that were not logged, too; the least and largest of a log are not such bounds.

    Attributes:
        least: in the unit of the cost.
        largest: in the same.
    """

    least: float
    largest: float

    def __post_init__(self) -> None:
        """Refuse bounds that hold nothing."""
        if not -np.inf < self.least < self.largest < np.inf:
            raise ConfigError(
                f"bounds {self.least} to {self.largest} are not usable; expected finite ones, least first"
            )

    def check(self, cost: Floats) -> None:
        """Refuse costs that lie outside, of any shape."""
        if cost.size == 0 or not np.isfinite(cost).all():
            raise DataError("costs are missing or not finite; leave out the requests that did not finish")
        outside = (cost < self.least) | (cost > self.largest)
        if outside.any():
            raise DataError(
                f"{outside.sum()} costs lie outside the bounds {self.least:g} to {self.largest:g}, such as "
                f"{cost[outside].flat[0]:g}; expected all inside. Name bounds that hold, such as a timeout"
            )

    def scaled(self, cost: Floats) -> Floats:
        """Return costs as shares of the way from the least to the largest.

        >>> Bounds(100.0, 300.0).scaled(np.array([150.0]))
        array([0.25])
        """
        return np.asarray((cost - self.least) / (self.largest - self.least))

    def clip(self, value: float) -> float:
        """Return the nearest value inside, for a bound of an interval, which the truth cannot lie beyond."""
        return min(self.largest, max(self.least, value))
