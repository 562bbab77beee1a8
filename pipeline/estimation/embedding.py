"""Kinds of candidates for marginalised weights: cells of (prefix hit, queue, hardware).

Two candidates of one cell are taken to cost the same, so that only the probability of the cell matters. Finer buckets
make that truer, and the weights larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError

__all__ = ["HIT_EDGES", "QUEUE_EDGES", "bucket_of", "cells", "quantile_edges"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Buckets of the hit ratio: none, up to a quarter, to a half, to three quarters, above.
HIT_EDGES: Final = (0.0, 0.25, 0.5, 0.75)
#: Buckets of the requests waiting: none, 1, 2, 3–4, 5–8, …, more than 64.
QUEUE_EDGES: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def bucket_of(values: Floats, edges: Sequence[float]) -> Ints:
    """Return the bucket of every value, any shape; an edge is the last value of its bucket.

    Missing values (NaN) are in a bucket of their own, the last, ``len(edges) + 1``.

    >>> bucket_of(np.array([0.0, 0.1, 0.25, 0.9, np.nan]), HIT_EDGES).tolist()
    [0, 1, 1, 4, 5]
    """
    if not len(edges) or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise ConfigError(f"edges {list(edges)} do not fit; expected one or more numbers, each above the one before")
    found = np.searchsorted(np.asarray(edges), values, side="left")
    return np.where(np.isnan(values), len(edges) + 1, found)


def quantile_edges(values: Floats, buckets: int) -> tuple[float, ...]:
    """Return edges that put about as many of the values into each bucket; fewer where many values are equal.

    >>> quantile_edges(np.array([1.0, 2.0, 3.0, 4.0, np.nan]), 2)
    (2.0,)
    """
    known = np.asarray(values)[~np.isnan(values)]
    if buckets < 2 or not len(known):
        raise ConfigError(
            f"{buckets} buckets of {len(known)} known values do not fit; expected two or more buckets and some values"
        )
    shares = np.arange(1, buckets) / buckets
    return tuple(np.unique(np.quantile(known, shares, method="inverted_cdf")).tolist())


def cells(
    hit_ratio: Floats,
    queue: Floats,
    hardware: Ints | None = None,
    hit_edges: Sequence[float] = HIT_EDGES,
    queue_edges: Sequence[float] = QUEUE_EDGES,
) -> Ints:
    """Return the cell of every candidate, numbered from 0, shape (c,): the same for the same three, in any log.

    Args:
        hit_ratio: share of the prompt that the router believes cached there, 0 to 1, NaN where not known, shape (c,).
        queue: requests waiting there, or in flight, NaN where not known, shape (c,).
        hardware: kind of its hardware, numbered from 0, −1 where not known, shape (c,); None: all alike.
        hit_edges: of the buckets of the hit ratio.
        queue_edges: of the buckets of the queue.

    >>> cells(np.array([0.0, 0.1, 0.2, np.nan]), np.array([0.0, 3.0, 4.0, 0.0])).tolist()
    [0, 13, 13, 50]
    """
    kind = np.zeros(len(hit_ratio), dtype=np.int64) if hardware is None else np.asarray(hardware) + 1
    if not (len(hit_ratio) == len(queue) == len(kind)):
        raise DataError(
            f"{len(hit_ratio)} hit ratios, {len(queue)} queues and {len(kind)} kinds of hardware; "
            "expected one of each a candidate"
        )
    if (kind < 0).any():
        raise DataError(f"hardware {int(kind.min()) - 1} is no kind; expected 0 or more, or -1 where it is not known")
    hit, waiting = bucket_of(hit_ratio, hit_edges), bucket_of(queue, queue_edges)
    return (kind * (len(hit_edges) + 2) + hit) * (len(queue_edges) + 2) + waiting
