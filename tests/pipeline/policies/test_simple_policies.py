"""Rules of a line or two do what their sources say, ties, unknown metrics and all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.policies.least_kv_cache import LeastKvCache
from lodestar.pipeline.replay.policies.least_prefill_tokens import LeastPrefillTokens
from lodestar.pipeline.replay.policies.power_of_two import PowerOfTwo
from lodestar.pipeline.replay.policies.prefix_hit_threshold import PrefixHitThreshold
from lodestar.pipeline.replay.policies.round_robin import RoundRobin
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.policy_state import PolicyState

Floats = NDArray[np.float64]
NAN = math.nan


def snapshot(**columns: Sequence[float]) -> Floats:
    rows = np.full((len(next(iter(columns.values()))), len(schema.SNAPSHOT_FIELDS)), NAN)
    for name, values in columns.items():
        rows[:, schema.SNAPSHOT_FIELDS.index(name)] = values
    return rows


def fleet_of(m: int) -> Fleet:
    return Fleet([f"10.0.0.{j + 1}:8000" for j in range(m)])


def decide(policy: Policy, rows: Floats) -> list[float]:
    state = PolicyState(policy, fleet_of(len(rows)))
    return [float(p) for p in state.decide(state.request(0.0, 1000), rows)[1]]


def take_turns(state: PolicyState, times: int) -> list[int]:
    """Send requests where the policy wants them."""
    rows = np.full((len(state.fleet.names), len(schema.SNAPSHOT_FIELDS)), NAN)
    picks = []
    for _ in range(times):
        request = state.request(0.0, 10)
        choice = state.policy.choose(request, rows, state, np.random.default_rng(0))
        assert choice.probability[choice.instance] == 1.0
        state.sent(request, choice.instance, rows)
        picks.append(choice.instance)
    return picks


def test_round_robin_goes_through_the_list_and_keeps_its_count_when_instances_come_and_go() -> None:
    state = PolicyState(RoundRobin(), fleet_of(3))
    assert take_turns(state, 5) == [0, 1, 2, 0, 1]
    state.leave(1)
    assert take_turns(state, 3) == [2, 0, 2]  # the count is 5, 6, 7 over [0, 2]
    state.join(1)
    assert take_turns(state, 3) == [1, 0, 2]  # 8, 9, 10 over [0, 2, 1]
    state.leave(0)
    state.leave(2)
    assert take_turns(state, 2) == [1, 1]


def test_round_robin_counts_what_another_policy_sent() -> None:
    state = PolicyState(RoundRobin(), fleet_of(3))
    state.sent(state.request(0.0, 10), 2, snapshot(hit_ratio=[0.0] * 3))
    assert take_turns(state, 2) == [1, 2]


@pytest.mark.parametrize(
    ("inflight", "expected"),
    [
        ([3], [1.0]),
        ([3, 1], [0.0, 1.0]),
        ([2, 2], [0.5, 0.5]),
        # the six ordered pairs: 0 wins (0,1) (1,0) (0,2) (2,0), 1 wins (1,2) (2,1)
        ([0, 1, 2], [4 / 6, 2 / 6, 0.0]),
        # 0 and 1 win one of (0,1) (1,0) each, and all their pairs with 2
        ([1, 1, 5], [0.5, 0.5, 0.0]),
        # not known is idle
        ([NAN, 0, 1], [0.5, 0.5, 0.0]),
    ],
)
def test_power_of_two_gives_every_candidate_its_exact_chance(inflight: list[float], expected: list[float]) -> None:
    assert decide(PowerOfTwo(), snapshot(inflight_requests=inflight)) == pytest.approx(expected)


def test_power_of_two_is_as_likely_as_drawing_two_different_instances_makes_it() -> None:
    rng = np.random.default_rng(3)
    inflight = [4, 2, 2, 7, 4]
    wins = np.zeros(5)
    for first, second in (rng.choice(5, 2, replace=False) for _ in range(20_000)):
        wins[first if inflight[first] <= inflight[second] else second] += 1
    np.testing.assert_allclose(decide(PowerOfTwo(), snapshot(inflight_requests=inflight)), wins / 20_000, atol=0.015)


@pytest.mark.parametrize(
    ("usage", "ties", "expected"),
    [
        # AIBrix, least_kv_cache_test.go: sums of 0.5, 0.6, 1.2, 1.4; equal sums; one instance or all without metrics
        ([0.5, 0.6, 1.2, 1.4], "random", [1, 0, 0, 0]),
        ([0.5, 1.0, 0.5], "random", [0.5, 0, 0.5]),
        ([0.5, 1.0, 0.5], "last", [0, 0, 1]),
        ([0.5, NAN], "random", [1, 0]),
        ([NAN, NAN], "random", [0.5, 0.5]),
    ],
)
def test_least_kv_cache_decides_as_aibrix_tests_it(usage: list[float], ties: str, expected: list[float]) -> None:
    assert decide(LeastKvCache(ties=ties), snapshot(kv_usage_ratio=usage)) == expected


def test_least_kv_cache_refuses_an_unknown_tie_rule() -> None:
    with pytest.raises(ConfigError, match="ties 'newest'; expected one of random, first, last"):
        LeastKvCache(ties="newest")


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        # gangmuk/Lodestar, least_prefill_tokens_test.go
        ([500, 100, 300], [0, 1, 0]),
        ([200, 200, 500], [0.5, 0.5, 0]),
        ([0, 0], [0.5, 0.5]),
        ([1000, NAN], [0, 1]),
        ([999], [1]),
    ],
)
def test_least_prefill_tokens_decides_as_lodestar_tests_it(tokens: list[float], expected: list[float]) -> None:
    assert decide(LeastPrefillTokens(), snapshot(prefill_tokens=tokens)) == expected


@pytest.mark.parametrize(
    ("tau", "hit", "expected"),
    [
        (0.5, [0.2, 0.51, 0.9], [0, 0, 1]),
        (0.5, [0.2, 0.5, 0.509], [1, 0, 0]),  # 50 % is not above 50 %: the fewest in flight
        (0.5, [0.9, 0.902, 0.1], [0.5, 0.5, 0]),  # both 90 %; load does not decide
        (0.29, [0.1, 0.29, 0.3], [0, 0, 1]),
        (0.29, [0.1, 0.29, 0.29], [1, 0, 0]),
        (0.28, [0.1, 0.29, 0.2], [0, 1, 0]),
        (0.0, [NAN, 0.01, NAN], [0, 1, 0]),
        (0.0, [0.0, 0.009, NAN], [1, 0, 0]),  # under one percent is nothing
        (1.0, [0.0, 1.0, 1.0], [1, 0, 0]),
    ],
)
def test_prefix_hit_threshold_takes_the_most_cached_above_tau(
    tau: float, hit: list[float], expected: list[float]
) -> None:
    rows = snapshot(hit_ratio=hit, inflight_requests=[1, 9, 4])
    assert decide(PrefixHitThreshold(tau=tau), rows) == expected


def test_prefix_hit_threshold_refuses_a_percentage() -> None:
    with pytest.raises(ConfigError, match="tau is 50; expected a share of the prompt, 0 to 1"):
        PrefixHitThreshold(tau=50)


@pytest.mark.parametrize(
    "policy", [RoundRobin(), PowerOfTwo(), LeastKvCache(), LeastPrefillTokens(), PrefixHitThreshold()]
)
def test_an_instance_that_left_is_not_chosen_and_the_only_one_left_is(policy: Policy) -> None:
    state = PolicyState(policy, fleet_of(3))
    rows = snapshot(**{name: [0.0, 0.0, 1.0] for name in schema.SNAPSHOT_FIELDS})
    state.leave(2)
    assert state.decide(state.request(0.0, 10), rows)[1][2] == 0.0
    state.leave(0)
    assert list(state.decide(state.request(0.0, 10), rows)[1]) == [0.0, 1.0, 0.0]
