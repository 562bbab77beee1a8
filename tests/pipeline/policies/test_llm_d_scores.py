"""llm-d's default profile with either picker, against examples of its own tests and a sum written out in Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.policies.llm_d_default import LlmDDefault
from lodestar.pipeline.replay.policies.llm_d_weighted_random import LlmDWeightedRandom
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.policy_state import PolicyState

Floats = NDArray[np.float64]
NAN = float("nan")


def snapshot(waiting: list[float], kv_usage: list[float] | None = None, hit: list[float] | None = None) -> Floats:
    rows = np.full((len(waiting), len(schema.SNAPSHOT_FIELDS)), NAN)
    columns = {
        schema.WAITING_REQUESTS: waiting,
        schema.KV_USAGE_RATIO: kv_usage or 0.0,
        schema.HIT_RATIO: hit or 0.0,
    }
    for name, values in columns.items():
        rows[:, schema.SNAPSHOT_FIELDS.index(name)] = values
    return rows


def decide(policy: Policy, rows: Floats, prompt_tokens: int = 6400) -> tuple[list[float], list[float]]:
    """Return the sum of scores and the probability of each."""
    state = PolicyState(policy, Fleet([f"pod-{j}" for j in range(len(rows))]))
    cost, probability = state.decide(state.request(0.0, prompt_tokens), rows)
    return [-float(value) for value in cost], [float(value) for value in probability]


@pytest.mark.parametrize(
    ("waiting", "expected"),
    # scorer/queuedepth/queue_test.go: different, same, and no queues
    [([10, 5, 0], [0.0, 0.5, 1.0]), ([5, 5], [1.0, 1.0]), ([0, 0], [1.0, 1.0])],
)
def test_queue_score_of_the_peers_own_test(waiting: list[float], expected: list[float]) -> None:
    assert decide(LlmDDefault(queue_weight=1, kv_weight=0), snapshot(waiting))[0] == expected


def test_kv_score_is_what_is_free_and_never_outside_its_range() -> None:
    # kvcache_utilization_test.go: 0.8, 0.5, 0 used; then what no gauge should say
    policy = LlmDDefault(queue_weight=0, kv_weight=1)
    assert decide(policy, snapshot([0] * 5, [0.8, 0.5, 0.0, 1.5, -0.5]))[0] == pytest.approx([0.2, 0.5, 1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("prompt_tokens", "hit", "expected"),
    [
        (640, 0.5, 0.5),
        (640, 0.55, 0.5),  # 352 tokens are 5 whole blocks of 64
        (650, 640 / 650, 10 / 11),  # the last block is there but partly filled
        (650, 1.0, 1.0),
        (40, 0.9, 0.0),
        (262_144, 0.25, 0.5),  # only the first 131,072 tokens are looked up
        (262_144, 0.75, 1.0),
        (640, NAN, 0.0),
    ],
)
def test_prefix_score_counts_blocks(prompt_tokens: int, hit: float, expected: float) -> None:
    policy = LlmDDefault(queue_weight=0, kv_weight=0, prefix_weight=1)
    assert decide(policy, snapshot([0], hit=[hit]), prompt_tokens)[0] == pytest.approx([expected])


def test_the_default_profile_worked_by_hand() -> None:
    # 2·1 + 2·0.3 + 0, 2·0.75 + 2·0.2 + 3·0.5, 2·0 + 2·0.9 + 3·0.5
    rows = snapshot([0, 1, 4], [0.7, 0.8, 0.1], [0.0, 0.5, 0.5])
    total, probability = decide(LlmDDefault(), rows)
    assert total == pytest.approx([2.6, 3.4, 3.3])
    assert probability == [0.0, 1.0, 0.0]
    assert decide(LlmDDefault(prefix_weight=0), rows)[1] == [1.0, 0.0, 0.0]
    weighted = decide(LlmDWeightedRandom(), rows)[1]
    assert weighted == pytest.approx([2.6 / 9.3, 3.4 / 9.3, 3.3 / 9.3])


def test_the_highest_is_drawn_from_among_ties() -> None:
    assert decide(LlmDDefault(), snapshot([1, 0, 0, 3]))[1] == [0.0, 0.5, 0.5, 0.0]


def test_an_instance_without_metrics_counts_as_empty() -> None:
    total, probability = decide(LlmDDefault(), snapshot([NAN, 2, 4], [NAN, 0.5, 0.5]))
    assert total == pytest.approx([4.0, 2.0, 1.0])
    assert probability == [1.0, 0.0, 0.0]


def test_without_any_score_all_have_the_same_chance() -> None:
    rows = snapshot([3, 3], [1.0, 1.0])
    assert decide(LlmDWeightedRandom(queue_weight=0), rows)[1] == [0.5, 0.5]
    # weightedrandom/picker.go: a score of zero is never drawn beside a positive one
    assert decide(LlmDWeightedRandom(queue_weight=0), snapshot([3, 3], [1.0, 0.9]))[1] == [0.0, 1.0]


def test_probabilities_are_those_of_the_largest_key() -> None:
    """The peer draws u^(1/score) for each and takes the largest."""
    rows = snapshot([0, 2, 3], [0.5, 0.2, 0.9], [0.1, 0.9, 0.0])
    total, probability = decide(LlmDWeightedRandom(), rows)
    keys = np.random.default_rng(0).random((60_000, 3)) ** (1.0 / np.array(total))
    drawn = np.bincount(keys.argmax(axis=1), minlength=3) / len(keys)
    np.testing.assert_allclose(probability, drawn, atol=0.01)


def test_sums_on_random_snapshots_are_those_written_out() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        m, prompt = int(rng.integers(1, 7)), int(rng.integers(1, 5000))
        waiting, used = rng.integers(0, 5, m).astype(float), rng.random(m)
        matched = rng.integers(0, prompt // 64 + 1, m)
        expected = [
            2.0 * (1.0 if np.ptp(waiting) == 0 else (waiting.max() - waiting[j]) / np.ptp(waiting))
            + 2.0 * (1.0 - used[j])
            + 3.0 * (matched[j] / math.ceil(prompt / 64))
            for j in range(m)
        ]
        rows = snapshot(waiting.tolist(), used.tolist(), (matched * 64 / prompt).tolist())
        exact = matched * 64 < prompt  # a match of every token is a match of every block, too
        total = decide(LlmDDefault(), rows, prompt)[0]
        np.testing.assert_allclose(np.array(total)[exact], np.array(expected)[exact])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"queue_weight": -1.0}, "queue_weight is -1"), ({"block_tokens": 0.0}, "block_tokens is 0; expected 1 to")],
)
def test_settings_that_make_no_score_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LlmDWeightedRandom(**settings)
