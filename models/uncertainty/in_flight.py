"""Rows whose outcome a model's calibration has not learned yet, because it was not known at the last decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.uncertainty.conformal import QUANTILES

__all__ = ["InFlight"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FIELDS: Final = (
    "features", "log_ms", "censored", "arrived_at_s", "finished_at_s", "raw_log_ms", "offsets", "aims"
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class InFlight:
    """Rows in order of arrival, with what was stated of them; each is learned once it has finished.

    Attributes:
        features: shape (n, len(FEATURES)).
        log_ms: logarithm of the latency.
        censored: whether it is only a lower bound.
        arrived_at_s: when the decision was made.
        finished_at_s: when the outcome was known.
        raw_log_ms: of the heads that stated the row, (n, 3).
        offsets: that were added to it, (n, 3); NaN where a model without feedback stated the row, so that its misses
            are not those of the one that learns from it.
        aims: shares of misses that the offsets aimed at, (n, 3).
    """

    features: Floats
    log_ms: Floats
    censored: Bools
    arrived_at_s: Floats
    finished_at_s: Floats
    raw_log_ms: Floats
    offsets: Floats
    aims: Floats

    @classmethod
    def none(cls, columns: int = 0) -> InFlight:
        """Return no rows, of so many features.

        >>> len(InFlight.none())
        0
        """
        empty, by_quantile = np.zeros(0), np.zeros((0, len(QUANTILES)))
        no = np.zeros(0, dtype=np.bool_)
        return cls(np.zeros((0, columns)), empty, no, empty, empty, by_quantile, by_quantile, by_quantile)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.log_ms)

    def only(self, keep: Bools) -> InFlight:
        """Return the rows where `keep` holds."""
        return InFlight(**{name: getattr(self, name)[keep] for name in _FIELDS})

    def then(self, newer: InFlight) -> InFlight:
        """Return these rows and the newer ones."""
        if not len(self) or not len(newer):
            return newer if len(newer) else self
        return InFlight(**{name: np.concatenate([getattr(self, name), getattr(newer, name)]) for name in _FIELDS})

    def arrays(self) -> dict[str, Any]:
        """Return all columns by name, ready to be saved."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> InFlight:
        """Put together what `arrays` returned."""
        return cls(**{name: arrays[name] for name in _FIELDS})
