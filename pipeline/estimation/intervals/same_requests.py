"""The interval for a benchmark that is run again: its very requests, in whatever order, under other luck."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.pipeline.estimation.blocks import block_of, blocks_in
from lodestar.pipeline.estimation.intervals.interval import Interval
from lodestar.pipeline.estimation.intervals.linearised import linearised_interval
from lodestar.pipeline.estimation.shared_prefixes import SharedPrefixes

__all__ = ["SAME_REQUESTS", "same_requests_interval"]

Floats = NDArray[np.float64]

#: What it claims: other times, order, routing and luck of these requests, and no other requests.
SAME_REQUESTS: Final = "value of the same requests under other luck"


def same_requests_interval(
    value: float, influence: Floats, shared: SharedPrefixes, block: int | None = None, level: float = 0.95
) -> Interval:
    """Return the linearised interval by blocks of what prompt lengths do not make of the influence.

    The mean prompt length of a log and its prefix groups are luck where other traffic is to come, and none where the
    same requests come again: neither what groups add that span blocks, nor what lengths add that differ from block to
    block, is error then (`SharedPrefixes.without_lengths`). The slope on them takes one degree of freedom from the
    standard error. Regression adjustment, as of experiments on a finite population: Lin 2013. Where order and times are
    the same too, as of a trace that is sent twice, the interval is rather too wide: what they make counts as luck. How
    often it holds: `replayed_coverage`.

    Args:
        value: the estimate.
        influence: its linearised part of every decision, in order of arrival, shape (n,); see `Valued`.
        shared: prompt lengths of the n requests.
        block: consecutive decisions that count as one, at least two; None: `block_of`.
        level: how often it should hold.

    Raises:
        ConfigError: blocks of one decision, or fewer than three blocks: they tell no error about a slope.

    >>> random = np.random.default_rng(0)
    >>> shared = SharedPrefixes(np.full(1200, -1), random.integers(100, 900, 1200))
    >>> cost = 0.1 * shared.prompt_tokens + random.normal(0.0, 3.0, 1200)
    >>> [round(each.width, 1) for each in (linearised_interval(50.0, cost), same_requests_interval(50.0, cost, shared))]
    [2.0, 0.6]
    """
    block = block_of(len(influence)) if block is None else block
    blocks = blocks_in(len(influence), block)
    if block == 1 or blocks < 3:
        raise ConfigError(
            f"block {block} does not fit an interval for the same requests; expected from 2 to a third of "
            f"{len(influence)} requests"
        )
    left = np.sqrt((blocks - 1) / (blocks - 2)) * shared.without_lengths(influence, block)
    found = linearised_interval(value, left, block, level)
    return replace(found, estimand=SAME_REQUESTS, method=f"{found.method}, less what prompt lengths make")
