"""The TTFT that no router can beat, to measure how far there is to go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.replay.cluster import Cluster

__all__ = ["lower_bound_ms"]

_APART_S = 1e4  # between two requests, so that none meets another


def lower_bound_ms(cluster: Cluster, seeds: Iterable[int]) -> NDArray[np.float64]:
    """Return TTFTs that no router can beat: each request alone on the best engine, which has cached all before it.

    Returns:
        Milliseconds, one row a seed, of every request; the seed draws each request's noise, as in the replays.
    """
    workload = cluster.workload
    apart = replace(workload, arrived_at_s=_APART_S * np.arange(len(workload), dtype=np.float64))
    room = int(np.sum(workload.prompt_tokens + workload.output_tokens)) + 16 * len(workload)
    alone = [
        Cluster.of([replace(engine, kv_capacity_tokens=max(room, engine.kv_capacity_tokens))], apart)
        for engine in dict.fromkeys(cluster.engines)
    ]
    return np.stack([np.min([one.replay(seed=seed).ttft_ms for one in alone], axis=0) for seed in seeds])
