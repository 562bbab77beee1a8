"""The instances that a server has seen, and the place of each among the rows that the router decides over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lodestar.pipeline.online.router import OnlineRouter

__all__ = ["Fleet"]

Floats = NDArray[np.float64]

_REMEMBERED: Final = 1024  # lists of candidates


class Fleet:
    """Places instances in a router as they are first seen.

    Attributes:
        router: that decides over them.
    """

    def __init__(self, router: OnlineRouter) -> None:
        self.router = router
        self._place: dict[str, int] = {}
        self._rows: dict[tuple[str, ...], list[int]] = {}
        self._kinds: tuple[str, ...] = ()
        self._all: list[int] = []

    def __len__(self) -> int:
        return len(self._place)

    def outgrown(self, candidates: int) -> bool:
        """Say whether most places are of instances that are gone: a gateway whose pods come and go names new ones."""
        return len(self._place) > 4 * candidates + 16

    def rows(self, names: tuple[str, ...], kinds: tuple[str, ...]) -> list[int]:
        """Return the place of each candidate; a new one gets the next free place."""
        found = self._rows.get(names)
        if found is None:
            if len(self._rows) >= _REMEMBERED:
                self._rows.clear()
            found = self._rows[names] = [self._placed(*each) for each in zip(names, kinds, strict=True)]
        elif kinds is not self._kinds:
            for row, kind in zip(found, kinds, strict=True):
                if kind and self.router.kinds[row] != kind:
                    self.router.kinds[row] = kind
        self._kinds = kinds
        return found

    def _placed(self, name: str, kind: str) -> int:
        place = self._place[name] = self.router.place(name, kind)
        self._all = list(range(len(self._place)))
        return place

    def of(self, rows: list[int]) -> slice | list[int]:
        """Return what takes the candidates out of rows for all places: a slice where that is all of them."""
        return slice(None) if rows == self._all else rows

    def snapshot(self, rows: list[int], of_candidates: Floats) -> Floats:
        """Spread the rows of the candidates over all places; NaN for an instance that is none."""
        if rows == self._all:
            return of_candidates.copy()
        every = np.full((len(self._place), of_candidates.shape[1]), np.nan)
        every[rows] = of_candidates
        return every
