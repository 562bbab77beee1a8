"""Whether a log is so near overload that intervals by blocks are too narrow.

Blocks cannot tell by themselves. A log without a jam, where jams make the mean, has a low mean and a low error alike;
and queues that outlive blocks make these alike, as if there were no error. What all such logs have, with a jam and
without, is requests that share their waits for long. So the log is asked how many independent requests it is worth: all
of it, and those of one instance, as many instances with queues of their own hide how long each lasts. How often the
note stands where intervals hold and where they do not: `python tests/bench/near_overload.py`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.blocks import BLOCKS, block_of, block_se

__all__ = ["Worth", "independent_requests", "near_overload", "worth_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PIECES: Final = 8 * BLOCKS  # so short that a queue outlives them, where blocks are to be longer than its memory
#: Effective draws that Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021 ask of a chain before they trust its error.
_ENOUGH: Final = 400
#: Of one instance: ten to a block. Where it is so few, its queue lasts about as long as a block.
_ENOUGH_OF_ONE: Final = 10 * BLOCKS
#: Requests must be so many times as many for this to be told: even calm ones may be worth few, where they are few.
_TIMES: Final = 4


class Worth(NamedTuple):
    """How many independent requests those of a log are worth.

    Attributes:
        requests: of the log.
        independent: what they are worth.
        of_one: requests of one instance, on average; 0 where it is not known which had which.
        independent_of_one: what those are worth, on average.
    """

    requests: int
    independent: float
    of_one: float
    independent_of_one: float


def worth_of(cost: Floats, instance: Ints | None = None) -> Worth:
    """Return how many independent requests a log is worth.

    Args:
        cost: of every request, in order of arrival, shape (n,).
        instance: number of the one that had it, shape (n,); None: not known.

    >>> worth_of(np.arange(4.0), np.array([0, 1, 0, 1])).of_one
    2.0
    """
    rank = _ranks(cost)
    if instance is None:
        return Worth(len(cost), _worth(rank), 0.0, 0.0)
    order = np.argsort(instance, kind="stable")
    parts = np.split(rank[order], np.flatnonzero(np.diff(instance[order])) + 1)
    return Worth(len(cost), _worth(rank), len(cost) / len(parts), float(np.mean([_worth(part) for part in parts])))


def independent_requests(cost: Floats) -> float:
    """Return how many independent requests would tell the typical cost as well as these do, who share queues.

    It is the effective sample size by batch means, of ranks: variance of the ranks of costs over the squared standard
    error of their mean, by pieces an eighth as long as a block. Ranks, so that one jam does not decide.

    Args:
        cost: of every request, in order of arrival, shape (n,).

    >>> luck = np.random.default_rng(0).exponential(size=9600)
    >>> round(independent_requests(luck)), round(independent_requests(np.repeat(luck[:480], 20)))
    (7268, 579)
    """
    return _worth(_ranks(cost))


def _ranks(cost: Floats) -> Floats:
    """Return the rank of each cost, and the mean one of those that cost the same."""
    _, place, counts = np.unique(cost, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def _worth(rank: Floats) -> float:
    n = len(rank)
    se = block_se(rank, block_of(n, _PIECES)) if n > 1 else 0.0
    return float(rank.var() / se**2) if se > 0 else float(n)


def near_overload(found: Worth) -> list[str]:
    """Return a note where requests share their waits for so long that intervals by blocks may be too narrow.

    >>> len(near_overload(Worth(6000, 230.0, 0.0, 0.0))), len(near_overload(Worth(6000, 600.0, 1500.0, 110.0)))
    (1, 1)
    >>> near_overload(Worth(6000, 600.0, 1500.0, 180.0)), near_overload(Worth(800, 230.0, 200.0, 60.0))
    ([], [])
    """
    if found.requests >= _TIMES * _ENOUGH and found.independent < _ENOUGH:
        return [
            f"{found.requests:,} requests tell no more than {found.independent:.0f} that share no queue would: so near "
            "overload, jams that few logs have can make the mean, and the interval is then too narrow; log more"
        ]
    if found.of_one >= _TIMES * _ENOUGH_OF_ONE and found.independent_of_one < _ENOUGH_OF_ONE:
        return [
            f"{found.of_one:,.0f} requests of an instance tell no more than {found.independent_of_one:.0f} that share "
            "no queue would: so near overload, queues outlive blocks, and the interval is too narrow; log more"
        ]
    return []
