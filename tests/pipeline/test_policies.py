"""Every policy keeps the contract, and each does what its source says."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.policies import HEURISTICS, make_policy
from lodestar.pipeline.replay.policies.aibrix_prefix_cache import AibrixPrefixCache
from lodestar.pipeline.replay.policies.contract import Policy, probabilities
from lodestar.pipeline.replay.router import draw as compiled_draw

NAMES = [policy.name for policy in HEURISTICS]
Floats = NDArray[np.float64]


def snapshot(inflight: list[float], hit: list[float] | None = None) -> Floats:
    rows = np.zeros((len(inflight), len(schema.SNAPSHOT_FIELDS)))
    rows[:, schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)] = inflight
    rows[:, schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)] = hit or 0.0
    return rows


def decide(policy: Policy, rows: Floats) -> list[float]:
    return [float(value) for value in probabilities(policy, np.array([1000.0]), rows[None])[0]]


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_sum_to_one_and_follow_the_candidates(name: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        rows = snapshot(rng.integers(0, 12, 6).tolist(), rng.choice([0.0, 0.1, 0.5, 0.9], 6).tolist())
        order = rng.permutation(6)
        straight = np.array(decide(make_policy(name), rows))
        assert straight.sum() == pytest.approx(1.0)
        assert (straight >= 0).all()
        np.testing.assert_allclose(decide(make_policy(name), rows[order]), straight[order])


@pytest.mark.parametrize("name", NAMES)
def test_one_candidate_gets_everything_and_none_gets_nothing(name: str) -> None:
    rows = snapshot([3.0, 1.0, 2.0], [0.2, 0.9, 0.0])
    rows[1:] = np.nan
    assert decide(make_policy(name), rows) == [1.0, 0.0, 0.0]


def test_least_request_splits_ties() -> None:
    assert decide(make_policy("least-request"), snapshot([2, 1, 1, 5])) == [0.0, 0.5, 0.5, 0.0]


def test_least_request_counts_an_instance_without_metrics_as_idle() -> None:
    rows = snapshot([2, 1])
    rows[0, schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)] = np.nan
    assert decide(make_policy("least-request"), rows) == [1.0, 0.0]


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


def test_draws_follow_the_probabilities() -> None:
    draw = compiled_draw.py_func
    probability = np.array([0.2, 0.0, 0.5, 0.3])
    picks = np.bincount([draw(probability, u) for u in np.random.default_rng(0).random(20_000)], minlength=4) / 20_000
    np.testing.assert_allclose(picks, probability, atol=0.015)
    assert draw(np.array([0.0, 1.0 - 1e-16, 0.0]), 1.0 - 1e-17) == 1


def test_an_unknown_policy_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'least-request'"):
        make_policy("least-requests")


def test_learned_without_a_model_says_to_train() -> None:
    with pytest.raises(ConfigError, match="Run lodestar train first"):
        make_policy("learned")
