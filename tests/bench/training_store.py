"""A store of generated decisions, large and quick to make: eight instances whose latencies follow a known law."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.native_write import write_decision_log
from lodestar.data.workspace import Workspace

__all__ = ["CANDIDATES", "add_requests", "made_log"]

CANDIDATES = 8
PART_ROWS = 100_000
GAP_S = 0.02


def made_log(first: int, n: int) -> RequestLog:
    """Make requests number `first` on: TTFT and TPOT by load, with noise of 20 % and a speed that wanders by 15 %."""
    rng = np.random.default_rng(first)
    shape = n, CANDIDATES
    prompt_tokens, chosen = rng.integers(200, 4000, n), rng.integers(0, CANDIDATES, n)
    prefilling, decoding = rng.integers(0, 12, shape).astype(float), rng.integers(0, 40, shape).astype(float)
    waiting = np.floor(prefilling / 2)
    snapshot = {
        "hit_ratio": rng.choice([0.0, 0.25, 0.5, 0.9], shape),
        "inflight_requests": prefilling + decoding,
        "running_requests": prefilling + decoding - waiting,
        "waiting_requests": waiting,
        "kv_usage_ratio": rng.random(shape),
        "inflight_prefill_requests": prefilling,
        "inflight_decode_requests": decoding,
        "prefill_tokens": prefilling * rng.uniform(500, 2500, shape),
        "decode_tokens": decoding * 50,
        "last_access_age_s": rng.exponential(10, shape),
    }
    at = np.arange(n), chosen
    wander = 1 + 0.15 * np.sin((first + np.arange(n)) / 150_000)
    uncached = (1 - snapshot["hit_ratio"][at]) * prompt_tokens
    full = np.maximum(snapshot["kv_usage_ratio"][at] - 0.8, 0)
    physical = (
        40 + 0.06 * (uncached + snapshot["prefill_tokens"][at]) * (1 + 0.01 * decoding[at]) + 4000 * full * waiting[at]
    )
    ttft_ms = wander * physical * np.exp(rng.normal(0, 0.2, n))
    tpot_ms = wander * (12 + 0.8 * decoding[at] + 2 * prefilling[at]) * np.exp(rng.normal(0, 0.2, n))
    output_tokens = rng.integers(2, 300, n)
    return RequestLog(
        dataset="made",
        instances=[f"pod-{j}" for j in range(CANDIDATES)],
        request_id=[f"r{first + i}" for i in range(n)],
        arrived_at_s=1.7e9 + (first + np.arange(n)) * GAP_S,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        chosen=chosen,
        propensity=np.full(n, 1 / CANDIDATES),
        policy="random",
        candidate=np.ones(shape, dtype=np.bool_),
        snapshot=snapshot,
        probability=np.full(shape, 1 / CANDIDATES),
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        e2e_ms=ttft_ms + tpot_ms * (output_tokens - 1),
        block_ids=np.empty(0, dtype=np.int64),
        block_offsets=np.zeros(n + 1, dtype=np.int64),
        block_tokens=None,
    )


def add_requests(workspace: Workspace, first: int, n: int) -> None:
    """Ingest requests number `first` to `first` + `n`, in files of 100,000."""
    for start in range(first, first + n, PART_ROWS):
        path = Path(workspace.home) / f"part{start}.parquet"
        write_decision_log(path, made_log(start, min(PART_ROWS, first + n - start)))
        ingest(workspace, [path], "made")
        path.unlink()
