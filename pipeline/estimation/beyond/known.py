"""What is known of a running system before a decision: costs of the requests before it, how many are in flight."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["costs_before", "costs_seen", "in_flight", "known_before"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BEFORE: Final = (4, 16, 64)  # requests before a decision whose mean tells how busy the system is


def costs_before(cost: Floats) -> Floats:
    """Return the mean cost of the requests just before each one, less the mean of all, over a few lengths.

    Some of these costs may still be open when the request comes: see `costs_seen`.

    Args:
        cost: of each request, in order of arrival, shape (n,).

    Returns:
        shape (n, 3); requests that are missing before the first ones count as the mean of all.

    >>> costs_before(np.array([1.0, 3.0, 5.0]))[:, 0].tolist()
    [0.0, -0.5, -0.5]
    """
    total, at = np.concatenate([[0.0], np.cumsum(cost - cost.mean())]), np.arange(len(cost))
    return np.stack([(total[at] - total[np.maximum(at - many, 0)]) / many for many in _BEFORE], axis=1)


def in_flight(arrived_at_s: Floats, ended_at_s: Floats) -> Ints:
    """Return how many requests had come before each one came and had not ended by then, shape (n,).

    Args:
        arrived_at_s: of each request, in any order, shape (n,).
        ended_at_s: of the same requests, no earlier than they came, shape (n,).

    >>> in_flight(np.array([0.0, 1.0, 2.0]), np.array([1.5, 5.0, 3.0])).tolist()
    [0, 1, 1]
    """
    come = np.searchsorted(np.sort(arrived_at_s), arrived_at_s, side="left")
    gone = np.searchsorted(np.sort(ended_at_s), arrived_at_s, side="left")
    return np.asarray(come - gone, dtype=np.int64)


def costs_seen(cost: Floats, seen_at_s: Floats, arrived_at_s: Floats, many: int) -> Floats:
    """Return the mean of the last costs that were seen before each request came, NaN where none was, shape (n,).

    `costs_before` has the requests just before as well, whose costs may still be open: what is decided next can move
    them where requests share a step of an instance.

    Args:
        cost: of each request, shape (n,).
        seen_at_s: when it was known, shape (n,).
        arrived_at_s: when each request came, shape (n,).
        many: costs to take the mean of; fewer where fewer were seen.

    >>> costs_seen(np.array([8.0, 4.0, 6.0]), np.array([2.0, 1.0, 9.0]), np.array([0.0, 1.5, 3.0]), 2).tolist()
    [nan, 4.0, 6.0]
    """
    order = np.argsort(seen_at_s, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(cost[order])])
    until = np.searchsorted(seen_at_s[order], arrived_at_s, side="left")
    since = np.maximum(until - many, 0)
    mean = np.full(len(cost), np.nan)
    return np.asarray(np.divide(total[until] - total[since], until - since, out=mean, where=until > 0))


def known_before(cost: Floats, seen_at_s: Floats, arrived_at_s: Floats) -> Floats:
    """Return what was known of the system when each request came, for `derivative` to take off what it foretells.

    The mean of the last costs that had been seen, less the mean of all, over a few lengths; and how many requests had
    come whose cost was still open. Taking off what they foretell leaves the derivative as right as it is, with less
    than half of the noise where queues are long. `costs_before` would not: where a decision moves costs that are still
    open, it takes off a part of what the decision did.

    Args:
        cost: of each request, shape (n,).
        seen_at_s: when it was known, shape (n,).
        arrived_at_s: when each request came, shape (n,).

    Returns:
        shape (n, 4); where nothing had been seen, the mean of all stands for it.

    >>> cost, seen_at_s, arrived_at_s = np.array([[1.0, 3.0, 5.0], [2.0, 3.0, 9.0], [0.0, 2.5, 4.0]])
    >>> known_before(cost, seen_at_s, arrived_at_s)[:, [0, 3]].tolist()
    [[0.0, 0.0], [-2.0, 0.0], [-1.0, 0.0]]
    """
    seen = [costs_seen(cost, seen_at_s, arrived_at_s, many) - cost.mean() for many in _BEFORE]
    return np.column_stack([*(np.nan_to_num(each) for each in seen), in_flight(arrived_at_s, seen_at_s)])
