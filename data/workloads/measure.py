"""What a workload is like, in a few numbers."""

from __future__ import annotations

import numpy as np

from lodestar.data.log import Workload

__all__ = ["facts", "seen_before_ratio", "shared_ratio"]


def facts(workload: Workload) -> dict[str, float | int]:
    """Return requests, span, rate, mean lengths and how many prompt tokens prefixes share.

    Span and rate are from the first to the last arrival; the rate is 0 where all requests arrive at once.
    """
    n, span_s = len(workload), float(workload.arrived_at_s[-1] - workload.arrived_at_s[0])
    return {
        "requests": n,
        "span_s": span_s,
        "rate_per_s": (n - 1) / span_s if span_s > 0 else 0.0,
        "prompt_tokens_mean": float(workload.prompt_tokens.mean()),
        "output_tokens_mean": float(workload.output_tokens.mean()),
        "block_tokens": workload.block_tokens,
        "shared_ratio": shared_ratio(workload),
        "seen_before_ratio": seen_before_ratio(workload),
    }


def shared_ratio(workload: Workload) -> float:
    """Return the share of prompt tokens that lie in a block which another request has too.

    >>> ids, offsets = np.array([0, 1, 0, 2]), np.array([0, 2, 4])
    >>> shared_ratio(Workload(np.zeros(2), np.full(2, 32), np.ones(2, int), ids, offsets, 16))
    0.5
    """
    if not len(workload.block_ids):
        return 0.0
    shared = np.bincount(workload.block_ids)[workload.block_ids] > 1
    return float(shared.sum() * workload.block_tokens / workload.prompt_tokens.sum())


def seen_before_ratio(workload: Workload) -> float:
    """Return the share of prompt tokens whose block an earlier request had: what one endless cache would hit.

    >>> ids, offsets = np.array([0, 1, 0, 2]), np.array([0, 2, 4])
    >>> seen_before_ratio(Workload(np.zeros(2), np.full(2, 32), np.ones(2, int), ids, offsets, 16))
    0.25
    """
    # No prompt has a block twice, so every use of a block but its first one was seen before.
    again = len(workload.block_ids) - int((np.bincount(workload.block_ids) > 0).sum()) if len(workload.block_ids) else 0
    return float(again * workload.block_tokens / workload.prompt_tokens.sum())
