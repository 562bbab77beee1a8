"""Prompts and outputs of other lengths, for engines smaller than those that a trace comes from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lodestar.data.log import Workload
from lodestar.data.workloads.tables import require
from lodestar.data.workloads.transforms.rows import dense

__all__ = ["cut_prompts", "rescale_blocks", "scale_outputs"]


def cut_prompts(workload: Workload, at_most_tokens: int) -> Workload:
    """Cut longer prompts to their first tokens; a block that is no longer whole goes."""
    require("at_most_tokens", at_most_tokens, at_most_tokens >= 1, "1 or more")
    prompt_tokens = np.minimum(workload.prompt_tokens, at_most_tokens)
    listed = np.diff(workload.block_offsets)
    count = np.minimum(listed, prompt_tokens // workload.block_tokens)
    within = np.arange(len(workload.block_ids)) - np.repeat(workload.block_offsets[:-1], listed)
    return replace(
        workload,
        prompt_tokens=prompt_tokens,
        block_ids=dense(workload.block_ids[within < np.repeat(count, listed)]),
        block_offsets=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
    )


def rescale_blocks(workload: Workload, block_tokens: int) -> Workload:
    """Let each block stand for another number of tokens, and scale the prompts with it; blocks stay the same.

    >>> w = Workload(np.zeros(1), np.array([1100]), np.ones(1, int), np.arange(2), np.array([0, 2]), 512)
    >>> rescale_blocks(w, 50).prompt_tokens.tolist()
    [107]
    """
    require("block_tokens", block_tokens, block_tokens >= 1, "1 or more")
    scaled = workload.prompt_tokens * block_tokens // workload.block_tokens
    return replace(workload, prompt_tokens=np.maximum(scaled, 1), block_tokens=block_tokens)


def scale_outputs(workload: Workload, ratio: float) -> Workload:
    """Multiply output lengths, rounded, and at least 1 where there was an output."""
    require("ratio", ratio, 0 < ratio < float("inf"), "more than 0")
    scaled = np.rint(workload.output_tokens * ratio).astype(np.int64)
    return replace(workload, output_tokens=np.maximum(scaled, np.minimum(workload.output_tokens, 1)))
