"""Calibration finds an engine it has not been told, and the gates tell a good one from a bad one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibrate import Calibration, calibrate, can_calibrate
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policies import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.trust import judge

TRUTH = replace(EngineModel.preset("a100-llama-3.1-8b"), kv_capacity_tokens=150_000, noise_ratio=0.03)


@cache
def recorded() -> RequestLog:
    """The log of four engines unlike the one that the search starts from."""
    workload = sharing_workload(1200, rate_per_s=11.0, sharing_ratio=0.3, seed=4)
    cluster = Cluster.of([TRUTH] * 4, workload)
    policy = make_policy("random")
    return recorded_log("made", cluster, policy, cluster.replay(policy, seed=0, record=True))


@cache
def fitted() -> Calibration:
    return calibrate(recorded(), workload_of(recorded()))


def test_the_engine_behind_a_log_is_found() -> None:
    engine = fitted().engine
    for work in ({"prompt_tokens": 2048, "attention": 2048**2 / 2}, {"prompt_tokens": 0, "attention": 0}):
        for decoding in (1, 20):
            step = {**work, "decoding": decoding, "context_tokens": decoding * 4000}
            assert engine.step_ms(**step) == pytest.approx(TRUTH.step_ms(**step), rel=0.15), step
    assert engine.kv_capacity_tokens == pytest.approx(TRUTH.kv_capacity_tokens, rel=0.25)


def test_a_calibrated_cluster_is_trusted_and_a_wrong_one_is_not() -> None:
    log, workload = recorded(), workload_of(recorded())
    policy = make_policy("random")
    right = judge(log, Cluster.of([fitted().engine] * 4, workload), policy)
    assert right.verdict == "trusted", right.reasons
    wrong = judge(log, Cluster.of([EngineModel.preset("l40s-llama-3.1-8b")] * 4, workload), policy)
    assert wrong.verdict == "untrusted"
    assert any("forced_ttft_mean_error" in reason for reason in wrong.reasons)


def test_another_policy_is_predicted_from_the_log_of_random_routing() -> None:
    workload = workload_of(recorded())
    for name in ("least-request", "aibrix-prefix-cache"):
        policy = make_policy(name)
        truth = np.mean([Cluster.of([TRUTH] * 4, workload).replay(policy, seed=s).ttft_ms.mean() for s in range(5)])
        predicted = Cluster.of([fitted().engine] * 4, workload)
        found = np.mean([predicted.replay(policy, seed=s).ttft_ms.mean() for s in range(5, 10)])
        assert found == pytest.approx(truth, rel=0.1), name


def test_a_log_without_tpot_is_judged_by_its_e2e_and_without_both_not_trusted() -> None:
    log = recorded()
    without_tpot = replace(log, tpot_ms=np.full(len(log), np.nan))
    assert calibrate(without_tpot, workload_of(without_tpot)).engine == fitted().engine
    without_both = replace(without_tpot, e2e_ms=np.full(len(log), np.nan))
    cluster = Cluster.of([fitted().engine] * 4, workload_of(log))
    judged = judge(without_both, cluster, None)
    assert judged.verdict == "untrusted"
    assert "neither TPOT nor E2E" in judged.reasons[0]


def test_what_is_held_out_does_not_move_the_fit() -> None:
    log = recorded()
    later = np.arange(len(log)) >= 0.7 * len(log)
    usage = np.where(later[:, None], log.snapshot["kv_usage_ratio"] / 3, log.snapshot["kv_usage_ratio"])
    changed = replace(
        log, ttft_ms=np.where(later, 9 * log.ttft_ms, log.ttft_ms), snapshot={**log.snapshot, "kv_usage_ratio": usage}
    )
    assert calibrate(changed, workload_of(log)).engine == fitted().engine


def test_a_latency_that_never_varies_fails_its_gate_instead_of_breaking_the_document() -> None:
    log = replace(recorded(), ttft_ms=np.full(len(recorded()), 100.0))
    judged = judge(log, Cluster.of([fitted().engine] * 4, workload_of(log)), None)
    assert {gate.name: gate.value for gate in judged.gates}["forced_ttft_rank_correlation"] is None
    assert judged.verdict == "untrusted"


def test_a_log_without_outcomes_cannot_calibrate() -> None:
    log = recorded()
    assert can_calibrate(log)
    assert not can_calibrate(replace(log, ttft_ms=np.full(len(log), np.nan)))
    assert not can_calibrate(replace(log, chosen=np.full(len(log), -1)))
