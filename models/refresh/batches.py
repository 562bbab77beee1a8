"""A log cut into the batches in which it came."""

from __future__ import annotations

import numpy as np

from lodestar.models.rows import Rows

__all__ = ["by_requests", "by_time"]


def by_requests(rows: Rows, count: int) -> list[Rows]:
    """Cut into batches of `count` rows; the last one has what is left.

    >>> at, no = np.arange(5.0), np.zeros(5, dtype=bool)
    >>> rows = Rows(np.arange(5), np.zeros((5, 0)), at + 1, no, at, at, at + 1, 5, {})
    >>> [len(batch) for batch in by_requests(rows, 2)], [len(batch) for batch in by_time(rows, 3.0)]
    ([2, 2, 1], [3, 2])
    """
    position = np.arange(len(rows))
    return [rows.only(position // count == batch) for batch in range(-(-len(rows) // count))]


def by_time(rows: Rows, seconds: float) -> list[Rows]:
    """Cut into batches of so many seconds of arrivals; a time without requests is no batch."""
    if not len(rows):
        return []
    of = np.floor((rows.arrived_at_s - rows.arrived_at_s[0]) / seconds)
    return [rows.only(of == batch) for batch in np.unique(of)]
