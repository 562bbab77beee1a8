"""Lodestar's saturation filter: while caches are full, a prefix group keeps to the instances that its hash names."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.pipeline.replay.prefixes import PrefixTree

__all__ = ["kept_by_group", "prefix_groups"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT: Final = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_USAGE: Final = schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)
_WORTH_TOKENS: Final = 100.0  # a smaller hit keeps nobody from going elsewhere


def prefix_groups(tree: PrefixTree, depth_tokens: float = 0.0) -> Ints:
    """Return the prefix node in which each prompt reaches a depth, or its last one; -1 where nothing is shared.

    >>> path, offsets, end = np.array([0, 1, 0]), np.array([0, 2, 3, 3]), np.array([8, 64])
    >>> prefix_groups(PrefixTree(path, offsets, np.array([0, 8]), end), 10.0).tolist()
    [1, 0, -1]
    """
    groups = np.full(len(tree.offsets) - 1, -1, dtype=np.int64)
    for i, (start, end) in enumerate(zip(tree.offsets[:-1].tolist(), tree.offsets[1:].tolist(), strict=True)):
        if end > start:
            deep = np.flatnonzero(tree.node_end[tree.path[start:end]] >= depth_tokens)
            groups[i] = tree.path[start + deep[0] if len(deep) else end - 1]
    return groups


def kept_by_group(
    prompt_tokens: float, snapshot: Floats, candidates: Ints, group: int, count: int, saturation_ratio: float
) -> Ints:
    """Return the candidates that a request may go to: all, or, if the filter holds, those that its group's hash names.

    Args:
        prompt_tokens: of the request.
        snapshot: shape (m, len(SNAPSHOT_FIELDS)).
        candidates: to choose from.
        group: of its prefix; -1: none.
        count: how many instances a group has; 0: no filter. Two hashes may name the same.
        saturation_ratio: mean cache usage from which the filter holds, if a hit is worth more than 100 tokens.
    """
    if count == 0 or group < 0:
        return candidates
    usage = float(np.nan_to_num(snapshot[candidates, _USAGE]).mean())
    hit = float(np.nan_to_num(snapshot[candidates, _HIT]).max())
    if usage <= saturation_ratio or hit * prompt_tokens <= _WORTH_TOKENS:
        return candidates
    return np.unique(candidates[[_mixed(group, salt) % len(candidates) for salt in range(count)]])


def _mixed(group: int, salt: int) -> int:
    """Hash a group with a salt (SplitMix64's finaliser)."""
    mask = (1 << 64) - 1
    x = (group * 0x9E3779B97F4A7C15 + (salt + 1) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)
