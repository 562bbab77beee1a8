"""The oracle: what it foresees comes true, and looking ahead leaves no trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policies.least_request import LeastRequest
from lodestar.pipeline.replay.policies.oracle_ttft import OracleTtft


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("capacity", [6_000, 20_000, 400_000])
def test_the_last_request_gets_its_first_token_when_foreseen(
    busy: Workload, slow: EngineModel, capacity: int, chunked: bool
) -> None:
    engine = replace(slow, kv_capacity_tokens=capacity, chunked_prefill=chunked, response_overhead_ms=2.0)
    for n in range(20, 400, 38):
        outcome = Cluster.of([engine] * 3, busy.head(n)).replay(OracleTtft(), record=range(n - 1, n))
        foreseen_ms = outcome.costs[0]
        assert foreseen_ms[outcome.instance[-1]] == foreseen_ms.min()
        assert outcome.ttft_ms[-1] == pytest.approx(foreseen_ms.min(), rel=1e-9)


def test_looking_ahead_leaves_no_trace(busy: Workload, slow: EngineModel) -> None:
    engine = replace(slow, kv_capacity_tokens=8_000, noise_ratio=0.1)
    cluster = Cluster.of([engine, replace(engine, prefix_caching=False), slow], busy)
    oracle, _ = cluster.final_state(OracleTtft(), None, 0)
    choices = np.asarray(oracle.requests)["instance"].astype(np.int64)
    forced, _ = cluster.final_state(None, choices, 0)
    for name in ("requests", "instances", "slots", "decoding", "fresh", "block_phase"):
        assert np.asarray(getattr(oracle, name)).tobytes() == np.asarray(getattr(forced, name)).tobytes(), name


def test_it_looks_ahead_while_answers_are_on_their_way(busy: Workload, slow: EngineModel) -> None:
    outcome = Cluster.of([replace(slow, response_overhead_ms=20_000.0)], busy.head(3)).replay(OracleTtft())
    assert (outcome.ttft_ms > 20_000).all()


def test_it_beats_a_router_that_only_counts(busy: Workload, slow: EngineModel) -> None:
    cluster = Cluster.of([slow] * 3, busy)
    assert cluster.replay(OracleTtft()).ttft_ms.mean() < 0.9 * cluster.replay(LeastRequest()).ttft_ms.mean()
