"""AIBrix's policies of engine means, and its hash of sessions, against AIBrix's own examples and plain Python."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.pipeline.replay.policies.least_latency import LeastLatency
from lodestar.pipeline.replay.policies.session_affinity import SessionAffinity
from lodestar.pipeline.replay.policies.throughput import Throughput
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.policy_state import PolicyState


class Answer(NamedTuple):
    """A request that an engine has answered."""

    prompt_tokens: int
    output_tokens: float
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


def state_after(policy: Policy, answers: list[list[Answer]]) -> PolicyState:
    """Return the state once each instance has answered its list."""
    state = PolicyState(policy, Fleet([f"10.0.0.{j + 1}:8000" for j in range(len(answers))]))
    for j, answered in enumerate(answers):
        for answer in answered:
            request = state.request(0.0, answer.prompt_tokens)
            state.sent(request, j, np.zeros((len(answers), len(schema.SNAPSHOT_FIELDS))))
            state.done(request, j, 1.0, **{k: v for k, v in answer._asdict().items() if k != "prompt_tokens"})
    return state


def costs(state: PolicyState, session: int = -1) -> tuple[list[float], list[float]]:
    unknown = np.full((len(state.fleet.names), len(schema.SNAPSHOT_FIELDS)), math.nan)
    cost, probability = state.decide(state.request(2.0, 777, session=session), unknown)
    return [float(c) for c in cost], [float(p) for p in probability]


@pytest.mark.parametrize(
    ("answers", "cost", "probability"),
    [
        # AIBrix, throughput_test.go: 2·1 + 2, 2·2 + 1, 2·3 + 3, 2·4 + 4
        ([[Answer(1, 2)], [Answer(2, 1)], [Answer(3, 3)], [Answer(4, 4)]], [4, 5, 9, 12], [1, 0, 0, 0]),
        # the same: a tie of 6 between the first and the last
        ([[Answer(1, 4)], [Answer(5, 5)], [Answer(2, 2)]], [6, 15, 6], [0.5, 0, 0.5]),
        # means, not sums: (2·(1 + 3) + 2 + 4) / 2
        ([[Answer(1, 2), Answer(3, 4)], [Answer(4, 1)]], [7, 9], [1, 0]),
        # a lost request does not count, and an instance that has answered nothing costs 0
        ([[Answer(1, 2)], [Answer(9, math.nan)]], [4, 0], [0, 1]),
        ([[], []], [0, 0], [0.5, 0.5]),
    ],
)
def test_throughput_takes_the_smallest_mean_request(
    answers: list[list[Answer]], cost: list[float], probability: list[float]
) -> None:
    assert costs(state_after(Throughput(), answers)) == (cost, probability)


# AIBrix, least_latency_test.go: prompt, output, queue, prefill, decode of each instance, one request each.
_FOUR = [[Answer(10 * k, 100 * k, 5, 10 * k + extra, 10 * k + extra)] for k, extra in ((1, 0), (2, 1), (3, 1), (4, 1))]


def test_least_latency_scales_times_to_a_typical_request() -> None:
    cost, probability = costs(state_after(LeastLatency(), _FOUR))
    # means of 25 and 250 tokens: 5 + 2·25, 5 + 2·25·21/20, …
    assert cost == pytest.approx([55, 57.5, 5 + 50 * 31 / 30, 5 + 50 * 41 / 40])
    assert probability == [1, 0, 0, 0]


def test_least_latency_lets_the_last_of_a_tie_win() -> None:
    answers = [[Answer(10, 100, 5, 10, 10)], [Answer(20, 200, 5, 21, 21)], [Answer(20, 200, 5, 20, 20)]]
    cost, probability = costs(state_after(LeastLatency(), answers))
    assert cost[0] == cost[2]
    assert probability == [0, 0, 1]


def test_least_latency_guesses_tokens_nobody_has_told() -> None:
    """AIBrix: a mean of 0 tokens stands for the guess, so that times are taken as they are."""
    answers = [[Answer(0, 100, 5, 10, 10)], [Answer(0, 100, 5, 20, 10)]]
    assert costs(state_after(LeastLatency(), answers)) == ([25, 35], [1, 0])
    answers = [[Answer(10, 0, 5, 10, 20)], [Answer(10, 0, 5, 10, 10)]]
    assert costs(state_after(LeastLatency(), answers)) == ([35, 25], [0, 1])


def test_least_latency_sends_everything_to_an_instance_that_has_answered_nothing() -> None:
    state = state_after(LeastLatency(), [[Answer(10, 100, 0, 1, 1)], [], []])
    assert costs(state) == ([2, 0, 0], [0, 0, 1])
    state.leave(2)
    assert costs(state)[1] == [0, 1, 0]
    state.leave(1)
    state.join(2)
    assert costs(state)[1] == [0, 0, 1]


def test_least_latency_as_deployed_sees_neither_the_queue_nor_tokens() -> None:
    answers = [[Answer(10, 100, 50, 1, 3), Answer(30, 100, 50, 3, 3)], [Answer(1000, 9, 0, 4, 2)]]
    assert costs(state_after(LeastLatency(as_deployed=True), answers)) == ([5, 6], [1, 0])


def test_least_latency_leaves_out_what_is_not_known() -> None:
    nan = math.nan
    answers = [[Answer(10, 100, 2, 1, 1), Answer(99, nan, nan, nan, nan)], [Answer(10, 100, nan, 2, nan)]]
    assert costs(state_after(LeastLatency(), answers))[0] == pytest.approx([4, 2])


def test_least_latency_over_random_streams_is_the_formula() -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        answers = [
            [Answer(int(rng.integers(1, 99)), int(rng.integers(1, 99)), *rng.random(3)) for _ in range(rng.integers(4))]
            for _ in range(4)
        ]
        means = [np.mean([a._asdict()[f] for a in each] or [0.0]) for f in Answer._fields for each in answers]
        prompt, output, queue, prefill, decode = np.reshape(means, (5, 4))
        typical = [values[values > 0].mean() if (values > 0).any() else 1.0 for values in (prompt, output)]
        with np.errstate(invalid="ignore"):
            expected = queue + prefill / prompt * typical[0] + decode / output * typical[1]
        np.testing.assert_allclose(costs(state_after(LeastLatency(), answers))[0], np.nan_to_num(expected))


def fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def test_the_hash_that_sessions_are_checked_with_is_fnv_1a() -> None:
    """Vectors of the FNV authors."""
    assert fnv1a(b"a") == 0xAF63DC4C8601EC8C
    assert fnv1a(b"foobar") == 0x85944171F73967E8


def test_session_affinity_takes_the_highest_hash_of_key_and_address() -> None:
    names = ["10.0.0.1:8000", "10.0.0.12:8000", "pod-ü", "10.0.0.3:80", "a"]
    state = PolicyState(SessionAffinity(), Fleet(names))
    winners = []
    for session in [*range(200), 999, 1000, 10**9, 2**31 - 1]:
        hashes = [fnv1a(b"%d\x00%b" % (session, name.encode())) for name in names]
        cost, probability = costs(state, session)
        winners.append(int(np.argmax(hashes)))
        assert probability == [float(j == winners[-1]) for j in range(5)]
        assert cost == [float(j != winners[-1]) for j in range(5)]
    assert set(winners) == set(range(5))


def test_only_sessions_of_an_instance_that_left_move_and_they_come_back_with_it() -> None:
    state = PolicyState(SessionAffinity(), Fleet(["a:1", "b:1", "c:1", "d:1"]))

    def places() -> list[int]:
        return [costs(state, session)[1].index(1.0) for session in range(100)]

    before = places()
    state.leave(1)
    after = places()
    assert 1 in before
    assert 1 not in after
    assert [a for a, b in zip(after, before, strict=True) if b != 1] == [b for b in before if b != 1]
    state.join(1)
    assert places() == before  # though it is now last in the list


def test_a_request_without_a_session_goes_anywhere() -> None:
    state = PolicyState(SessionAffinity(), Fleet(["a", "b"]))
    assert costs(state)[1] == [0.5, 0.5]
