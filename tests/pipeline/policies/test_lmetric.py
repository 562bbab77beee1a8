from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.policies.lmetric import Lmetric
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState


def router(policy: Lmetric) -> PolicyState:
    return PolicyState(policy, Fleet.of([EngineModel()] * 3))


def seen(**columns: list[float]) -> NDArray[np.float64]:
    snapshot = np.full((3, len(schema.SNAPSHOT_FIELDS)), np.nan)
    for name, values in columns.items():
        snapshot[:, schema.SNAPSHOT_FIELDS.index(name)] = values
    return snapshot


def test_new_tokens_times_batch_with_what_has_no_first_token_yet() -> None:
    state = router(Lmetric())
    snapshot = seen(hit_ratio=[0.5, 0.0, 0.25], running_requests=[3, 0, 1], waiting_requests=[2, 0, 0])
    first = state.request(0.0, 800)
    # By hand: 400 · 6, 800 · 1, 600 · 2.
    cost, probability = state.decide(first, snapshot)
    assert cost.tolist() == [2400.0, 800.0, 1200.0]
    assert probability.tolist() == [0.0, 1.0, 0.0]
    state.sent(first, 2, snapshot)
    assert state.decide(state.request(0.0, 800), snapshot)[0].tolist() == [2400.0, 800.0, 2400.0]
    state.first_token(first, 2, 1.0)
    assert state.decide(state.request(1.0, 800), snapshot)[0].tolist() == [2400.0, 800.0, 1200.0]
    state.done(first, 2, 2.0)
    assert state.decide(state.request(2.0, 800), snapshot)[0].tolist() == [2400.0, 800.0, 1200.0]


def test_an_instance_without_metrics_counts_as_idle_and_ties_are_drawn() -> None:
    state = router(Lmetric())
    cost, probability = state.decide(state.request(0.0, 100), seen(running_requests=[np.nan, 4.0, 0.0]))
    assert cost.tolist() == [100.0, 500.0, 100.0]
    assert probability.tolist() == [0.5, 0.0, 0.5]


def test_aibrix_counts_by_itself_until_the_end_and_in_whole_percent() -> None:
    state = router(Lmetric(local=True))
    snapshot = seen(hit_ratio=[0.339, 0.0, 0.0], running_requests=[9, 9, 9], waiting_requests=[9, 9, 9])
    first = state.request(0.0, 1001)
    # 33 % of 1001 tokens are 330.
    assert state.decide(first, snapshot)[0].tolist() == [671.0, 1001.0, 1001.0]
    state.sent(first, 0, snapshot)
    state.first_token(first, 0, 1.0)
    assert state.decide(state.request(1.0, 100), snapshot)[0].tolist() == [(671.0 + 67.0) * 2.0, 100.0, 100.0]
    state.done(first, 0, 2.0)
    assert state.decide(state.request(2.0, 100), snapshot)[0].tolist() == [67.0, 100.0, 100.0]


@pytest.mark.parametrize("local", [False, True])
def test_what_an_instance_that_leaves_was_sent_is_released_as_it_ends(local: bool) -> None:
    state = router(Lmetric(local=local))
    request = state.request(0.0, 500)
    state.sent(request, 1, seen())
    state.leave(1, 1.0)
    assert state.decide(state.request(1.0, 100), seen())[1].tolist() == [0.5, 0.0, 0.5]
    state.done(request, 1, 2.0)
    state.join(1)
    assert state.decide(state.request(3.0, 100), seen())[0].tolist() == [100.0, 100.0, 100.0]
