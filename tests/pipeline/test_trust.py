"""The gates tell a right cluster from a wrong one, by what luck explains and no more, and say why."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.arms import arms_of, measured_arms_of
from lodestar.data.reconstruction.arrivals_from import joined_arrivals
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.calibrate import calibrate
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.gates import LIMITS, RUNS, Comparison, Gate, gates_of
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.trust import Trust, judge

TRUTH = replace(EngineModel.preset("a100-llama-3.1-8b"), kv_capacity_tokens=150_000, noise_ratio=0.05)


@cache
def recorded(policy: str = "random", seed: int = 0, requests: int = 1000) -> RequestLog:
    """What four engines made of one stream under a policy."""
    cluster = Cluster.of([TRUTH] * 4, sharing_workload(requests, rate_per_s=10.0, sharing_ratio=0.3, seed=4))
    outcome = cluster.replay(make_policy(policy), seed=100 + seed, record=True)
    return recorded_log(policy, cluster, make_policy(policy), outcome)


def judged(engine: EngineModel, log: RequestLog | None = None, *arms: RequestLog, policy: str = "random") -> Trust:
    log = log or recorded()
    return judge(log, Cluster.of([engine] * len(log.instances), workload_of(log)), make_policy(policy), arms)


def gate_of(trust: Trust, name: str) -> Gate:
    return next(gate for gate in trust.gates if gate.name == name)


def test_a_calibrated_cluster_is_trusted() -> None:
    log = recorded()
    trust = judge(log, Cluster.of(calibrate(log, workload_of(log)).engines, workload_of(log)), make_policy("random"))
    assert trust.verdict == "trusted", trust.reasons


def test_the_true_engine_seldom_fails_by_luck() -> None:
    verdicts = [judged(TRUTH, recorded(seed=seed, requests=500)).verdict for seed in range(20)]
    assert verdicts.count("untrusted") <= 3  # one is expected; four or more would come in 2 of 100


def test_a_request_whose_choice_is_not_logged_judges_nothing() -> None:
    log = recorded()
    unknown = np.arange(len(log)) % 20 == 0
    odd = replace(
        log, chosen=np.where(unknown, -1, log.chosen), ttft_ms=np.where(unknown, 50 * log.ttft_ms, log.ttft_ms)
    )
    compared = gate_of(judged(TRUTH, odd), "forced_ttft_mean_error")
    assert compared.passed, compared


@pytest.mark.parametrize("wrong", [TRUTH.slowed(1.2), TRUTH.slowed(0.75), replace(TRUTH, prefix_caching=False)])
def test_a_wrong_engine_is_not_trusted(wrong: EngineModel) -> None:
    trust = judged(wrong)
    assert trust.verdict == "untrusted"
    assert any(reason.startswith("forced_ttft_mean_error is ") for reason in trust.reasons)


def test_a_wrong_routing_policy_fails_the_free_run_alone() -> None:
    trust = judged(TRUTH, policy="least-request")
    assert [gate.name for gate in trust.gates if not gate.passed] == ["free_run_ttft_mean_error"]


def test_noise_does_not_excuse_a_wrong_engine() -> None:
    trust = judged(replace(TRUTH.slowed(1.5), noise_ratio=1.5))
    mean = gate_of(trust, "forced_ttft_mean_error")
    assert mean.noise_floor is not None
    assert mean.noise_floor > mean.limit == LIMITS["forced_ttft_mean_error"][1]
    assert "but excuses no more than 0.20" in mean.why
    assert trust.verdict == "untrusted"


def test_every_gate_says_what_luck_explains_and_why_its_limit_is_what_it_is() -> None:
    trust = judged(TRUTH)
    assert {gate.name for gate in trust.gates} == set(LIMITS) - {"forced_unanswered_ratio"} - {
        "arm_mean_error",
        "arm_p99_error",
        "derivative_error",
    }
    assert all(gate.noise_floor is not None and "luck alone" in gate.why for gate in trust.gates)
    free_run = gate_of(trust, "free_run_ttft_mean_error")
    assert free_run.limit == max(0.10, free_run.noise_floor or 0.0)
    assert f"of the {RUNS} runs and the log" in free_run.why


def test_luck_lowers_the_correlation_that_is_asked_and_raises_the_errors() -> None:
    luck = np.random.default_rng(0).normal(0, 1, RUNS)
    compared = [
        Comparison("forced_ttft_rank_correlation", 0.7, (0.75 + 0.05 * luck).tolist()),
        Comparison("free_run_ttft_mean_error", 0.2, (0.3 * luck).tolist()),
    ]
    correlation, free_run = gates_of(compared)
    assert correlation.limit < 0.7
    assert free_run.limit > 0.2
    assert correlation.passed
    assert free_run.passed


def test_what_another_router_chose_is_foretold_by_the_right_engine() -> None:
    trust = judged(TRUTH, recorded(), recorded("least-request"), recorded("aibrix-prefix-cache"))
    arms = [gate for gate in trust.gates if gate.name.startswith("arm_")]
    assert [gate.name for gate in arms] == [
        f"arm_{arm}_{what}_error" for arm in ("least-request", "aibrix-prefix-cache") for what in ("mean", "p99")
    ]
    assert trust.verdict == "trusted", trust.reasons


def test_an_arm_that_is_not_foretold_is_a_reason() -> None:
    arm = recorded("least-request")
    trust = judged(TRUTH, recorded(), replace(arm, ttft_ms=1.5 * arm.ttft_ms))
    assert trust.verdict == "untrusted"
    assert trust.reasons[0].startswith("arm_least-request_mean_error is −0.3")


def test_the_instances_of_an_arm_are_matched_by_name() -> None:
    arm, turned = recorded("least-request"), np.array([2, 0, 3, 1])
    other = replace(arm, instances=[arm.instances[j] for j in turned], chosen=np.argsort(turned)[arm.chosen])
    gates = [gate_of(judged(TRUTH, recorded(), each), "arm_least-request_mean_error") for each in (arm, other)]
    assert gates[0] == gates[1]


def test_an_arm_with_more_instances_is_not_replayed_which_is_said() -> None:
    arm = recorded("least-request")
    trust = judged(TRUTH, recorded(), replace(arm, instances=[*arm.instances, "another"]))
    assert not any(gate.name.startswith("arm_") for gate in trust.gates)
    assert trust.notes == ["least-request is not replayed: it has 5 instances, not 4"]


def test_prefix_groups_are_inferred_without_the_arm_that_judges() -> None:
    log, arm = (replace(recorded(name, requests=300), block_tokens=None) for name in ("random", "least-request"))
    scrambled = replace(arm, snapshot={**arm.snapshot, "hit_ratio": arm.snapshot["hit_ratio"][::-1].copy()})
    cluster = Cluster.of([TRUTH] * 4, workload_of(log, arms=[arm]))
    told = [judge(log, cluster, None, [each], [each]).gates for each in (arm, scrambled)]
    assert told[0] == told[1]


def test_an_arm_whose_choices_followed_groups_that_are_not_known_says_so_beside_its_gate() -> None:
    log, arm = (replace(recorded(name), block_tokens=None) for name in ("random", "aibrix-prefix-cache"))
    trust = judge(log, Cluster.of([TRUTH] * 4, workload_of(log)), None, [arm])
    gate = gate_of(trust, "arm_aibrix-prefix-cache_mean_error")
    assert gate.value is not None
    assert gate.value > 0.1
    (note,) = trust.notes
    assert note.startswith("arm_aibrix-prefix-cache_mean_error would be ")
    assert note.endswith("the other logs leave those groups open, so that only the first is the engines' or luck")
    assert abs(float(note.split(" would be ")[1].split(",")[0].replace("−", "-"))) < 0.05
    known = Cluster.of([TRUTH] * 4, workload_of(recorded()))
    assert judge(recorded(), known, None, [recorded("aibrix-prefix-cache")]).notes == []


def test_requests_that_the_replay_leaves_without_an_answer_are_counted() -> None:
    log = recorded()
    impatient = replace(workload_of(log), cancel_after_s=np.where(np.arange(len(log)) % 5 == 0, 0.01, np.inf))
    trust = judge(log, Cluster.of([TRUTH] * 4, impatient), None)
    assert gate_of(trust, "forced_unanswered_ratio").value == pytest.approx(0.2, abs=0.02)
    assert any("forced_unanswered_ratio" in reason for reason in trust.reasons)


def test_a_log_without_tpot_is_judged_by_its_e2e_and_without_both_not_trusted() -> None:
    without_tpot = replace(recorded(), tpot_ms=np.full(len(recorded()), np.nan))
    assert gate_of(judged(TRUTH, without_tpot), "forced_tpot_mean_error").passed
    without_both = judged(TRUTH, replace(without_tpot, e2e_ms=without_tpot.tpot_ms))
    assert without_both.verdict == "untrusted"
    assert "neither TPOT nor E2E" in without_both.reasons[0]


def test_a_latency_that_never_varies_fails_its_gate_instead_of_breaking_the_document() -> None:
    trust = judged(TRUTH, replace(recorded(), ttft_ms=np.full(len(recorded()), 100.0)))
    assert gate_of(trust, "forced_ttft_rank_correlation").value is None
    assert trust.verdict == "untrusted"


@pytest.mark.slow
def test_a_real_log_with_joined_arrivals_is_trusted_and_foretells_its_other_arms(traces: Path, tmp_path: Path) -> None:
    workspace, folder = Workspace.open(tmp_path), traces / "lodestar" / "sharing09"
    for name in ("random.csv", "prefix.csv", "rl.csv", "rl.klog"):
        ingest(workspace, [folder / f"{name}.gz"], name)
    with open_store(workspace) as con:
        log = joined_arrivals(load_log(con, "random.csv"), load_log(con, "rl.klog"))
        known, arms = arms_of(con, log), measured_arms_of(con, log)
    workload = workload_of(log, arms=known)
    trust = judge(log, Cluster.of(calibrate(log, workload).engines, workload), make_policy("random"), arms, known)
    assert trust.verdict == "trusted", trust.reasons
    assert (gate_of(trust, "forced_ttft_rank_correlation").value or 0.0) >= 0.9
    assert sum(gate.name.startswith("arm_") for gate in trust.gates) == 4
