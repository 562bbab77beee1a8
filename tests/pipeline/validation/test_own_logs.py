"""Logs of a known cluster: the truth is got back from what a router would have written, one step and closed loop."""

from __future__ import annotations

import numpy as np
import pytest

from lodestar.data.workloads.transforms.clock import scale_rate
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.validation.one_step_truth import foreseen_ms, sent_elsewhere_ms
from lodestar.pipeline.validation.own_logs import WORLDS, known_cluster, own_logs, summary_of


def test_what_the_log_says_comes_back_where_a_request_went() -> None:
    cluster = known_cluster(WORLDS["sessions"], requests=150, seed=2)
    logged = cluster.replay(make_policy("random"), seed=5)
    chosen, rows = logged.instance.astype(np.int64), np.arange(100, 110)
    found = sent_elsewhere_ms(cluster, chosen, 5, rows)
    assert found[np.arange(10), chosen[rows]] == pytest.approx(logged.ttft_ms[rows])


def test_looking_ahead_is_exact_where_nobody_comes_after() -> None:
    busy = known_cluster(WORLDS["sharing09"], requests=40, seed=0)
    cluster = Cluster.of([EngineModel()] * 2, scale_rate(busy.workload, 1e-3))
    chosen = np.arange(40) % 2
    rows = np.arange(40)
    assert foreseen_ms(cluster, chosen, 0) == pytest.approx(sent_elsewhere_ms(cluster, chosen, 0, rows))


def test_a_request_that_comes_after_makes_the_wait_longer_than_looking_ahead_says() -> None:
    cluster = known_cluster(WORLDS["sharing09"], requests=150, seed=0)
    chosen, rows = np.zeros(150, dtype=np.int64), np.arange(60, 90)
    after = sent_elsewhere_ms(cluster, chosen, 0, rows)[:, 0] - foreseen_ms(cluster, chosen, 0)[rows, 0]
    assert (after >= -1e-6).all()
    assert (after > 1.0).mean() > 0.1


def test_the_truth_is_recovered_from_the_log_alone() -> None:
    policies = ("random", "least-uncached-tokens")
    found = own_logs(("sharing09",), policies, requests=500, seeds=4, logs=1, looked_at=40)
    summary = found["summary"][0]
    assert summary["kendall_tau"] == pytest.approx(1.0)
    assert summary["mean_error"] < 0.05
    assert summary["p99_mean_error"] < 0.15
    steps = summary["one_step"]
    assert steps["dr"]["one_step_mean_error"] < 0.03
    assert steps["dr"]["coverage"] == 1.0
    # What they estimate is not how the policy does: its own queues are another matter.
    of_policy = [row for row in found["one_step"] if row["policy"] == policies[1]]
    assert {row["estimand"] for row in of_policy} == {"one-step, logged states"}
    assert abs(next(row["error"] for row in of_policy if row["estimator"] == "dr")) > 0.03


def test_the_summary_counts_by_hand() -> None:
    closed = [
        {"world": "w", "log": 0, "truth_mean_ms": truth, "mean_ms": mean, "error_mean": mean / truth - 1}
        | {"error_p99": 0.1, "in_interval": truth < 3, "verdict": "trusted"}
        for truth, mean in ((1.0, 1.1), (2.0, 2.0), (4.0, 3.0))
    ]
    steps = [
        {"world": "w", "log": 0, "estimator": "dr", "one_step_error": -0.2, "covered": covered, "error": 0.5}
        | {"value_ms": value, "performance_ms": 2.0 * value if covered else 0.5}
        for value, covered in ((1.0, True), (2.0, False))
    ]
    found = summary_of("w", closed, steps)
    assert found["kendall_tau"] == pytest.approx(1.0)
    assert found["mean_error"] == pytest.approx((0.1 + 0.0 + 0.25) / 3)
    assert found["largest_error"] == pytest.approx(0.25)
    assert found["in_interval"] == pytest.approx(2 / 3)
    assert found["one_step"]["dr"] == {
        "one_step_mean_error": 0.2,
        "coverage": 0.5,
        "mean_error_as_performance": 0.5,
        "kendall_tau_as_performance": pytest.approx(-1.0),
    }
