"""What flows through a cluster: rates over time, shared prefixes, the load of each instance, and how choices spread."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from lodestar.data import schema as s
from lodestar.data.log import Floats, RequestLog, Workload

__all__ = ["instance_loads", "prefix_sharing", "propensity_support", "rates"]

SPANS: Final = 24
RARE: Final = 0.01


def rates(workload: Workload, spans: int = SPANS) -> list[dict[str, float]]:
    """Count requests and prompt tokens a second in equal spans of the workload's time; empty where it has no length."""
    if len(workload) < 2 or workload.arrived_at_s[-1] <= 0:
        return []
    edges = np.linspace(0, workload.arrived_at_s[-1], spans + 1)
    requests, _ = np.histogram(workload.arrived_at_s, edges)
    tokens, _ = np.histogram(workload.arrived_at_s, edges, weights=workload.prompt_tokens.astype(np.float64))
    length_s = edges[1]
    return [
        {"from_s": float(start), "requests_per_s": float(n / length_s), "prompt_tokens_per_s": float(t / length_s)}
        for start, n, t in zip(edges[:-1], requests, tokens, strict=True)
    ]


def prefix_sharing(workload: Workload) -> dict[str, float]:
    """Measure how much of the prompts an endless cache would have held already.

    `seen_ratio` is the share of prompt tokens in blocks that an earlier request had, `requests_ratio` the share of
    requests with at least one such block, `requests_per_block` how many requests had a block on average.

    >>> blocks, offsets = np.array([0, 1, 0, 1, 2]), np.array([0, 2, 5])
    >>> prefix_sharing(Workload(np.zeros(2), np.array([32, 48]), np.array([1, 1]), blocks, offsets, 16))["seen_ratio"]
    0.4
    """
    ids, offsets = workload.block_ids, workload.block_offsets
    if not len(ids):
        return {"seen_ratio": 0.0, "requests_ratio": 0.0, "blocks": 0, "requests_per_block": 0.0}
    distinct, first = np.unique(ids, return_index=True)
    seen = np.ones(len(ids), dtype=np.int64)
    seen[first] = 0
    before = np.concatenate([[0], np.cumsum(seen)])
    of_request = before[offsets[1:]] - before[offsets[:-1]]
    return {
        "seen_ratio": float(of_request.sum() * workload.block_tokens / workload.prompt_tokens.sum()),
        "requests_ratio": float((of_request > 0).mean()),
        "blocks": len(distinct),
        "requests_per_block": len(ids) / len(distinct),
    }


def instance_loads(log: RequestLog) -> list[dict[str, float | None]]:
    """Average, for each instance, what the router saw of it at every decision, and what its own requests met."""
    return [
        {
            "inflight_mean": _mean(log.snapshot[s.INFLIGHT_REQUESTS][:, j]),
            "waiting_mean": _mean(log.snapshot[s.WAITING_REQUESTS][:, j]),
            "kv_usage_mean": _mean(log.snapshot[s.KV_USAGE_RATIO][:, j]),
            "hit_mean": _mean(log.snapshot[s.HIT_RATIO][log.chosen == j, j]),
            "ttft_mean_ms": _mean(log.ttft_ms[log.chosen == j]),
        }
        for j in range(len(log.instances))
    ]


def propensity_support(log: RequestLog, propensity: Floats) -> dict[str, Any] | None:
    """Say how far the logged choices spread over the candidates: what importance weights live on.

    `effective_candidates` is 1 / Σ p² of the candidates, averaged; `rare_ratio` the share of decisions whose choice
    had a probability below 1 %; `excluded_ratio` the share of candidates that could not be chosen. None where no
    propensity is known.
    """
    known = propensity[~np.isnan(propensity)]
    if not len(known):
        return None
    told = log.candidate & ~np.isnan(log.probability)
    given = np.where(told, log.probability, 0.0)
    whole = told.any(axis=1)
    if whole.any():
        effective = float((1 / np.maximum((given[whole] ** 2).sum(axis=1), 1e-12)).mean())
        excluded = float((given[told] == 0).mean())
    else:  # inferred: every candidate had the same chance
        effective, excluded = float((1 / known).mean()), 0.0
    return {
        "least": float(known.min()),
        "rare_ratio": float((known < RARE).mean()),
        "effective_candidates": effective,
        "excluded_ratio": excluded,
    }


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
