"""CausalSim's load-balancing world: its queues and policies by hand, and what is foretold of a policy left out."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.calibrate import calibrate
from lodestar.pipeline.validation.worlds.job_invariance import invariance
from lodestar.pipeline.validation.worlds.job_replay import ONE_AT_A_TIME, job_log, job_workload, replayed
from lodestar.pipeline.validation.worlds.job_servers import POLICIES, SERVERS, Jobs, Run, draw_jobs, probabilities, run
from lodestar.pipeline.validation.worlds.load_balancing import draw_trial, load_balancing_scoreboard

Floats = NDArray[np.float64]


def servers_of(slowness: Floats) -> list[EngineModel]:
    return [replace(ONE_AT_A_TIME, prompt_token_ms=each) for each in slowness.tolist()]


def by_idle_jobs(jobs: Jobs, log: Run) -> list[EngineModel]:
    """Fit servers by the jobs that found them idle, which is all that these logs need."""
    alone = log.work_ms[np.arange(len(jobs)), log.server] == 0
    here = [alone & (log.server == j) for j in range(SERVERS)]
    return servers_of(np.array([np.median(log.latency_ms[each] / jobs.size[each]) for each in here]))


def four_jobs(uniform: float) -> Jobs:
    return Jobs(
        np.array([0.0, 10.0, 20.0, 100.0]), np.array([30, 30, 5, 7]), np.zeros(4, int), np.full(4, uniform), np.ones(8)
    )


def test_a_job_waits_for_those_before_it_on_its_server() -> None:
    jobs = four_jobs(uniform=0.0)  # the first server, all of them
    found = run(jobs, ["random"] * 4, jobs.processing_ms)
    assert found.latency_ms.tolist() == [30.0, 50.0, 45.0, 7.0]
    assert found.queue[:, 0].tolist() == [0.0, 1.0, 2.0, 0.0]
    assert found.work_ms[:, 0].tolist() == [0.0, 20.0, 40.0, 0.0]
    assert found.tracked[1:3, 0] == pytest.approx([0.005 * 30, 0.995 * 0.005 * 30 + 0.005 * 30])


def test_a_job_waits_for_nobody_on_a_server_of_its_own() -> None:
    jobs = four_jobs(uniform=0.5)
    found = run(jobs, ["shortest-queue"] * 4, jobs.processing_ms)
    assert found.server.tolist() == [0, 1, 2, 0]
    assert found.latency_ms.tolist() == [30.0, 30.0, 5.0, 7.0]


@pytest.mark.parametrize(
    ("policy", "server"), [("shortest-queue", 3), ("pseudo-optimal", 2), ("tracker", 1)], ids=lambda each: str(each)
)
def test_a_policy_that_knows_what_it_wants_chooses_that(policy: str, server: int) -> None:
    queue = np.array([[4.0, 1.0, 2.0, 0.0, 5.0, 5.0, 5.0, 5.0]])
    slowness = np.array([1.0, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0, 1.0])  # (jobs + 1) · slowness is 0.6 on the third
    tracked = np.array([[9.0, 1.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]])
    assert probabilities(policy, queue, slowness, tracked)[0].tolist() == np.eye(8)[server].tolist()


@pytest.mark.parametrize("k", [2, 3])
def test_power_of_k_is_the_shortest_of_k_draws_with_replacement(k: int) -> None:
    queue = np.array([3.0, 1.0, 1.0, 0.0, 5.0, 2.0, 5.0, 2.0])
    best = [min(drawn, key=lambda j: (queue[j], j)) for drawn in product(range(8), repeat=k)]
    expected = np.bincount(best, minlength=8) / 8**k
    found = probabilities(f"power-of-{k}", queue[None], np.ones(8), np.zeros((1, 8)))[0]
    assert found == pytest.approx(expected)


def test_every_trajectory_begins_idle_under_every_policy() -> None:
    jobs = draw_jobs(2000, seed=3)
    first = np.flatnonzero(np.diff(jobs.trajectory, prepend=-1))
    for policy in ("random", "shortest-queue"):
        found = run(jobs, [policy] * len(jobs), jobs.processing_ms)
        assert len(first) == 4
        assert (found.work_ms[first] == 0).all()


@pytest.mark.parametrize("policy", ["random", "power-of-3", "pseudo-optimal", "tracker"])
def test_the_cluster_replays_what_lindley_says(policy: str) -> None:
    jobs = draw_jobs(1000, seed=1)
    truth = run(jobs, [policy] * len(jobs), jobs.processing_ms).latency_ms
    assert replayed(jobs, policy, servers_of(jobs.slowness)) == pytest.approx(truth, rel=1e-6)


def test_calibration_finds_how_slow_a_server_is() -> None:
    trial = draw_trial(4000, seed=0)
    busiest = int(np.argmax(np.bincount(trial.log.server)))
    kept = trial.log.server == busiest
    log, workload = job_log(trial.jobs, trial.log, kept), job_workload(trial.jobs.only(kept))
    found = calibrate(log, workload, near=ONE_AT_A_TIME).engine
    assert found.prompt_token_ms == pytest.approx(trial.jobs.slowness[busiest], rel=0.01)
    assert found.max_sequences == 1


def test_a_policy_left_out_is_foretold_and_ranked_by_the_replay_and_not_by_what_others_met() -> None:
    left_out = ("random", "shortest-queue", "pseudo-optimal")
    found = load_balancing_scoreboard(4000, 1, 0, left_out, by_idle_jobs)
    of_method = {row["method"]: row for row in found["summary"]}
    replay, trace, logged, dr = (of_method[m] for m in ("calibrated replay", "trace replay", "as logged", "dr"))
    assert replay["kendall_tau"] == 1.0
    assert replay["mean_error"] < 0.01
    assert replay["mape"] < 0.05
    assert trace["mape"] > 1.0
    assert logged["kendall_tau"] < 0
    assert dr["one_step_mean_error"] < 0.15  # of what it estimates
    assert dr["mean_error"] > 0.25  # as a performance
    assert of_method["rank-one"]["mean_error"] < trace["mean_error"] / 5


def test_sizes_are_alike_under_all_policies_and_processing_times_are_not() -> None:
    trial = draw_trial(16_000, seed=0)
    servers = servers_of(trial.jobs.slowness)
    size, took = invariance(
        trial.log.processing_ms, trial.log.server, trial.logger, trial.jobs.trajectory, servers, seed=0
    )
    assert size["p_value"] > 0.05
    assert took["p_value"] < 0.05


def test_too_few_jobs_are_refused() -> None:
    with pytest.raises(ConfigError, match="999 jobs; expected 1000 or more"):
        draw_jobs(999, seed=0)
    with pytest.raises(ConfigError, match=r"3000 jobs make 6 trajectories; .* Ask for 4000 jobs or more"):
        draw_trial(3000, seed=0)


def test_all_eight_policies_are_there() -> None:
    assert len(POLICIES) == SERVERS == 8
