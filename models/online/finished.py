"""Finished requests as an online learner takes them in: what the router knew when it decided, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.features.definitions import FEATURES

__all__ = ["Finished"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Finished:
    """One row a request, in the order in which their outcomes became known.

    Attributes:
        features: of the chosen candidate at the decision, shape (n, len(FEATURES)).
        kind: hardware of its instance, '' where it is not known, shape (n,) of str.
        ttft_ms: NaN where it is not known.
        tpot_ms: the same.
        censored: whether the latencies are only lower bounds: the request was cancelled or timed out before.
        decided_at_s: time of the decision.
        finished_at_s: time at which the outcome was known.
    """

    features: Floats
    kind: NDArray[np.str_]
    ttft_ms: Floats
    tpot_ms: Floats
    censored: NDArray[np.bool_]
    decided_at_s: Floats
    finished_at_s: Floats

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.ttft_ms)

    @classmethod
    def empty(cls) -> Finished:
        """Return no request.

        >>> len(Finished.joined([Finished.empty(), Finished.empty()]))
        0
        """
        none = np.empty(0)
        return cls(
            np.empty((0, len(FEATURES))), np.empty(0, dtype=np.str_), none, none, np.empty(0, np.bool_), none, none
        )

    @classmethod
    def joined(cls, parts: Sequence[Finished]) -> Finished:
        """Put parts one behind the other; of none, there is none."""
        parts = parts or [cls.empty()]
        columns: dict[str, Any] = {
            each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)
        }
        return cls(**columns)

    def only(self, which: NDArray[Any] | slice) -> Finished:
        """Return the rows that a mask, indices or a slice name."""
        columns: dict[str, Any] = {each.name: getattr(self, each.name)[which] for each in fields(self)}
        return Finished(**columns)

    def ranges(self) -> tuple[Floats, Floats]:
        """Return the least and the greatest value of each feature, shape (len(FEATURES),) each; NaN: never known."""
        low, high = np.full((2, self.features.shape[1]), np.nan)
        known = ~np.isnan(self.features).all(axis=0)
        low[known], high[known] = np.nanmin(self.features[:, known], axis=0), np.nanmax(self.features[:, known], axis=0)
        return low, high

    def last(self, count: int) -> Finished:
        """Return the newest `count` rows, or all where there are fewer."""
        return self.only(slice(max(len(self) - count, 0), None))
