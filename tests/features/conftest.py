from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lodestar.data.log import RequestLog
from lodestar.data.schema import SNAPSHOT_FIELDS


@pytest.fixture
def log_of() -> Callable[[int], RequestLog]:
    """Make a log of n requests on three instances with random snapshots."""

    def make(n: int) -> RequestLog:
        rng = np.random.default_rng(0)
        return RequestLog(
            dataset="made",
            instances=["a", "b", "c"],
            request_id=[str(i) for i in range(n)],
            arrived_at_s=np.arange(n, dtype=np.float64),
            prompt_tokens=rng.integers(100, 5000, n),
            output_tokens=np.full(n, 100),
            chosen=rng.integers(0, 3, n),
            propensity=np.full(n, 1 / 3),
            policy="random",
            candidate=np.ones((n, 3), dtype=np.bool_),
            snapshot={name: rng.random((n, 3)) for name in SNAPSHOT_FIELDS},
            probability=np.full((n, 3), 1 / 3),
            ttft_ms=rng.uniform(50, 900, n),
            tpot_ms=rng.uniform(5, 90, n),
            e2e_ms=rng.uniform(1000, 9000, n),
            block_ids=np.empty(0, dtype=np.int64),
            block_offsets=np.zeros(n + 1, dtype=np.int64),
            block_tokens=None,
        )

    return make
