from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.data.ingest import ingest
from lodestar.data.native_write import write_decision_log
from lodestar.data.reconstruction.counters import complete_snapshot
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.decisions import scored_decisions
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.validation.worlds.queueing import LOGGING, Run, Traffic, World, traffic_of
from lodestar.pipeline.validation.worlds.queueing_kernel import POLICIES
from lodestar.pipeline.validation.worlds.queueing_log import BLOCK_TOKENS, as_log
from lodestar.pipeline.validation.worlds.queueing_policies import policies_of
from lodestar.pipeline.validation.worlds.queueing_truth import closed_loop, derivative_slopes, one_step_truth, warm

Floats = NDArray[np.float64]

WORLD = World()
QUIET = replace(WORLD, noise_ratio=0.0)
TRAFFIC = traffic_of(WORLD, 3000)
RUN = WORLD.run(TRAFFIC, keep=True)
ROWS = np.arange(3000)


def served_by_hand(world: World, traffic: Traffic, chosen: list[int], noise: list[float]) -> list[float]:
    """Serve requests one after the other, with lists and words, as the world is described."""
    free_at = [0.0] * len(world.speed)
    caches: list[list[int]] = [[] for _ in world.speed]  # the last used group last
    ttft_ms = []
    for at, group, tokens, j, luck in zip(
        traffic.at_ms.tolist(), traffic.group.tolist(), traffic.prompt_tokens.tolist(), chosen, noise, strict=True
    ):
        cache = caches[j]
        computed = tokens - (world.prefix_tokens * world.saved_ratio if group in cache else 0.0)
        service = (world.overhead_ms + world.token_ms * computed) / world.speed[j] * luck
        free_at[j] = max(free_at[j], at) + service
        if group in cache:
            cache.remove(group)
        cache.append(group)
        del cache[: -world.cached_groups]
        ttft_ms.append(free_at[j] - at)
    return ttft_ms


def head(traffic: Traffic, requests: int) -> Traffic:
    return Traffic(traffic.at_ms[:requests], traffic.group[:requests], traffic.prompt_tokens[:requests])


def test_one_server_follows_lindleys_recursion() -> None:
    world = World(speed=(2.0,), weight=(2.0,), noise_ratio=0.0)
    traffic = Traffic(np.array([0.0, 10.0, 300.0, 301.0]), np.arange(4), np.array([1800, 1600, 2000, 1900]))
    # Services 100, 90, 110, 105: the second waits 90 for the first, the third finds nobody, the fourth waits 109.
    assert world.run(traffic, "uniform").ttft_ms.tolist() == pytest.approx([100.0, 180.0, 110.0, 214.0])


def test_a_cache_keeps_the_groups_that_were_used_last() -> None:
    world = World(speed=(1.0,), weight=(1.0,), cached_groups=2)
    traffic = Traffic(np.linspace(0.0, 6e6, 7), np.array([5, 6, 5, 7, 6, 5, 5]), np.full(7, 1900))
    # 7 makes 6 go, for 5 was used again; then 6 makes 5 go, and 5 makes 7 go.
    assert world.run(traffic, "uniform", keep=True).hit[:, 0].tolist() == [
        False,
        False,
        True,
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_latency_is_as_worked_out_by_hand(policy: str) -> None:
    run = WORLD.run(TRAFFIC, policy, seed=3)
    by_hand = served_by_hand(WORLD, TRAFFIC, run.chosen.tolist(), run.noise.tolist())
    assert run.ttft_ms == pytest.approx(np.array(by_hand))


@pytest.mark.parametrize("decision", [40, 700, 1999])
def test_expected_latency_is_the_mean_over_the_noise_of_one_decision_made_otherwise(decision: int) -> None:
    traffic, expected_ms = head(TRAFFIC, decision + 1), WORLD.expected_ms(TRAFFIC, RUN)[decision]
    lucks = np.exp(WORLD.noise_ratio * np.random.default_rng(0).standard_normal(2000) - WORLD.noise_ratio**2 / 2)
    for j in range(8):
        chosen = [*RUN.chosen[:decision].tolist(), j]
        one, two = (
            served_by_hand(WORLD, traffic, chosen, [*RUN.noise[:decision].tolist(), luck])[-1] for luck in (1.0, 2.0)
        )
        # A latency is linear in the noise of its own request.
        assert expected_ms[j] == pytest.approx(np.mean(one + (lucks - 1) * (two - one)), rel=0.01)
        assert expected_ms[j] == pytest.approx(one)


def test_one_step_truth_averages_expected_latencies_by_the_policys_probabilities() -> None:
    expected_ms = WORLD.expected_ms(TRAFFIC, RUN)[warm(3000)]
    assert one_step_truth(WORLD, TRAFFIC, RUN, "uniform") == pytest.approx(expected_ms.mean())
    shortest = RUN.queue[warm(3000)] == RUN.queue[warm(3000)].min(axis=1, keepdims=True)
    by_hand = np.mean([row[tied].mean() for row, tied in zip(expected_ms, shortest, strict=True)])
    assert one_step_truth(WORLD, TRAFFIC, RUN, "jsq") == pytest.approx(by_hand)


@pytest.mark.parametrize("policy", POLICIES)
def test_probabilities_sum_to_one_and_are_those_that_the_policy_was_run_with(policy: str) -> None:
    run = WORLD.run(TRAFFIC, policy, keep=True)
    assert run.probability.sum(axis=1) == pytest.approx(np.ones(3000))
    assert (run.probability[ROWS, run.chosen] > 0).all()
    assert np.array_equal(WORLD.probabilities(TRAFFIC, run, policy), run.probability)


def test_servers_are_chosen_as_often_as_logged_probabilities_say() -> None:
    counts = np.bincount(RUN.chosen, minlength=8)
    spread = np.sqrt((RUN.probability * (1 - RUN.probability)).sum(axis=0))
    assert (np.abs(counts - RUN.probability.sum(axis=0)) < 4 * spread).all()


def test_the_logging_policy_is_seven_tenths_a_softmax_of_load_and_hits() -> None:
    weight = np.exp(-0.6 * RUN.queue / np.array(WORLD.weight) + 0.8 * RUN.hit)
    assert RUN.probability == pytest.approx(0.7 * weight / weight.sum(axis=1, keepdims=True) + 0.3 / 8)


def test_two_policies_meet_the_same_luck_and_the_same_coin() -> None:
    one, other = (WORLD.run(TRAFFIC, policy, seed=5, other="uniform", share=0.3) for policy in ("jsq", "affinity"))
    assert np.array_equal(one.noise, other.noise)
    assert np.array_equal(one.arm == POLICIES.index("uniform"), other.arm == POLICIES.index("uniform"))
    assert np.mean(one.arm == POLICIES.index("uniform")) == pytest.approx(0.3, abs=0.03)
    assert one.noise.mean() == pytest.approx(1.0, abs=0.01)


def test_a_mixture_of_nothing_is_the_policy_and_of_all_is_the_other() -> None:
    jsq, uniform = (WORLD.run(TRAFFIC, policy).ttft_ms for policy in ("jsq", "uniform"))
    assert np.array_equal(WORLD.run(TRAFFIC, "jsq", other="uniform", share=0.0).ttft_ms, jsq)
    assert np.array_equal(WORLD.run(TRAFFIC, "jsq", other="uniform", share=1.0).ttft_ms, uniform)


def test_a_seed_gives_the_same_run_and_another_seed_another() -> None:
    assert np.array_equal(WORLD.run(TRAFFIC, seed=1).ttft_ms, WORLD.run(TRAFFIC, seed=1).ttft_ms)
    assert not np.array_equal(WORLD.run(TRAFFIC, seed=1).chosen, WORLD.run(TRAFFIC, seed=2).chosen)
    assert not np.array_equal(traffic_of(WORLD, 10, seed=1).at_ms, traffic_of(WORLD, 10, seed=2).at_ms)


def test_uniform_routing_loads_the_world_to_62_percent_and_a_hit_saves_four_fifths_of_the_prompt() -> None:
    traffic = traffic_of(WORLD, 40_000)
    run = WORLD.run(traffic, "uniform", keep=True)
    hit = run.hit[np.arange(40_000), run.chosen]
    work_s = np.where(hit, WORLD.services_ms(traffic, np.ones_like(run.hit))[:, 0], 0.0) + np.where(
        hit, 0.0, WORLD.services_ms(traffic, np.zeros_like(run.hit))[:, 0]
    )
    load = work_s.sum() * WORLD.speed[0] / traffic.at_ms[-1] / 8
    assert load == pytest.approx(0.62, abs=0.015)
    assert WORLD.prefix_tokens / traffic.prompt_tokens.mean() == pytest.approx(0.8, abs=0.002)


def test_the_truth_is_closed_loop_and_far_from_one_step() -> None:
    traffic = traffic_of(WORLD, 8000)
    truth = {policy: closed_loop(WORLD, traffic, policy, range(6)) for policy in POLICIES}
    assert {policy for policy, each in truth.items() if each.unstable} >= {"fastest-3"}
    assert truth["affinity"].path_dependent
    assert not truth["jsq"].path_dependent
    order = ["affinity+load", "jsq/speed", "jsq", "logging", "uniform"]
    assert sorted(order, key=lambda name: truth[name].mean_ms) == order
    run = WORLD.run(traffic, keep=True)
    assert one_step_truth(WORLD, traffic, run, "fastest-3") < 2 * truth["logging"].mean_ms < truth["fastest-3"].mean_ms


def test_a_derivative_is_the_slope_of_mixtures_with_the_curvature_taken_off() -> None:
    def mean_ms(share: float) -> float:
        return float(WORLD.run(TRAFFIC, LOGGING, 7, other="jsq", share=share).ttft_ms[warm(3000)].mean())

    slopes = [(mean_ms(share) - mean_ms(0.0)) / share for share in (0.1, 0.2)]
    found = derivative_slopes(WORLD, TRAFFIC, "jsq", [7], share=0.2)
    assert found == pytest.approx([2 * slopes[0] - slopes[1]])
    assert derivative_slopes(WORLD, TRAFFIC, LOGGING, [7, 8]).tolist() == [0.0, 0.0]


def test_a_run_can_be_ingested_as_a_routers_log(tmp_path: Path) -> None:
    traffic = head(TRAFFIC, 300)
    log = as_log(WORLD, traffic, WORLD.run(traffic, keep=True))
    write_decision_log(tmp_path / "log.parquet", log)
    (tmp_path / "home").mkdir()
    workspace = Workspace(tmp_path / "home")
    ingest(workspace, [tmp_path / "log.parquet"], "back")
    with open_store(workspace) as con:
        back = load_log(con, "back")
    for name in ("ttft_ms", "chosen", "probability", "propensity"):
        assert np.array_equal(getattr(back, name), getattr(log, name)), name
    workload = workload_of(back)
    assert np.array_equal(np.diff(workload.block_ids.reshape(-1, 3)), np.ones((300, 2)))


def true_engines(world: World) -> list[EngineModel]:
    engine = EngineModel(
        prefill_base_ms=world.overhead_ms,
        prompt_token_ms=world.token_ms,
        attention_ms=0.0,
        kv_capacity_tokens=(world.cached_groups * 3 + 1) * BLOCK_TOKENS,
        block_tokens=BLOCK_TOKENS,
        max_sequences=1,
    )
    return [engine.slowed(1 / speed) for speed in world.speed]


def test_the_replay_with_the_true_engines_gives_the_worlds_latencies() -> None:
    run = QUIET.run(TRAFFIC, keep=True)
    workload = workload_of(as_log(QUIET, TRAFFIC, run))
    outcome = Cluster.of(true_engines(QUIET), workload).replay(forced=run.chosen)
    assert outcome.ttft_ms == pytest.approx(run.ttft_ms)
    assert np.array_equal(outcome.cached_tokens > 0, run.hit[ROWS, run.chosen])


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "least-ttft"])
def test_the_products_twin_of_a_policy_decides_as_the_world_does(policy: str) -> None:
    small = head(TRAFFIC, 600)
    run: Run = WORLD.run(small, LOGGING, keep=True)
    log = as_log(WORLD, small, run)
    workload = workload_of(log)
    snapshot, _ = complete_snapshot(log, workload)
    scored = scored_decisions(policies_of(WORLD)[policy], log, workload, snapshot, Fleet.of(true_engines(WORLD)))
    assert scored == pytest.approx(WORLD.probabilities(small, run, policy))


def test_the_twin_that_sees_no_backlog_does_nearly_what_the_world_does() -> None:
    run = QUIET.run(TRAFFIC, LOGGING, keep=True)
    log = as_log(QUIET, TRAFFIC, run)
    workload = workload_of(log)
    snapshot, _ = complete_snapshot(log, workload)
    scored = scored_decisions(policies_of(QUIET)["least-ttft"], log, workload, snapshot, Fleet.of(true_engines(QUIET)))
    assert np.mean(np.abs(scored - QUIET.probabilities(TRAFFIC, run, "least-ttft")).max(axis=1) < 1e-9) > 0.99


def test_what_is_no_policy_and_no_traffic_is_refused() -> None:
    with pytest.raises(ConfigError, match="'fastest'"):
        WORLD.run(TRAFFIC, "fastest")
    with pytest.raises(ConfigError, match="0 requests"):
        traffic_of(WORLD, 0)
