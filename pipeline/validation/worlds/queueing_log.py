"""A run of the queueing world as the log of a router that logs everything it knows, and nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.log import RequestLog
from lodestar.pipeline.validation.worlds.queueing import Run, Traffic, World

__all__ = ["BLOCK_TOKENS", "as_log"]

Floats = NDArray[np.float64]

#: Of a block of the prefix cache: a prefix is three whole ones, and what follows it in a prompt fills none.
BLOCK_TOKENS = 512


def as_log(world: World, traffic: Traffic, run: Run, dataset: str = "queueing-world") -> RequestLog:
    """Return the log of a run whose states were kept.

    A router knows how many requests it has at each server, how many of their prompt tokens have no answer yet and
    whether it sent the prefix there before; the server tells whether it runs a request and how full its cache is. How
    long the backlog takes, nobody tells.
    """
    n, m = run.queue.shape
    busy = run.queue > 0
    blocks = world.prefix_tokens // BLOCK_TOKENS
    dense = np.unique(traffic.group, return_inverse=True)[1]
    known: dict[str, Floats] = {name: np.full((n, m), np.nan) for name in s.SNAPSHOT_FIELDS}
    known |= {
        s.HIT_RATIO: run.hit * (world.prefix_tokens / traffic.prompt_tokens)[:, None],
        s.INFLIGHT_REQUESTS: run.queue.astype(np.float64),
        s.RUNNING_REQUESTS: busy.astype(np.float64),
        s.WAITING_REQUESTS: (run.queue - busy).astype(np.float64),
        s.KV_USAGE_RATIO: busy * (blocks + 1) / (world.cached_groups * blocks + 1),
        s.INFLIGHT_PREFILL_REQUESTS: run.queue.astype(np.float64),
        s.INFLIGHT_DECODE_REQUESTS: np.zeros((n, m)),
        s.PREFILL_TOKENS: _tokens_ahead(traffic, run),
        s.DECODE_TOKENS: np.zeros((n, m)),
    }
    return RequestLog(
        dataset=dataset,
        instances=[f"server-{j}" for j in range(m)],
        request_id=[f"request-{i}" for i in range(n)],
        arrived_at_s=(traffic.at_ms - traffic.at_ms[0]) / 1e3,
        prompt_tokens=traffic.prompt_tokens,
        output_tokens=np.ones(n, dtype=np.int64),
        chosen=run.chosen,
        propensity=run.probability[np.arange(n), run.chosen],
        policy="queueing-logging",
        candidate=np.ones((n, m), dtype=np.bool_),
        snapshot=known,
        probability=run.probability,
        ttft_ms=run.ttft_ms,
        tpot_ms=np.full(n, np.nan),
        e2e_ms=run.ttft_ms.copy(),
        block_ids=(dense[:, None] * blocks + np.arange(blocks)).ravel(),
        block_offsets=np.arange(n + 1) * blocks,
        block_tokens=BLOCK_TOKENS,
    )


def _tokens_ahead(traffic: Traffic, run: Run) -> Floats:
    """Return the prompt tokens of the requests at each server at each decision, shape (n, m).

    Queues are first in, first out: those there are the last `queue` of those that were sent there.
    """
    n, m = run.queue.shape
    ahead = np.zeros((n, m))
    for j in range(m):
        there = run.chosen == j
        tokens = np.concatenate([[0], np.cumsum(traffic.prompt_tokens[there])])
        sent = np.cumsum(there) - there
        ahead[:, j] = tokens[sent] - tokens[sent - run.queue[:, j]]
    return ahead
