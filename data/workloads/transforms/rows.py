"""Some requests of a workload, in the order of arrival."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lodestar.data.conversations import numbered_sessions
from lodestar.data.errors import DataError
from lodestar.data.log import Ints, Workload

__all__ = ["dense", "pick"]


def pick(workload: Workload, rows: Ints, what: str = "the selection") -> Workload:
    """Keep requests by index, which must rise; arrivals count from the first of them.

    `what` names the selection in the error for an empty one.
    """
    if not len(rows):
        raise DataError(f"{what} holds no request of {len(workload)}; expected one or more. Choose another")
    count = np.diff(workload.block_offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    at = np.arange(offsets[-1]) + np.repeat(workload.block_offsets[:-1][rows] - offsets[:-1], count)
    arrived_at_s = workload.arrived_at_s[rows]
    return replace(
        workload,
        arrived_at_s=arrived_at_s - arrived_at_s[0],
        prompt_tokens=workload.prompt_tokens[rows],
        output_tokens=workload.output_tokens[rows],
        block_ids=dense(workload.block_ids[at]),
        block_offsets=offsets,
        priority=None if workload.priority is None else workload.priority[rows],
        cancel_after_s=None if workload.cancel_after_s is None else workload.cancel_after_s[rows],
        session=None if workload.session is None else numbered_sessions(workload.session[rows]),
    )


def dense(block_ids: Ints) -> Ints:
    """Number ids anew from 0 without gaps, in their order.

    >>> dense(np.array([7, 3, 7, 9])).tolist()
    [1, 0, 1, 2]
    """
    if not len(block_ids):
        return block_ids
    low, high = int(block_ids.min()), int(block_ids.max())
    if high - low > 8 * len(block_ids) + 1024:  # too many gaps to count them one by one
        return np.unique(block_ids, return_inverse=True)[1].astype(np.int64)
    used = np.zeros(high - low + 1, dtype=np.bool_)
    used[block_ids - low] = True
    number: Ints = (np.cumsum(used) - 1)[block_ids - low]
    return number
