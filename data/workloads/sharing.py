"""The Lodestar paper's sharing workloads, without a recipe file."""

from __future__ import annotations

from lodestar.data.log import Workload
from lodestar.data.workloads.arrivals import Limit, Poisson
from lodestar.data.workloads.lengths import Choice, Uniform
from lodestar.data.workloads.recipe import Content, Part, Recipe
from lodestar.data.workloads.shared import Shared
from lodestar.data.workloads.simulate import simulate
from lodestar.data.workloads.tables import require

__all__ = ["sharing_workload"]


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
    """Make a sharing workload: Poisson arrivals, groups of requests with a common prefix, blocks of 16 tokens.

    Output lengths are uniform within ± `output_spread_tokens`; see `Shared` for the rest.

    >>> workload = sharing_workload(requests=20, rate_per_s=5.0, sharing_ratio=0.5, seed=0, prompt_tokens=(1000,))
    >>> len(workload), int(workload.block_offsets[1]), len(set(workload.block_ids.tolist()))
    (20, 62, 673)
    """
    require("requests", requests, requests >= 1, "1 or more")
    require("prompt_tokens", prompt_tokens, min(prompt_tokens, default=0) >= 1, "lengths of 1 or more")
    low, high = output_tokens - output_spread_tokens, output_tokens + output_spread_tokens
    require("output_tokens", low, low >= 1, "1 or more at the least")
    content = Content(
        Poisson(rate_per_s),
        Choice(tuple(map(float, prompt_tokens))),
        Uniform(low, high),
        Shared((sharing_ratio,), requests_per_prefix),
    )
    return simulate(Recipe("sharing", 16, (Part(Limit(requests), content),)), seed)
