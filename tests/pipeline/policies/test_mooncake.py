from __future__ import annotations

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.policies.mooncake import Mooncake
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState

RUNNING = schema.SNAPSHOT_FIELDS.index(schema.RUNNING_REQUESTS)
WAITING = schema.SNAPSHOT_FIELDS.index(schema.WAITING_REQUESTS)
FLEET = Fleet.of([EngineModel()] * 3)


def test_requests_there_over_the_speed_with_what_was_sent_since() -> None:
    state, snapshot = PolicyState(Mooncake(speeds="1:2:3.5"), FLEET), np.full((3, len(schema.SNAPSHOT_FIELDS)), np.nan)
    snapshot[:, RUNNING], snapshot[:, WAITING] = [1, 2, 5], [0, 1, 1]
    # By hand: 2 / 1, 4 / 2, 7 / 3.5.
    request = state.request(0.0, 100)
    cost, probability = state.decide(request, snapshot)
    assert cost.tolist() == [2.0, 2.0, 2.0]
    assert probability == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    state.sent(request, 1, snapshot)
    assert state.decide(state.request(0.0, 100), snapshot)[0].tolist() == [2.0, 2.5, 2.0]
    state.first_token(request, 1, 1.0)
    state.done(request, 1, 2.0)
    assert state.decide(state.request(2.0, 100), snapshot)[0].tolist() == [2.0, 2.0, 2.0]


def test_all_are_equally_fast_unless_told_and_idle_until_they_tell() -> None:
    state, snapshot = PolicyState(Mooncake(), FLEET), np.full((3, len(schema.SNAPSHOT_FIELDS)), np.nan)
    snapshot[0, RUNNING] = 1
    lost = state.request(0.0, 100)
    state.sent(lost, 1, snapshot)
    assert state.decide(state.request(0.0, 100), snapshot)[0].tolist() == [2.0, 2.0, 1.0]
    state.leave(1, 0.5)
    state.done(lost, 1, 1.0)
    state.join(1)
    assert state.decide(state.request(1.0, 100), snapshot)[0].tolist() == [2.0, 1.0, 1.0]


@pytest.mark.parametrize("speeds", ["1:fast:2", "1:0:2", "1::2", "1,2,3", "nan:1:1", "1:-1:1"])
def test_what_is_no_speed_is_refused(speeds: str) -> None:
    with pytest.raises(ConfigError, match="expected numbers above 0, separated by colons"):
        Mooncake(speeds=speeds)


def test_a_speed_is_needed_for_every_instance() -> None:
    with pytest.raises(ConfigError, match="has 2 numbers; expected one for each of 3 instances"):
        PolicyState(Mooncake(speeds="1:2"), FLEET)
