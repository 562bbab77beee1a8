"""Small clusters and workloads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lodestar.data.log import Workload
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel


@pytest.fixture
def busy() -> Workload:
    """600 requests in groups that share half of their prompt, at a rate that fills three slow engines."""
    return sharing_workload(requests=600, rate_per_s=9.0, sharing_ratio=0.5, seed=1, prompt_tokens=(500, 1000, 2000))


@pytest.fixture
def slow() -> EngineModel:
    return EngineModel.preset("l40s-llama-3.1-8b")


@pytest.fixture
def plain() -> Callable[..., Workload]:
    """Make a workload without shared prefixes from lists."""

    def make(arrived_at_s: list[float], prompt_tokens: list[int], output_tokens: list[int]) -> Workload:
        n = len(arrived_at_s)
        return Workload(
            arrived_at_s=np.array(arrived_at_s, dtype=np.float64),
            prompt_tokens=np.array(prompt_tokens, dtype=np.int64),
            output_tokens=np.array(output_tokens, dtype=np.int64),
            block_ids=np.zeros(0, dtype=np.int64),
            block_offsets=np.zeros(n + 1, dtype=np.int64),
            block_tokens=16,
        )

    return make
