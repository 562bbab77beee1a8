"""The derivative as a gate: it passes the cluster that made the log, and tells one whose cache does not help."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay import derivative_gate
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.decisions import score_decisions
from lodestar.pipeline.replay.derivative_gate import derivative_comparisons
from lodestar.pipeline.replay.gates import RUNS, Comparison, gates_of
from lodestar.pipeline.replay.judging import logging_policy
from lodestar.pipeline.replay.parallel import SERIAL
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import Names, recorded_log
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.trust import judge

TRUTH = replace(EngineModel.preset("a100-llama-3.1-8b"), kv_capacity_tokens=150_000, noise_ratio=0.05)
#: Nothing is found in the cache, and prompts are read so much faster that the mean TTFT is about the same.
USELESS_CACHE = replace(
    TRUTH, prefix_caching=False, prompt_token_ms=0.31 * TRUTH.prompt_token_ms, attention_ms=0.31 * TRUTH.attention_ms
)
TOWARDS = "least-uncached-tokens"
LOGS, REQUESTS = 3, 10_000


@cache
def cluster(engine: EngineModel = TRUTH, requests: int = REQUESTS) -> Cluster:
    workload = sharing_workload(
        requests, rate_per_s=30.0, sharing_ratio=0.8, seed=4, requests_per_prefix=60, prompt_tokens=(500, 1000, 2000)
    )
    return Cluster.of([engine] * 4, workload)


@cache
def recorded(seed: int = 0, policy: str = "random", requests: int = REQUESTS) -> RequestLog:
    made = cluster(requests=requests)
    outcome = made.replay(make_policy(policy), seed=100 + seed, record=True)
    return recorded_log(policy, made, make_policy(policy), outcome, names=Names(policy=policy))


@cache
def compared(engine: EngineModel) -> list[Comparison]:
    """Return what is compared of the same logs on the true engines and others."""
    policies = {TOWARDS: make_policy(TOWARDS)}
    found = []
    for seed in range(LOGS):
        of_log, notes = derivative_comparisons(recorded(seed), cluster(engine), RandomChoice(), policies, SERIAL)
        assert notes == []
        found += of_log
    return found


def z_of(comparison: Comparison) -> float:
    return float(comparison.note.split("z = ")[1].replace("−", "-"))


def test_the_true_cluster_passes() -> None:
    assert all(gates_of([each])[0].passed for each in compared(TRUTH))
    assert np.mean(np.abs([z_of(each) for each in compared(TRUTH)])) < 1.5


def test_a_cluster_whose_cache_does_not_help_leads_less_far_which_shows() -> None:
    right, wrong = ([z_of(each) for each in compared(engine)] for engine in (TRUTH, USELESS_CACHE))
    assert min(wrong) > max(2.0, *right)
    assert sum(not gates_of([each])[0].passed for each in compared(USELESS_CACHE)) >= 1


def test_what_is_compared_reaches_over_most_of_what_later_requests_pay() -> None:
    for each in [*compared(TRUTH), *compared(USELESS_CACHE)]:
        assert int(each.note.split("over ")[1].split()[0]) >= 24  # the plateau is at 24 to 64 requests


def test_a_log_whose_noise_leaves_only_the_first_few_requests_is_no_gate() -> None:
    workload = sharing_workload(
        1000, rate_per_s=150.0, sharing_ratio=0.8, seed=4, requests_per_prefix=60, prompt_tokens=(500, 1000, 2000)
    )
    made = Cluster.of([TRUTH] * 4, workload)
    run = made.replay(RandomChoice(), seed=100, record=True)
    log = recorded_log("loaded", made, RandomChoice(), run, names=Names(policy="random"))
    found, notes = derivative_comparisons(log, made, RandomChoice(), {"p": make_policy("least-request")}, SERIAL)
    assert found == []
    only = r"no derivative towards p is compared: at this log's noise only (\d+) of the (\d+)( or more)? requests over "
    told = re.match(only, notes[0])
    assert told is not None, notes
    assert 2 * int(told[1]) < int(told[2])
    assert notes[0].endswith("log more requests")


def test_luck_is_that_of_each_replay_in_the_place_of_the_log() -> None:
    found = compared(TRUTH)[0]
    assert found.name == f"derivative_{TOWARDS}_error"
    assert len(found.by_luck) == RUNS
    assert np.mean(found.by_luck) == pytest.approx(0.0, abs=1e-12)
    assert f"towards {TOWARDS}, over " in found.note


@pytest.mark.parametrize("name", ["least-request", TOWARDS])
def test_a_policy_asked_along_a_replay_says_what_it_says_of_its_log(name: str) -> None:
    log, made, policy = recorded(requests=300), cluster(requests=300), make_policy(name)
    asked = made.replay(policy, forced=log.chosen, seed=100, record=True, always=True)
    snapshot, _ = complete_snapshot(log, workload_of(log))
    scored = score_decisions(policy, log, workload_of(log), snapshot, made.fleet)
    assert np.array_equal(asked.instance, log.chosen)
    assert np.array_equal(asked.ttft_ms, log.ttft_ms)
    np.testing.assert_allclose(asked.probabilities, scored.probability, atol=1e-12)
    silent = made.replay(policy, forced=log.chosen, seed=100, record=True)
    assert np.isnan(silent.probabilities).all()


def notes_of(log: RequestLog, policies: dict[str, Policy], made_by: str = "random") -> list[str]:
    compared, notes = derivative_comparisons(log, cluster(requests=len(log)), make_policy(made_by), policies, SERIAL)
    assert compared == []
    return notes


def test_why_nothing_is_compared_is_said() -> None:
    log, towards = recorded(requests=600), {"least-request": make_policy("least-request")}
    keen = recorded(policy="epsilon:least-request,epsilon=0.5", requests=600)
    few = replace(keen, propensity=np.where(np.arange(len(keen)) % 2 == 0, np.nan, keen.propensity))
    assert notes_of(few, towards) == [
        "no derivative is compared: 285 requests have a decision with a propensity; expected 500. Log more"
    ]
    unmeasured = replace(log, ttft_ms=np.where(np.arange(len(log)) % 10 == 0, np.nan, log.ttft_ms))
    assert "10.0% of the requests have no TTFT" in notes_of(unmeasured, towards)[0]
    partly = replace(log, candidate=log.candidate & (np.arange(4) != (log.chosen[:, None] + 1) % 4))
    assert "candidates for a part of the decisions only" in notes_of(partly, towards)[0]
    lacking = replace(log, snapshot={**log.snapshot, "inflight_requests": np.full(log.candidate.shape, np.nan)})
    assert "the log lacks inflight_requests" in notes_of(lacking, towards)[0]


def test_a_log_that_does_not_explore_compares_nothing() -> None:
    log = recorded(policy="least-request", requests=600)
    notes = notes_of(log, {TOWARDS: make_policy(TOWARDS)}, "least-request")
    assert f"no derivative towards {TOWARDS}: its weights average" in notes[0]
    assert "explore" in notes[0]
    assert notes_of(log, {"least-request": make_policy("least-request")}, "least-request") == []


def test_what_takes_too_long_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derivative_gate, "MOST_POLICIES", 1)
    log, made = recorded(requests=600), cluster(requests=600)
    many = {f"p{k}": make_policy("least-request") for k in range(3)}
    found, notes = derivative_comparisons(log, made, RandomChoice(), many, SERIAL)
    assert [each.name for each in found] == ["derivative_p0_error"]
    assert notes == ["derivatives not compared, to save time: p1, p2"]
    assert "it looks into the engines" in notes_of(log, {"oracle-ttft": make_policy("oracle-ttft")})[0]


def test_judging_compares_policies_where_it_is_given_some_and_knows_what_made_the_log() -> None:
    log, made = recorded(requests=600), cluster(requests=600)
    towards = {"random": RandomChoice(), "least-request": make_policy("least-request")}
    of = partial(judge, log, made)
    names = [gate.name for gate in of(RandomChoice(), policies=towards).gates]
    assert [name for name in names if name.startswith("derivative")] == ["derivative_least-request_error"]
    assert not any(gate.name.startswith("derivative") for gate in of(RandomChoice()).gates)
    assert of(None, policies=towards).notes == ["no derivative is compared: the policy that made the log is not known"]


def test_a_log_that_names_its_settings_is_judged_by_its_own_policy_and_towards_the_same_one_set_otherwise() -> None:
    text, other = "epsilon:least-request,epsilon=0.3", "epsilon:least-request,epsilon=0.8"
    log, made = recorded(policy=text, requests=600), cluster(requests=600)
    made_by = logging_policy(log, log.propensity)
    assert made_by == make_policy(text)
    gates = judge(log, made, made_by, policies={each: make_policy(each) for each in (text, other)}).gates
    assert {"free_run_ttft_mean_error", f"derivative_{other}_error"} <= {gate.name for gate in gates}
    assert f"derivative_{text}_error" not in {gate.name for gate in gates}
    assert all(gate.passed for gate in gates)
