"""Blocks of consecutive requests, drawn together: neighbours share queues, so their latencies err together."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCKS", "block_draws", "block_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCKS: Final = 25  # each then spans more than a queue's memory


def block_of(requests: int) -> Ints:
    """Return the block of each request.

    >>> np.bincount(block_of(100)).tolist()[:3], int(block_of(100).max())
    ([4, 4, 4], 24)
    """
    return np.arange(requests) * min(BLOCKS, requests) // max(1, requests)


def block_draws(requests: int, draws: int, seed: int = 0) -> Floats:
    """Return how often each request is drawn, shape (draws, requests)."""
    block = block_of(requests)
    blocks = int(block.max(initial=0)) + 1
    counts = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)
    return counts[:, block].astype(np.float64)
