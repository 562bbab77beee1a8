"""What one policy does: AIBrix's prefix-cache and least-request, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.policies.aibrix_prefix_cache import AibrixPrefixCache
from lodestar.pipeline.replay.policies.least_request import LeastRequest
from lodestar.pipeline.replay.policies.least_uncached_tokens import LeastUncachedTokens
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.pick import Pick, draw
from lodestar.pipeline.replay.routing.policy_state import PolicyState

Floats = NDArray[np.float64]


def snapshot(inflight: list[float], hit: list[float] | None = None) -> Floats:
    rows = np.zeros((len(inflight), len(schema.SNAPSHOT_FIELDS)))
    rows[:, schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)] = inflight
    rows[:, schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)] = hit or 0.0
    return rows


def fleet(instances: int) -> Fleet:
    return Fleet.of([EngineModel()] * instances)


def decide(policy: Policy, rows: Floats) -> list[float]:
    state = PolicyState(policy, fleet(len(rows)))
    return policy.choose(state.request(0.0, 1000), rows, state, np.random.default_rng(0)).probability.tolist()


def test_least_request_splits_ties() -> None:
    assert decide(LeastRequest(), snapshot([2, 1, 1, 5])) == [0.0, 0.5, 0.5, 0.0]


def test_least_request_counts_an_instance_without_metrics_as_idle() -> None:
    rows = snapshot([2, 1])
    rows[0, schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)] = np.nan
    assert decide(LeastRequest(), rows) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("inflight", "hit", "expected"),
    [
        # longest match among those not overloaded
        ([3, 3, 3, 3], [0.0, 0.5, 0.9, 0.1], [0, 0, 1, 0]),
        # of equal matches, the fewer in flight
        ([4, 3, 3, 3], [0.9, 0.9, 0.0, 0.0], [0, 1, 0, 0]),
        # mean 3.25, deviation 2.5: 7 is too many, so the next match is taken
        ([7, 2, 2, 2], [0.9, 0.0, 0.3, 0.0], [0, 0, 1, 0]),
        # spread 9 > 8: the least loaded, whatever is cached
        ([9, 0, 0, 1], [0.9, 0.0, 0.0, 0.9], [0, 0.5, 0.5, 0]),
        # spread 8 is allowed
        ([8, 0, 4, 4], [0.0, 0.0, 0.9, 0.0], [0, 0, 1, 0]),
        # no match: least-request
        ([3, 1, 2, 2], [0.0, 0.0, 0.0, 0.0], [0, 1, 0, 0]),
        # under one percent is no match
        ([3, 1, 2, 2], [0.009, 0.0, 0.0, 0.0], [0, 1, 0, 0]),
        # equal in both: at random
        ([3, 3, 3, 3], [0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0, 0]),
    ],
)
def test_aibrix_prefix_cache_worked_by_hand(inflight: list[float], hit: list[float], expected: list[float]) -> None:
    assert decide(AibrixPrefixCache(), snapshot(inflight, hit)) == expected


def test_uncached_tokens_ahead_are_counted_until_the_first_token() -> None:
    policy, rows = LeastUncachedTokens(), snapshot([0, 0], [0.75, 0.0])
    state = PolicyState(policy, fleet(2))
    first = state.request(0.0, 1000)
    assert state.decide(first, rows)[0].tolist() == [250.0, 1000.0]
    state.sent(first, 0, rows)
    second = state.request(1.0, 400)
    assert state.decide(second, snapshot([1, 0]))[0].tolist() == [650.0, 400.0]
    state.first_token(first, 0, 2.0)
    state.done(first, 0, 3.0)
    assert state.decide(state.request(4.0, 400), snapshot([0, 0]))[0].tolist() == [400.0, 400.0]


@pytest.mark.parametrize(
    ("ties", "order", "winner"), [("first", [2, 0, 1], 2), ("last", [2, 0, 1], 1), ("first", [1, 0, 2], 1)]
)
def test_the_tie_rule_and_the_order_of_candidates_come_from_outside(ties: str, order: list[int], winner: int) -> None:
    state = PolicyState(LeastRequest(), fleet(3), pick=Pick(ties=ties))
    state.candidates = order
    assert state.decide(state.request(0.0, 10), snapshot([1, 1, 1]))[1].tolist() == np.eye(3)[winner].tolist()


def test_draws_follow_the_probabilities() -> None:
    probability = np.array([0.2, 0.0, 0.5, 0.3])
    picks = np.bincount([draw(probability, u) for u in np.random.default_rng(0).random(20_000)], minlength=4) / 20_000
    np.testing.assert_allclose(picks, probability, atol=0.015)
    assert draw(np.array([0.0, 1.0 - 1e-16, 0.0]), 1.0 - 1e-17) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ties": "lowest"}, "ties 'lowest'"),
        ({"epsilon": 1.5}, "epsilon is 1.5"),
        ({"temperature": -1.0}, "temperature is -1"),
    ],
)
def test_a_pick_refuses_what_is_none(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pick(**wrong)  # type: ignore[arg-type]


def test_an_unknown_policy_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'least-request'"):
        make_policy("least-requests")


def test_learned_without_a_model_says_to_train() -> None:
    with pytest.raises(ConfigError, match="Run lodestar train first"):
        make_policy("learned")
