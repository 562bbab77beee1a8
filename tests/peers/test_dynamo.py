"""`dynamo-kv` against the router itself: decision for decision, loads and costs included."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from lodestar.pipeline.replay.policies.dynamo_kv import DynamoKv
from peers.dynamo_pair import Decision, Pair
from peers.dynamo_peer import dynamo_router

pytestmark = pytest.mark.slow

#: Of the policy, the size of the fleet, how many requests are under way at most, and decisions.
SETTINGS: list[tuple[DynamoKv, int, int, int]] = [
    (DynamoKv(), 4, 24, 1700),
    (DynamoKv(block_tokens=4), 6, 3, 1700),
    (DynamoKv(2.5, 0.6, 0.7, 3.0, block_tokens=8), 5, 30, 1700),
    (
        DynamoKv(overlap_score_credit=1.5, decode_active_request_weight=0.25, temperature=0.3, block_tokens=4),
        4,
        16,
        900,
    ),
    (DynamoKv(temperature=1.0), 5, 12, 900),
]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    done = []
    for seed, (policy, instances, most_under_way, decisions) in enumerate(SETTINGS):
        with dynamo_router(policy.block_tokens, _as_told(policy)) as peer:
            done.append(Pair(policy, peer, instances, most_under_way, seed))
            done[-1].decide(decisions)
    return done


def _as_told(policy: DynamoKv) -> dict[str, float]:
    return {
        "PREFILL_LOAD_SCALE": policy.prefill_load_scale,
        "KV_OVERLAP_SCORE_CREDIT": policy.overlap_score_credit,
        "KV_OVERLAP_SCORE_CREDIT_DECAY": policy.overlap_score_credit_decay,
        "DECODE_ACTIVE_REQUEST_WEIGHT": policy.decode_active_request_weight,
        "TEMPERATURE": policy.temperature,
    }


def _drawn(pairs: list[Pair]) -> list[Decision]:
    return [each for pair in pairs for each in pair.decisions if each.temperature > 0.0]


def _strict(pairs: list[Pair]) -> list[Decision]:
    return [each for pair in pairs for each in pair.decisions if each.temperature == 0.0]


def test_the_peer_takes_the_lowest_cost_and_it_is_ours_to_the_bit(pairs: list[Pair]) -> None:
    decisions = _strict(pairs)
    assert len(decisions) >= 5000
    wrong = [each for each in decisions if not each.agreed]
    assert not wrong, f"{len(wrong)} of {len(decisions)} disagree, the first: {wrong[0]}"


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_with_a_temperature_the_peer_draws_as_often_as_our_probability_says(pairs: list[Pair], rank: int) -> None:
    decisions = [each for each in _drawn(pairs) if len(each.loads) > rank]
    ranked = [int(np.argsort(each.ours.cost, kind="stable")[rank]) for each in decisions]
    assert len(decisions) >= 1500
    assert all(each.agreed for each in decisions)
    taken = [each.peer.worker == j for each, j in zip(decisions, ranked, strict=True)]
    chance = [each.ours.probability[j] for each, j in zip(decisions, ranked, strict=True)]
    assert abs(_deviations(taken, chance)) < 4.0


def test_equal_costs_are_drawn_with_equal_chance(pairs: list[Pair]) -> None:
    ties = [each for each in _strict(pairs) if len(each.lowest) > 1]
    taken = [each.peer.worker == each.lowest[0] for each in ties]
    assert abs(_deviations(taken, [1.0 / len(each.lowest) for each in ties])) < 4.0


def test_loads_and_cached_blocks_are_the_peers_before_every_decision(pairs: list[Pair]) -> None:
    for each in (*_strict(pairs), *_drawn(pairs)):
        assert each.loads == each.peer.loads, each.request_id
        assert each.overlap_blocks == each.peer.overlap_blocks, each.request_id
        assert each.prefill_tokens == each.peer.prefill_tokens, each.request_id


def test_the_streams_have_every_situation_often(pairs: list[Pair]) -> None:
    decisions = _strict(pairs)
    hits = [each for each in decisions if max(each.overlap_blocks.values()) > 0]
    assert len(hits) >= 2000
    assert sum(each.overlap_blocks[each.peer.worker] < max(each.overlap_blocks.values()) for each in hits) >= 500
    assert sum(len(each.lowest) == 1 for each in decisions) >= 3000
    assert sum(len(each.lowest) > 1 for each in decisions) >= 300
    seen: Counter[str] = sum((pair.seen for pair in pairs), Counter())
    assert seen["under way at a decision"] >= 5 * len(decisions)
    assert min(seen["BlockStored"], seen["BlockRemoved"]) >= 1000
    assert min(seen["left"], seen["joined"], seen["cleared"], seen["heard of a forgotten request"]) >= 15
    assert min(seen["whole prompt cached"], seen["ended before its first token"]) >= 100


def _deviations(taken: list[bool], chance: list[float]) -> float:
    """Return by how many standard deviations the count differs from what is expected."""
    p = np.array(chance)
    return float((np.sum(taken) - p.sum()) / math.sqrt((p * (1.0 - p)).sum()))
