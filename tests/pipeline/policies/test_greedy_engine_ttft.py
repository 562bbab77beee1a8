from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.policies.greedy_engine_ttft import GreedyEngineTtft
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState

FIELDS = len(schema.SNAPSHOT_FIELDS)
ENGINE = EngineModel(request_overhead_ms=3.0, response_overhead_ms=2.0)


def predicted(outcome: Outcome) -> NDArray[np.float64]:
    cost: NDArray[np.float64] = outcome.costs[np.arange(len(outcome.instance)), outcome.instance]
    return cost


@pytest.mark.parametrize(
    "changes", [{}, {"request_overhead_ms": 5.0, "response_overhead_ms": 4.0}, {"max_batched_tokens": 512}]
)
def test_predictions_rank_as_the_ttft_that_comes_of_them(
    busy: Workload, slow: EngineModel, changes: dict[str, float]
) -> None:
    engine = replace(slow, **changes)  # type: ignore[arg-type]
    outcome = Cluster.of([engine, engine.slowed(1.5), engine], busy).replay(GreedyEngineTtft(), record=True)
    assert spearmanr(predicted(outcome), outcome.ttft_ms).statistic > 0.9
    assert np.median(predicted(outcome) / outcome.ttft_ms) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("limit", [{"max_sequences": 6}, {"kv_capacity_tokens": 8000}])
def test_predictions_rank_where_there_is_no_room(busy: Workload, slow: EngineModel, limit: dict[str, int]) -> None:
    outcome = Cluster.of([replace(slow, **limit)] * 3, busy).replay(GreedyEngineTtft(), record=True)  # type: ignore[arg-type]
    assert np.median(outcome.ttft_ms) > 5000.0
    assert spearmanr(predicted(outcome), outcome.ttft_ms).statistic > 0.9


@pytest.mark.parametrize("chunked_prefill", [True, False])
def test_a_lone_request_is_predicted_exactly(plain: Callable[..., Workload], chunked_prefill: bool) -> None:
    engine = replace(ENGINE, chunked_prefill=chunked_prefill)
    workload = plain([0.0, 100.0, 200.0], [100, 5000, 2049], [1, 2, 1])
    outcome = Cluster.of([engine], workload).replay(GreedyEngineTtft(), record=True)
    assert outcome.costs[:, 0] == pytest.approx(outcome.ttft_ms)


def test_a_prompt_behind_another_is_predicted_exactly(plain: Callable[..., Workload]) -> None:
    """The first is in its first step of two as the second comes; the second step has room for both."""
    workload = plain([0.0, 0.02, 10.0, 10.01], [3000, 500, 600, 700], [1, 1, 1, 1])
    outcome = Cluster.of([ENGINE], workload).replay(GreedyEngineTtft(), record=True)
    assert outcome.costs[[1, 3], 0] == pytest.approx(outcome.ttft_ms[[1, 3]])


def test_cached_prompts_are_cheaper_where_the_engine_caches() -> None:
    state = PolicyState(GreedyEngineTtft(), Fleet.of([ENGINE, replace(ENGINE, prefix_caching=False), ENGINE]))
    snapshot = np.full((3, FIELDS), np.nan)
    snapshot[:2, schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)] = 0.5
    cost = state.decide(state.request(0.0, 2000), snapshot)[0]
    step = ENGINE.step_ms(prompt_tokens=1000, decoding=0, context_tokens=0, attention=1000 * 1500)
    whole = ENGINE.step_ms(prompt_tokens=2000, decoding=0, context_tokens=0, attention=2000 * 1000)
    assert cost == pytest.approx([3.0 + step + 2.0, 3.0 + whole + 2.0, 3.0 + whole + 2.0])


def test_what_ends_without_a_first_token_or_leaves_is_not_waited_for() -> None:
    state, snapshot = PolicyState(GreedyEngineTtft(), Fleet.of([ENGINE] * 2)), np.full((2, FIELDS), np.nan)
    idle = state.decide(state.request(0.0, 1000), snapshot)[0][0]
    lost, answered = state.request(0.0, 9000), state.request(0.0, 300)
    for request in (lost, answered):
        state.sent(request, 0, snapshot)
    assert state.decide(state.request(0.0, 1000), snapshot)[0][0] > idle + 100.0
    state.leave(0, 0.1)
    assert state.decide(state.request(0.0, 1000), snapshot)[1].tolist() == [0.0, 1.0]
    state.done(lost, 0, 1.0)
    state.first_token(answered, 0, 1.0)
    state.done(answered, 0, 2.0, queue_s=0.0, prefill_s=1.0, decode_s=1.0, output_tokens=5)
    state.join(0)
    assert state.decide(state.request(3.0, 1000), snapshot)[0] == pytest.approx([idle, idle])


def test_it_needs_the_engines() -> None:
    with pytest.raises(ConfigError, match="no engines to predict with"):
        PolicyState(GreedyEngineTtft(), Fleet(["a", "b"]))
