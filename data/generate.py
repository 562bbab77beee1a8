"""Workloads made to order: requests in groups that share a prefix, arriving at random."""

from __future__ import annotations

from typing import Final

import numpy as np

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload

__all__ = ["sharing_workload"]

BLOCK_TOKENS: Final = 16


def sharing_workload(
    requests: int,
    rate_per_s: float,
    sharing_ratio: float,
    seed: int,
    requests_per_prefix: int = 10,
    prompt_tokens: tuple[int, ...] = (1000, 2000, 4000, 8000),
    output_tokens: int = 100,
    output_spread_tokens: int = 10,
) -> Workload:
    """Make a sharing workload like the Lodestar paper's: Poisson arrivals, groups of requests with a common prefix.

    Every group draws one prompt length; its requests share the first `sharing_ratio` of it, in whole blocks of 16
    tokens, and are scattered over the whole run. Output lengths are uniform within ± `output_spread_tokens`.

    >>> workload = sharing_workload(requests=20, rate_per_s=5.0, sharing_ratio=0.5, seed=0, prompt_tokens=(1000,))
    >>> len(workload), len(set(workload.block_ids.tolist())), workload.block_offsets[1]
    (20, 62, np.int64(31))
    """
    _require(
        requests, rate_per_s, sharing_ratio, requests_per_prefix, prompt_tokens, output_tokens - output_spread_tokens
    )
    rng = np.random.default_rng(seed)
    arrived_at_s = np.cumsum(rng.exponential(1 / rate_per_s, requests))
    groups = -(-requests // requests_per_prefix)
    prompt_of_group = rng.choice(np.array(prompt_tokens, dtype=np.int64), groups)
    group = rng.permutation(np.arange(requests) // requests_per_prefix)
    blocks_of_group = (prompt_of_group * sharing_ratio / BLOCK_TOKENS).astype(np.int64)
    first_block = np.cumsum(blocks_of_group) - blocks_of_group
    count = blocks_of_group[group]
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], count)
    low, high = output_tokens - output_spread_tokens, output_tokens + output_spread_tokens
    return Workload(
        arrived_at_s=arrived_at_s - arrived_at_s[0],
        prompt_tokens=prompt_of_group[group],
        output_tokens=rng.integers(low, high, requests, endpoint=True),
        block_ids=np.repeat(first_block[group], count) + within,
        block_offsets=offsets,
        block_tokens=BLOCK_TOKENS,
    )


def _require(
    requests: int,
    rate_per_s: float,
    sharing_ratio: float,
    requests_per_prefix: int,
    prompt_tokens: tuple[int, ...],
    least_output_tokens: int,
) -> None:
    broken = {
        f"requests {requests} is not usable; expected 1 or more": requests < 1,
        f"rate_per_s {rate_per_s} is not usable; expected more than 0": not 0 < rate_per_s < float("inf"),
        f"sharing_ratio {sharing_ratio} is not usable; expected 0 to 1": not 0 <= sharing_ratio <= 1,
        f"requests_per_prefix {requests_per_prefix} is not usable; expected 1 or more": requests_per_prefix < 1,
        f"prompt_tokens {prompt_tokens} is not usable; expected lengths of 1 or more": min(prompt_tokens, default=0)
        < 1,
        f"outputs of {least_output_tokens} tokens are not usable; expected 1 or more": least_output_tokens < 1,
    }
    for message, is_broken in broken.items():
        if is_broken:
            raise ConfigError(f"{message}. Choose another value")
