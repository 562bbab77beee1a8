"""Predictions stand beside what other arms measured, with error, interval, hits and the one-step estimate."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.measured import compare_measured, one_run
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log

ENGINE = replace(EngineModel.preset("a100-llama-3.1-8b"), kv_capacity_tokens=150_000, noise_ratio=0.05)
SEEDS = range(4)
SNIPW = [{"policy": "least-request", "estimator": "snipw", "value_ms": 300.0, "se_ms": 9.0}]


@cache
def cluster() -> Cluster:
    return Cluster.of([ENGINE] * 4, sharing_workload(800, rate_per_s=10.0, sharing_ratio=0.4, seed=2))


@cache
def recorded(policy: str) -> RequestLog:
    made = make_policy(policy)
    return recorded_log(policy, cluster(), made, cluster().replay(made, seed=50, record=True))


def compared(*others: RequestLog, **settings: Any) -> dict[str, Any]:
    names = ("random", "least-request")
    outcomes = {name: [cluster().replay(make_policy(name), seed=seed) for seed in SEEDS] for name in names}
    return compare_measured(recorded("random"), others, cluster(), outcomes, SEEDS, SNIPW, **settings)


def row_of(found: dict[str, Any], policy: str) -> dict[str, Any]:
    row: dict[str, Any] = next(row for row in found["measured"] if row["policy"] == policy)
    return row


def test_the_policy_that_ran_and_its_own_choices_agree_and_another_policy_does_not() -> None:
    found = compared(recorded("least-request"))
    for policy in ("least-request", "choices of least-request"):
        assert abs(row_of(found, policy)["error_mean"]) < 0.1
        assert abs(row_of(found, policy)["error_p99"]) < 0.2
    assert row_of(found, "random")["error_mean"] > 0.2


def test_errors_are_those_of_the_numbers_beside_them() -> None:
    row = row_of(compared(recorded("least-request")), "random")
    for name in ("mean", "p50", "p90", "p99"):
        assert row[f"error_{name}"] == pytest.approx(row["predicted_ttft_ms"][name] / row["ttft_ms"][name] - 1)


def test_one_further_run_lies_in_its_interval_19_times_of_20() -> None:
    runs = np.random.default_rng(0).normal(100.0, 5.0, (2000, 6))
    inside = [low <= runs[k, 5] <= high for k in range(2000) for low, high in [one_run(runs[k, :5].tolist()) or (0, 0)]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    row = row_of(compared(recorded("least-request")), "least-request")
    low, high = row["predicted_one_run95_ms"]["mean"]
    assert low < row["predicted_ttft_ms"]["mean"] < high


def test_the_warm_up_counts_on_neither_side() -> None:
    arm = recorded("least-request")
    changed = replace(arm, ttft_ms=np.where(np.arange(len(arm)) < 40, 1e6, arm.ttft_ms))
    assert row_of(compared(changed), "random") == row_of(compared(arm), "random")
    assert row_of(compared(arm), "random")["requests"] == 760
    assert row_of(compared(arm, warmup_ratio=0.0), "random")["requests"] == 800


def test_the_belief_of_both_routers_is_compared_and_the_engines_hits_stand_apart() -> None:
    arm = recorded("aibrix-prefix-cache")
    row = row_of(compared(arm), "choices of aibrix-prefix-cache")
    believed = arm.snapshot["hit_ratio"][np.arange(800), arm.chosen][40:]
    weighted = np.average(believed, weights=arm.prompt_tokens[40:])
    assert row["router_hit_ratio"] == pytest.approx(weighted)
    assert row["predicted_router_hit_ratio"] == pytest.approx(weighted, abs=0.01)
    assert 0 < row["predicted_hit_ratio"] <= row["predicted_router_hit_ratio"]


def test_an_arm_that_does_not_log_hits_has_none() -> None:
    arm = recorded("least-request")
    silent = replace(arm, snapshot={**arm.snapshot, "hit_ratio": np.full_like(arm.snapshot["hit_ratio"], np.nan)})
    row = row_of(compared(silent), "random")
    assert row["router_hit_ratio"] is row["predicted_router_hit_ratio"] is None
    assert row["predicted_hit_ratio"] > 0


def test_the_one_step_estimate_stands_beside_the_policy_it_is_of() -> None:
    found = compared(recorded("least-request"))
    row = row_of(found, "least-request")
    assert row["one_step_snipw_ms"] == 300.0
    assert row["one_step_snipw_error"] == pytest.approx(300.0 / row["ttft_ms"]["mean"] - 1)
    assert row_of(found, "choices of least-request")["one_step_snipw_ms"] is None


def test_several_arms_are_put_in_order_with_the_log_itself() -> None:
    least, prefix = recorded("least-request"), recorded("aibrix-prefix-cache")
    order = compared(least, prefix)["measured_order"]
    assert order["right"]
    assert order["measured"][0] == "random"
    assert set(order["measured"]) == {"random", "least-request", "aibrix-prefix-cache"}


def test_a_wrong_order_is_said_with_the_pair() -> None:
    slow = replace(recorded("least-request"), ttft_ms=10 * recorded("least-request").ttft_ms)
    order = compared(slow)["measured_order"]
    assert not order["right"]
    assert order["wrong_pairs"] == [["random", "least-request"]]
    assert order["measured"] == order["predicted"][::-1]


def test_other_traffic_is_refused() -> None:
    other = recorded("least-request")
    with pytest.raises(DataError, match="--measured least-request: 0 of the 800 requests of random have a TTFT in it"):
        compared(replace(other, request_id=[f"x{i}" for i in range(800)]))


def test_one_seed_gives_no_interval() -> None:
    outcomes = {"random": [cluster().replay(make_policy("random"), seed=0)]}
    found = compare_measured(recorded("random"), [recorded("least-request")], cluster(), outcomes, range(1))
    assert row_of(found, "random")["predicted_one_run95_ms"]["mean"] is None


@cache
def without_blocks(policy: str) -> RequestLog:
    """A log that tells of prefixes by hits alone, of engines that have room for all of them."""
    roomy = Cluster.of([ENGINE] * 4, sharing_workload(800, rate_per_s=8.0, sharing_ratio=0.5, seed=3))
    made = make_policy(policy)
    return replace(
        recorded_log(policy, roomy, made, roomy.replay(made, seed=50, record=True)),
        block_tokens=None,
        block_ids=np.zeros(0, dtype=np.int64),
        block_offsets=np.zeros(801, dtype=np.int64),
    )


def compared_without_blocks(*others: RequestLog) -> dict[str, Any]:
    log = without_blocks("random")
    inferred = Cluster.of([ENGINE] * 4, workload_of(log))
    outcomes = {"random": [inferred.replay(make_policy("random"), seed=seed) for seed in SEEDS]}
    return compare_measured(log, others, inferred, outcomes, SEEDS)


def test_choices_that_followed_groups_which_one_log_leaves_open_are_set_right_by_their_own_hits() -> None:
    found = compared_without_blocks(without_blocks("aibrix-prefix-cache"))
    row = row_of(found, "choices of aibrix-prefix-cache")
    assert row["predicted_router_hit_ratio"] < row["router_hit_ratio"] - 0.03
    assert row["error_mean"] > 0.1
    assert abs(row["error_mean_hits_known"]) < 0.05
    assert row["error_mean_hits_known"] == row["predicted_mean_hits_known_ms"] / row["ttft_ms"]["mean"] - 1
    assert row["groups_matter"]
    # A policy that decides again meets as many prefixes either way.
    assert "error_mean_hits_known" not in row_of(found, "random")


def test_the_hits_that_tell_groups_tell_no_latency() -> None:
    arm = without_blocks("aibrix-prefix-cache")
    fast = compared_without_blocks(replace(arm, ttft_ms=arm.ttft_ms / 2))
    for name in ("predicted_ttft_ms", "predicted_mean_hits_known_ms"):
        told, otherwise = (row_of(each, f"choices of {arm.dataset}") for each in (compared_without_blocks(arm), fast))
        assert told[name] == otherwise[name]


def test_groups_that_are_logged_or_that_an_arm_says_nothing_of_are_not_told_again() -> None:
    assert "groups_matter" not in row_of(compared(recorded("least-request")), "choices of least-request")
    arm = without_blocks("least-request")
    silent = replace(arm, snapshot={**arm.snapshot, "hit_ratio": np.zeros_like(arm.snapshot["hit_ratio"])})
    assert "groups_matter" not in row_of(compared_without_blocks(silent), "choices of least-request")
