"""Finished requests on their way to the process that learns from them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.online.finished import Finished

__all__ = ["Learning"]

Floats = NDArray[np.float64]

#: Rows that are kept here in case that process ends; about as many as its pools hold.
KEPT: Final = 6000


class Learning:
    """Holds rows until they are taken, and the newest of those taken.

    Attributes:
        buffered: rows that the process said it has.
        forgotten: the rows that were taken are to be forgotten.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: list[tuple[Finished, Floats]] = []
        self._taken: deque[tuple[Finished, Floats]] = deque()
        self.buffered = 0
        self.forgotten = False

    def __len__(self) -> int:
        return self.buffered + sum(len(rows) for rows, _ in list(self._new))

    def add(self, rows: Finished, predicted_ms: Floats | None = None) -> None:
        """Take finished requests, with the TTFT that was predicted of each, NaN where none was."""
        told = np.full(len(rows), np.nan) if predicted_ms is None else predicted_ms
        with self._lock:
            self._new.append((rows, told))

    def take(self) -> tuple[Finished, Floats]:
        """Give away what is new; it may be nothing."""
        with self._lock:
            new, self._new = self._new, []
            self._taken.extend(new)
            kept = sum(len(rows) for rows, _ in self._taken)
            while self._taken and kept - len(self._taken[0][0]) >= KEPT:
                kept -= len(self._taken.popleft()[0])
        return _joined(new)

    def again(self) -> None:
        """Give away the newest rows once more, as the process that had them has ended."""
        with self._lock:
            self._new = [*self._taken, *self._new]
            self._taken.clear()
            self.buffered = 0

    def forget(self) -> None:
        """Drop all rows."""
        with self._lock:
            self._new, self.buffered, self.forgotten = [], 0, True
            self._taken.clear()


def _joined(parts: list[tuple[Finished, Floats]]) -> tuple[Finished, Floats]:
    rows = Finished.joined([rows for rows, _ in parts])
    return rows, np.concatenate([predicted_ms for _, predicted_ms in parts]) if parts else np.empty(0)
