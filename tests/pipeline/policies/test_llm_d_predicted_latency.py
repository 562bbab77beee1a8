"""llm-d's predicted-latency profile: examples of its own tests, and each step run in plain Python with its coins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.policies.llm_d_predicted_latency import LlmDPredictedLatency
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.pick import Pick
from lodestar.pipeline.replay.routing.policy_state import PolicyState

Floats = NDArray[np.float64]
NAN = float("nan")
PROMPT = 6400  # 100 blocks, so that a hit ratio is a share of blocks


def snapshot(m: int, **columns: list[float]) -> Floats:
    rows = np.zeros((m, len(schema.SNAPSHOT_FIELDS)))
    for name, values in columns.items():
        rows[:, schema.SNAPSHOT_FIELDS.index(name)] = values
    return rows


def decide(policy: LlmDPredictedLatency, rows: Floats, ttft_ms: list[float], tpot_ms: list[float]) -> Floats:
    """Run the compiled rule on given predictions and return the probability of each."""
    m = len(rows)
    fleet = Fleet([f"pod-{j}" for j in range(m)])
    state = PolicyState(policy, fleet)
    cost, predicted_ms = (
        np.full(m, np.inf),
        np.ascontiguousarray(np.stack([ttft_ms, tpot_ms], axis=1), dtype=np.float64),
    )
    request, parameters = state.request(0.0, PROMPT), policy.parameters(fleet)
    policy.rule.compiled(request, rows, predicted_ms, np.arange(m), state.prefixes, state.memory, parameters, cost)
    assert policy.pick() == Pick(weighted=True)
    assert cost.sum() == pytest.approx(-1.0)
    return -cost


def settings(**changed: Any) -> LlmDPredictedLatency:
    """Switch the filters off, with SLOs of 1000 and 100 ms, but for what a test changes."""
    off: dict[str, Any] = {"strict_threshold": 0.0, "loose_threshold": 0.0, "explore_beyond": 0.0}
    return LlmDPredictedLatency(**{**off, "ttft_slo_ms": 1000.0, "tpot_slo_ms": 100.0, **changed})


def weights(*scores: float) -> Any:
    return pytest.approx([score / sum(scores) for score in scores])


# filter/prefixcacheaffinity/plugin_test.go: shares of cached blocks and predicted TTFTs of its endpoints
@pytest.mark.parametrize(
    ("cached", "ttft_ms", "penalty_ms", "kept"),
    [
        ([0.9, 0.85, 0.1], [100, 120, 50], 5000, [0, 1]),
        ([0.1, 0.2, 0.5], [10, 20, 30], 5000, [0, 1, 2]),
        ([0.9, 0.1], [500, 50], 100, [0, 1]),
        ([0.9, 0.1], [150, 50], 100, [0]),  # exactly at the limit: sticky
        ([0.9, 0.1], [5000, 50], 0, [0]),  # no limit
    ],
)
def test_affinity_of_the_peers_own_test(
    cached: list[float], ttft_ms: list[float], penalty_ms: float, kept: list[int]
) -> None:
    for filter_ in ("strict_threshold", "loose_threshold"):
        policy = settings(max_ttft_penalty_ms=penalty_ms, ttft_slo_ms=10_000.0, **{filter_: 0.8})
        drawn = decide(policy, snapshot(len(cached), hit_ratio=cached), ttft_ms, [10.0] * len(cached))
        assert np.flatnonzero(drawn).tolist() == kept


# filter/sloheadroomtier/plugin_test.go: positive headroom (100, 50) and (200, 80), negative (-100, -50)
@pytest.mark.parametrize("explore", [0.0, 1.0, 0.01])
@pytest.mark.parametrize("tpot_ms", [[50.0, 20.0, 150.0], [NAN] * 3])
def test_the_beyond_get_the_chance_of_exploration(explore: float, tpot_ms: list[float]) -> None:
    drawn = decide(settings(explore_beyond=explore), snapshot(3), [900, 800, 1100], tpot_ms)
    assert drawn.tolist() == pytest.approx([(1 - explore) / 1.01, (1 - explore) * 0.01 / 1.01, explore])


# scorer/latency/plugin_test.go, with the scores that its formula gives
@pytest.mark.parametrize(
    ("ttft_ms", "tpot_ms", "inflight", "expected"),
    [
        # positive headroom (100, 20) and (30, 5): the one closer to its SLO
        ([900, 970], [80, 95], [5, 8], [0.01, 1.0]),
        # negative (-10, -5) and (-100, -30): the smaller violation
        ([1010, 1100], [105, 130], [5, 8], [1.0, 0.01]),
        # the same deficit (-50, -10), one idle
        ([1050, 1050], [110, 110], [5, 0], [0.0, 1.0]),
        # beyond both, TTFT only, TPOT only: the last is least severe
        ([1050, 1030, 990], [110, 95, 108], [5, 3, 4], [0.0, 0.0, 1.0]),
        ([1050, 1030], [110, 95], [5, 3], [0.0, 1.0]),
        # TTFT headroom 0, 405, 500 of 500 and TPOT 52, 100, 0 of 100: c is 0.104, 0.848, 0.8; the last is 0.20 and not
        # 0.21, as 1 - 0.8 is less than 0.2 in floating point
        ([1000, 595, 500], [48, 0, 100], [1, 1, 1], [0.9, 0.16, 0.2]),
        # equal TPOT counts nothing: c is 0, 0.5, 1
        ([900, 800, 700], [50, 50, 50], [1, 1, 1], [1.0, 0.51, 0.01]),
        ([900, 900], [60, 20], [1, 1], [1.0, 0.01]),
        # all equal: c is 0.5
        ([900, 900], [50, 50], [1, 1], [0.51, 0.51]),
        # without a TPOT model
        ([900, 850, 800], [NAN] * 3, [1, 1, 1], [1.0, 0.51, 0.01]),
        ([1100, 1200], [NAN] * 2, [1, 1], [1.0, 0.01]),
    ],
)
def test_latency_scores_worked_by_hand(
    ttft_ms: list[float], tpot_ms: list[float], inflight: list[float], expected: list[float]
) -> None:
    rows = snapshot(len(ttft_ms), inflight_requests=inflight)
    assert decide(settings(), rows, ttft_ms, tpot_ms).tolist() == weights(*expected)


def test_most_headroom_first_only_within_the_slo() -> None:
    rows = snapshot(3, inflight_requests=[1, 1, 1])
    assert decide(settings(headroom="most"), rows, [900, 800, 700], [50] * 3).tolist() == weights(0.01, 0.51, 1.0)
    assert decide(settings(headroom="most"), rows, [1100, 1200, 1300], [50] * 3).tolist() == weights(1.0, 0.51, 0.01)


def test_without_slos_an_idle_instance_comes_first() -> None:
    rows = snapshot(3, inflight_requests=[0, 0, 2])
    assert decide(LlmDPredictedLatency(), rows, [300, 200, 100], [9, 9, 9]).tolist() == weights(0.01, 1.0, 0.0)
    busy = snapshot(3, inflight_requests=[4, 3, 2])
    assert decide(LlmDPredictedLatency(), busy, [300, 200, 100], [9, 9, 9]).tolist() == weights(0.01, 0.51, 1.0)


def test_without_predictions_free_cache_queue_and_prefix_count_alike() -> None:
    # scorer/latency/plugin_test.go: 0.2 used and no queue, 0.8 used and the longest; then prefixes and no metrics
    rows = snapshot(3, kv_usage_ratio=[0.2, 0.8, NAN], waiting_requests=[0, 5, NAN], hit_ratio=[0.0, 0.5, NAN])
    state = PolicyState(LlmDPredictedLatency(), Fleet(["a", "b", "c"]))
    cost, probability = state.decide(state.request(0.0, PROMPT), rows)
    assert (-cost).tolist() == pytest.approx([0.6, 0.23, 0.67])
    assert probability.tolist() == weights(0.6, 0.23, 0.67)


def filtered_by_affinity(kept: list[int], hit: Floats, ttft: Floats, threshold: float, penalty: float) -> list[int]:
    sticky, other = [j for j in kept if hit[j] >= threshold], [j for j in kept if hit[j] < threshold]
    if sticky and other and penalty > 0 and min(ttft[sticky]) - min(ttft[other]) > penalty:
        return kept
    return sticky or kept


def scored(kept: list[int], left: Floats, idle: NDArray[np.bool_]) -> dict[int, float]:
    met = left >= 0
    kinds = [
        [j for j in kept if met[j].all()],
        [j for j in kept if idle[j]],
        [j for j in kept if met[j, 0]],
        [j for j in kept if met[j, 1]],
        kept,
    ]
    best = next(kind for kind in kinds if kind)
    size = np.abs(left[best])
    spread = np.ptp(size, axis=0)
    alpha, beta = (0.8, 0.2) if (spread > 0).all() or not spread.any() else (spread > 0).astype(float).tolist()
    scores = {}
    for j, (ttft, tpot) in zip(best, size - size.min(axis=0), strict=True):
        c = alpha * (ttft / spread[0] if spread[0] else 0.5) + beta * (tpot / spread[1] if spread[1] else 0.5)
        scores[j] = min((math.trunc((1.0 - c) * 100.0) + 1) / 100, 1.0)
    return scores


def test_probabilities_are_those_of_the_steps_taken_one_by_one() -> None:
    """Lists go from plugin to plugin as in the peer, once for either side of its coin."""
    rng = np.random.default_rng(11)
    explored = 0
    for _ in range(400):
        m = int(rng.integers(1, 8))
        hit, idle = rng.choice([0.0, 0.5, 0.8, 0.9, 0.99, 1.0], m), rng.random(m) < 0.2
        predicted = np.stack([rng.choice([500, 2000, 4000, 9000], m), rng.choice([20, 45, 60], m)], axis=1)
        slo = np.array([rng.choice([0, 1000, 3000]), rng.choice([0, 50])])
        left = slo - predicted.astype(np.float64)
        kept = filtered_by_affinity(list(range(m)), hit, predicted[:, 0], 0.99, 5000)
        within = [j for j in kept if (left[j] >= 0).all()]
        beyond = [j for j in kept if j not in within]
        coin = [(0.99, within), (0.01, beyond)] if within and beyond else [(1.0, within or beyond)]
        explored += len(coin) - 1
        expected = np.zeros(m)
        for chance, tier in coin:
            scores = scored(filtered_by_affinity(tier, hit, predicted[:, 0], 0.8, 5000), left, idle)
            for j, score in scores.items():
                expected[j] += chance * score / sum(scores.values())
        policy = LlmDPredictedLatency(ttft_slo_ms=float(slo[0]), tpot_slo_ms=float(slo[1]))
        rows = snapshot(m, hit_ratio=hit.tolist(), inflight_requests=np.where(idle, 0, 3).tolist())
        drawn = decide(policy, rows, predicted[:, 0].tolist(), predicted[:, 1].tolist())
        np.testing.assert_allclose(drawn, expected, atol=1e-12)
    assert explored > 50


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"headroom": "best"}, "headroom is 'best'; expected least or most"),
        ({"explore_beyond": 1.5}, "explore_beyond is 1.5; expected 0 to 1"),
        ({"loose_threshold": -0.1}, "loose_threshold is -0.1; expected 0 to 1"),
        ({"max_ttft_penalty_ms": -1.0}, "max_ttft_penalty_ms is -1.0; expected 0 or more"),
        ({"block_tokens": 0.0}, "block_tokens is 0; expected 1 to"),
    ],
)
def test_settings_that_the_peer_refuses_are_refused(changed: dict[str, float | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**changed)
