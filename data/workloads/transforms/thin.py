"""Fewer requests over the same time."""

from __future__ import annotations

import numpy as np

from lodestar.data.log import Ints, Workload
from lodestar.data.workloads.tables import require
from lodestar.data.workloads.transforms.rows import pick

__all__ = ["prefix_groups", "thin"]


def thin(
    workload: Workload, keep_ratio: float, seed: int, groups: bool = False, below_blocks: int | None = None
) -> Workload:
    """Keep a share of the requests, or with `groups` of the prefix groups, each with all its requests.

    The number kept is exact, to the nearest; which ones is drawn. Sessions, agent trees and sharing sets are prefix
    groups; see `prefix_groups`.
    """
    require("keep_ratio", keep_ratio, 0 < keep_ratio <= 1, "more than 0, to 1")
    n = len(workload)
    group = prefix_groups(workload, below_blocks) if groups else np.arange(n)
    names = np.unique(group)
    kept = np.random.default_rng(seed).permutation(names)[: round(keep_ratio * len(names))]
    what = f"a share of {keep_ratio:g} of {len(names)} {'prefix groups' if groups else 'requests'}"
    return pick(workload, np.flatnonzero(np.isin(group, kept)), what)


def prefix_groups(workload: Workload, below_blocks: int | None = None) -> Ints:
    """Give every request the number of its prefix group: those that have the same block below a common beginning.

    The common beginning, such as a system prompt, is as many blocks as all requests have in common, or `below_blocks`.
    A request that ends within it shares no group with another.

    >>> ids, offsets = np.array([0, 1, 0, 1, 2, 0, 3]), np.array([0, 2, 5, 7])
    >>> prefix_groups(Workload(np.zeros(3), np.full(3, 48), np.ones(3, int), ids, offsets, 16)).tolist()
    [1, 1, 3]
    """
    require("below_blocks", below_blocks, below_blocks is None or below_blocks >= 0, "0 or more")
    ids, offsets = workload.block_ids, workload.block_offsets
    skipped = _common_blocks(workload) if below_blocks is None else below_blocks
    has_more = np.diff(offsets) > skipped
    alone = int(ids.max(initial=-1)) + 1
    group = alone + np.arange(len(workload))
    group[has_more] = ids[offsets[:-1][has_more] + skipped]
    return group


def _common_blocks(workload: Workload) -> int:
    """Count the blocks that every request with blocks begins with; one request alone has none in common."""
    has = np.diff(workload.block_offsets) > 0
    if has.sum() < 2:
        return 0
    uses = np.bincount(workload.block_ids)
    start = workload.block_offsets[:-1][has][0]
    path = workload.block_ids[start : workload.block_offsets[1:][has][0]]
    return int((uses[path] == has.sum()).sum())
