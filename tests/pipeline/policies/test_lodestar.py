"""Lodestar: greedy on the prediction, with its cold start, its filter and its exploration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.log import Workload
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.engine import EngineModel
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.rows import rows_of
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policies.aibrix_prefix_cache import AibrixPrefixCache
from lodestar.pipeline.replay.policies.learned import Learned
from lodestar.pipeline.replay.policies.lodestar import Lodestar
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.routing.contract import Fleet, Models
from lodestar.pipeline.replay.routing.policy_state import PolicyState

FIELD = {name: k for k, name in enumerate(schema.SNAPSHOT_FIELDS)}


@pytest.fixture(scope="module")
def models() -> Models:
    """Learn from a replay under random routing."""
    from lodestar.data.workloads.sharing import sharing_workload

    workload = sharing_workload(800, rate_per_s=7.0, sharing_ratio=0.4, seed=3)
    cluster = Cluster.of([EngineModel.preset("l40s-llama-3.1-8b")] * 4, workload)
    log = recorded_log("made", cluster, RandomChoice(), cluster.replay(RandomChoice(), record=True))
    snapshot, _ = complete_snapshot(log, workload_of(log))
    rows = rows_of(log, chosen_features(log, decision_features(log, snapshot)), log.arrived_at_s, schema.TTFT_MS)
    return Models.of(fit(rows, schema.TTFT_MS, Parameters(), 0, heads=False)[0])


def snapshot(hit: list[float], usage: float) -> NDArray[np.float64]:
    rows = np.zeros((len(hit), len(FIELD)))
    rows[:, FIELD[schema.HIT_RATIO]] = hit
    rows[:, FIELD[schema.KV_USAGE_RATIO]] = usage
    return rows


def test_as_it_ships_it_is_the_greedy_learned_policy(busy: Workload, slow: EngineModel, models: Models) -> None:
    cluster = Cluster.of([slow] * 3, busy)
    published, learned = (
        cluster.replay(made, seed=1, record=True) for made in (Lodestar(models=models), Learned(models))
    )
    np.testing.assert_array_equal(published.instance, learned.instance)
    np.testing.assert_allclose(published.costs * 1e3, learned.costs)


def test_a_cold_start_is_prefix_cache_until_enough_are_answered(
    busy: Workload, slow: EngineModel, models: Models
) -> None:
    cluster = Cluster.of([slow] * 3, busy)
    cold, heuristic = (
        cluster.replay(made, seed=1, record=True)
        for made in (Lodestar(cold_start_requests=100, models=models), AibrixPrefixCache())
    )
    answered_s = np.sort(cold.e2e_ms / 1e3 + busy.arrived_at_s)[99]
    before = busy.arrived_at_s < answered_s
    assert 100 < before.sum() < 500
    np.testing.assert_array_equal(cold.costs[before], heuristic.costs[before])
    assert not np.isclose(cold.costs[~before], heuristic.costs[~before]).all()


def test_a_full_fleet_keeps_a_prefix_on_few_instances(models: Models) -> None:
    policy = Lodestar(filtered_instances=2, models=models)
    state = PolicyState(policy, Fleet.of([EngineModel()] * 8), block_tokens=16)
    kept = set()
    for k in range(20):
        request = state.request(float(k), 2000, [1, 2, 3])
        cost, probability = state.decide(request, snapshot([0.5] * 8, 0.9))
        kept.add(tuple(np.flatnonzero(np.isfinite(cost))))
        assert probability[np.isfinite(cost)].sum() == pytest.approx(1.0)
    assert len(kept) == 1
    assert len(next(iter(kept))) <= 2
    request = state.request(21.0, 2000, [1, 2, 3])
    for rows in (snapshot([0.5] * 8, 0.7), snapshot([0.01] * 8, 0.9)):  # room enough; a hit of 20 tokens
        assert np.isfinite(state.decide(request, rows)[0]).all()
    unshared = state.request(22.0, 2000)
    assert np.isfinite(state.decide(unshared, snapshot([0.5] * 8, 0.9))[0]).all()


def test_groups_are_spread_over_the_fleet(models: Models) -> None:
    policy = Lodestar(filtered_instances=1, models=models)
    state = PolicyState(policy, Fleet.of([EngineModel()] * 8), block_tokens=16)
    homes = [
        int(np.argmax(state.decide(state.request(0.0, 2000, [group]), snapshot([0.5] * 8, 0.9))[1]))
        for group in range(400)
    ]
    assert np.bincount(homes, minlength=8).min() > 25


def test_exploration_gives_everybody_a_chance(models: Models) -> None:
    policy = Lodestar(exploration=0.2, models=models)
    state = PolicyState(policy, Fleet.of([EngineModel()] * 4))
    rows = snapshot([0.0] * 4, 0.1)
    rows[0, FIELD[schema.HIT_RATIO]] = 0.9
    probability = state.decide(state.request(0.0, 2000), rows)[1]
    assert probability.min() == pytest.approx(0.05)
    assert replace(policy, exploration=0.0).pick().epsilon == 0.0
