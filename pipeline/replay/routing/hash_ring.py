"""Hash rings: the places of instances around a circle of 64-bit hashes, kept signed so that they sort."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit_inner

__all__ = ["SIGN", "cost_by_ring", "hash_ring"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Turns an unsigned hash, read as signed, into one that sorts as the unsigned one does.
SIGN: Final = -(1 << 63)


def hash_ring(hashes: Sequence[int], instances: int) -> Ints:
    """Return the places around the ring, in order, and below them whose each is, shape (2, places).

    Args:
        hashes: unsigned, those of the first instance first, as many of each.
        instances: how many there are.

    >>> hash_ring([7, 3, 5, 1], instances=2)[1].tolist()
    [1, 0, 1, 0]
    """
    places = np.array(hashes, dtype=np.uint64).view(np.int64) ^ np.int64(SIGN)
    order = np.argsort(places, kind="stable")
    return np.stack([places[order], np.repeat(np.arange(instances), len(hashes) // max(instances, 1))[order]])


@jit_inner
def cost_by_ring(first: int, ring: Ints, candidates: Ints, cost: Floats) -> None:
    """Make the number of candidates that come before each its cost, from the `first` column of the ring on.

    Which column is the first after a hash, routers settle otherwise where the two are equal. What is no candidate is
    walked past.
    """
    for j in candidates:
        cost[j] = -1.0
    places, met = ring.shape[1], 0
    for step in range(places):
        j = ring[1, (first + step) % places]
        if cost[j] == -1.0:
            cost[j] = met
            met += 1
            if met == len(candidates):
                break
