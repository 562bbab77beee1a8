"""Blocks of consecutive requests: the unit that counts as one where neighbours share a queue.

Estimand of a block standard error: the value over traffic like the logged one. Requests taken as independent (blocks of
one) speak of the value along this very log alone, and cover the former 62 % of the time where 95 % is claimed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError

__all__ = ["BLOCKS", "FEWEST_BLOCKS", "MOST_BLOCKS", "block_of", "block_se", "block_sums", "blocks_in"]

Floats = NDArray[np.float64]

#: Blocks that a log is cut into where nothing else is asked. So few that each spans more than a queue or a conversation
#: remembers; how unsure so few are, Student's t adds. On replayed logs of conversations intervals of 25 blocks held 91
#: to 94 % of the time, those of 12 blocks 97 to 98 % (`replayed_coverage`). Reference: Ibragimov and Müller 2010, who
#: take 8 to 16.
BLOCKS: Final = 12
#: With fewer there is hardly anything to tell a spread by.
FEWEST_BLOCKS: Final = 8
#: With more, a log of a few thousand requests has blocks that a queue outlives.
MOST_BLOCKS: Final = 100


def block_of(decisions: int, blocks: int = BLOCKS) -> int:
    """Return how many consecutive decisions count as one where there are to be so many blocks.

    >>> block_of(2400), block_of(2400, blocks=8)
    (200, 300)
    """
    return max(1, -(-decisions // blocks))


def blocks_in(rows: int, block: int) -> int:
    """Return how many blocks of consecutive rows there are, at least two; a shorter one may come last.

    >>> blocks_in(2491, 100)
    25
    """
    blocks = -(-rows // block) if block >= 1 else 0
    if blocks < 2:
        raise ConfigError(f"block {block} does not fit; expected at least two blocks in {rows} requests")
    return blocks


def block_sums(values: Floats, block: int) -> Floats:
    """Add up blocks of consecutive rows; a shorter one may come last, shape (n, …) → (blocks, …).

    >>> block_sums(np.arange(5.0), 2)
    array([1., 5., 4.])
    """
    blocks_in(len(values), block)  # refuses one that does not fit
    return np.asarray(np.add.reduceat(values, np.arange(0, len(values), block), axis=0))


def block_se(influence: Floats, block: int) -> float:
    """Return the standard error of a mean from its influence values, by blocks of consecutive requests.

    With blocks of equal length this is sd(block means) / √blocks; a shorter last block counts by its length.

    >>> round(block_se(np.array([1.0, 3.0, 5.0, 7.0]), block=2), 3)
    2.0
    """
    sums = block_sums(influence - influence.mean(), block)
    return float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2)) / len(influence))
