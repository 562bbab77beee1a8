"""The learned policy chooses what its model predicts to be fastest, by the code that trains and serves."""

from __future__ import annotations

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.engine import EngineModel
from lodestar.models.fit import fit
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.rows import rows_of
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.decisions import scored_decisions
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.routing.contract import Fleet, Models

CLUSTER = Cluster.of(
    [EngineModel.preset("l40s-llama-3.1-8b")] * 4, sharing_workload(800, rate_per_s=7.0, sharing_ratio=0.4, seed=3)
)


@pytest.fixture(scope="module")
def log() -> RequestLog:
    policy = make_policy("random")
    return recorded_log("made", CLUSTER, policy, CLUSTER.replay(policy, seed=0, record=True))


@pytest.fixture(scope="module")
def model(log: RequestLog) -> LatencyModel:
    workload = workload_of(log)
    snapshot, _ = complete_snapshot(log, workload)
    features = chosen_features(log, decision_features(log, snapshot))
    return fit(
        rows_of(log, features, workload.arrived_at_s, schema.TTFT_MS), schema.TTFT_MS, Parameters(), 0, heads=False
    )[0]


def test_it_chooses_the_lowest_prediction_of_the_model(log: RequestLog, model: LatencyModel) -> None:
    workload = workload_of(log)
    snapshot, _ = complete_snapshot(log, workload)
    features = decision_features(log, snapshot)
    n, m, k = features.shape
    predicted = model.predict(features.reshape(-1, k)).reshape(n, m)
    policy = make_policy("learned", Models.of(model))
    chosen = scored_decisions(policy, log, workload, snapshot, Fleet(log.instances))
    np.testing.assert_allclose(chosen.sum(axis=1), 1.0)
    np.testing.assert_allclose((chosen * predicted).sum(axis=1), predicted.min(axis=1), rtol=1e-9)


def test_what_it_sees_in_the_replay_is_what_a_log_of_the_replay_says(log: RequestLog, model: LatencyModel) -> None:
    policy = make_policy("learned", Models.of(model))
    outcome = CLUSTER.replay(policy, seed=0, record=True)
    again = recorded_log("again", CLUSTER, policy, outcome)
    assert (again.propensity > 0).all()
    assert (again.propensity == 1.0).mean() > 0.9  # the rest are ties


def test_it_beats_random_routing_on_the_cluster_it_learned_from(log: RequestLog, model: LatencyModel) -> None:
    learned = CLUSTER.replay(make_policy("learned", Models.of(model)), seed=5)
    random = CLUSTER.replay(make_policy("random"), seed=5)
    assert learned.ttft_ms.mean() < random.ttft_ms.mean()
    assert np.quantile(learned.ttft_ms, 0.99) < np.quantile(random.ttft_ms, 0.99)
