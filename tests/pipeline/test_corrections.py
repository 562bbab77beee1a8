"""The simulator corrected by the log: one step from logged states, and the closed loop by its own ratio."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.estimation.beyond.control_variate import control_variate
from lodestar.pipeline.estimation.blocks import block_of, block_se
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.estimates.closed_loop_correction import Correction, closed_loop_correction
from lodestar.pipeline.replay.estimates.simulated_one_step import simulated_ttft_ms
from lodestar.pipeline.replay.parallel import replay_all
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.routing.contract import Policy

TRUTH = replace(EngineModel.preset("a100-llama-3.1-8b"), kv_capacity_tokens=150_000, noise_ratio=0.02)
NAMES = ["random", "least-request", "least-uncached-tokens"]
SEEDS = range(8)


@cache
def cluster(engine: EngineModel = TRUTH) -> Cluster:
    workload = sharing_workload(
        1000, rate_per_s=40.0, sharing_ratio=0.8, seed=4, requests_per_prefix=60, prompt_tokens=(500, 1000, 2000)
    )
    return Cluster.of([engine] * 4, workload)


@cache
def recorded() -> RequestLog:
    outcome = cluster().replay(RandomChoice(), seed=100, record=True)
    return recorded_log("made", cluster(), RandomChoice(), outcome)


def corrected(engine: EngineModel, logging_policy: Policy | None, log: RequestLog | None = None) -> Correction:
    wrong = cluster(engine)
    outcomes = replay_all(wrong, {name: make_policy(name) for name in NAMES}, SEEDS)
    return closed_loop_correction(log or recorded(), wrong, outcomes, logging_policy)


@pytest.mark.parametrize("known", [True, False])
def test_a_simulator_that_is_slow_all_over_is_put_right_by_the_ratio(known: bool) -> None:
    """Every step takes 1.3 times as long, and the load is low, so that all policies are off by about as much."""
    found = corrected(TRUTH.slowed(1.3), RandomChoice() if known else None)
    truth = np.mean([cluster().replay(make_policy("least-request"), seed=seed).ttft_ms[50:].mean() for seed in SEEDS])
    row = found.rows[1]
    assert row["raw_ttft_ms"] > 1.25 * truth
    assert row["corrected_ttft_ms"] == pytest.approx(truth, rel=0.06)
    assert row["corrected_ci95"][0] < truth < row["corrected_ci95"][1]
    assert ("which made the log" if known else "the logged choices") in found.note


def test_the_corrected_mean_of_the_logging_policy_is_the_logged_one() -> None:
    row = corrected(TRUTH.slowed(1.3), RandomChoice()).rows[0]
    assert row["policy"] == "random"
    assert row["corrected_ttft_ms"] == pytest.approx(recorded().ttft_ms[50:].mean())
    assert row["hit_ratio_apart"] == 0.0


def test_where_the_cache_decides_the_ratio_is_flagged_and_the_raw_number_stays() -> None:
    rows = corrected(TRUTH, None).rows
    assert [row["error_may_differ"] for row in rows[:2]] == [False, False]
    far = [row for row in rows if abs(row["hit_ratio_apart"]) > 0.1]
    assert all("no ground to trust the corrected number" in row["note"] for row in far)
    assert all(row["error_may_differ"] == (row in far) and row["raw_ttft_ms"] > 0 for row in rows)


def test_without_measurements_nothing_is_corrected() -> None:
    found = corrected(TRUTH, None, replace(recorded(), ttft_ms=np.full(1000, np.nan)))
    assert found.rows == []
    assert found.note == "0 requests have a TTFT to correct by; expected 20 or more"
    assert found.to_dict()["corrected_note"] == found.note


def test_the_simulated_ttft_of_the_chosen_instance_is_that_of_its_replay() -> None:
    log = recorded()
    simulated = simulated_ttft_ms(log, cluster())
    replayed = cluster(replace(TRUTH, noise_ratio=0.0)).replay(forced=log.chosen).ttft_ms
    own = simulated[np.arange(1000), log.chosen]
    assert np.corrcoef(own, replayed)[0, 1] > 0.95
    assert np.mean(np.abs(own - replayed) < 1e-6) > 0.5  # the others are joined by a later prompt
    assert simulated.shape == (1000, 4)
    assert np.isfinite(simulated).all()


def test_a_wrong_simulator_is_corrected_to_the_one_step_value() -> None:
    """The truth is the one-step value by the true engines, which a slow simulator misses and the log puts right."""
    log, target = recorded(), np.zeros((1000, 4))
    true, slow = simulated_ttft_ms(log, cluster()), simulated_ttft_ms(log, cluster(TRUTH.slowed(1.3)))
    target[np.arange(1000), true.argmin(axis=1)] = 1.0
    truth = float((target * true).sum(axis=1).mean())
    logged = LoggedDecisions.of_padded(log.ttft_ms, log.candidate, log.chosen, log.propensity)
    found = control_variate(OneStepInput(logged, target.ravel(), slow.ravel()))
    assert found.simulated > 1.2 * truth
    assert abs(found.valued.value - truth) < 3 * block_se(found.valued.influence, block_of(1000))
    assert found.explained > 0.5


def test_a_log_that_does_not_fit_the_cluster_is_refused() -> None:
    with pytest.raises(DataError, match="the cluster has 3 instances and 1000 requests; expected the log's 4 and 1000"):
        simulated_ttft_ms(recorded(), Cluster.of([TRUTH] * 3, cluster().workload))
