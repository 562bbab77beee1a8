"""How loaded the candidate was: the slices by which errors are told and quantiles are calibrated."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.features.definitions import FEATURE_NAMES

__all__ = ["EDGES", "QUEUES", "SLICES", "load_slice", "queue_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Requests that wait at the candidate; 'unknown' where the log tells of no queue.
SLICES: Final = ("0", "1-2", "3-5", "6+", "unknown")
#: The first count of every slice but the first and 'unknown'.
EDGES: Final = (1.0, 3.0, 6.0)
#: Columns that tell of the queue, the best first.
QUEUES: Final = tuple(
    FEATURE_NAMES.index(name) for name in (schema.WAITING_REQUESTS, "queued_requests", schema.INFLIGHT_PREFILL_REQUESTS)
)


def queue_of(features: Floats) -> Floats:
    """Return the requests that wait at each candidate, told as `load_slice` tells them; NaN where nothing tells.

    >>> features = np.full((1, len(FEATURE_NAMES)), np.nan)
    >>> features[0, FEATURE_NAMES.index("queued_requests")] = 4.0
    >>> queue_of(features)
    array([4.])
    """
    queue = features[:, QUEUES[0]]
    for column in QUEUES[1:]:
        queue = np.where(np.isnan(queue), features[:, column], queue)
    return queue


def load_slice(features: Floats) -> Ints:
    """Return the position in `SLICES` of every row of `features` (n, len(FEATURE_NAMES)).

    A row is sliced by its waiting requests; where these are missing (NaN) by its queued requests, and where those are
    missing too by the requests in flight before their first token.

    >>> features = np.full((3, len(FEATURE_NAMES)), np.nan)
    >>> features[0, FEATURE_NAMES.index("waiting_requests")] = 2.0
    >>> features[1, FEATURE_NAMES.index("inflight_prefill_requests")] = 7.0
    >>> [SLICES[of] for of in load_slice(features)]
    ['1-2', '6+', 'unknown']
    """
    queue = queue_of(features)
    known = np.searchsorted(EDGES, queue, side="right")
    return np.where(np.isnan(queue), len(SLICES) - 1, known).astype(np.int64)
