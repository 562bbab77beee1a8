"""Calibration finds a cluster it has not been told, says how sure it is, and names the instance that is unlike."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.calibrate import calibrate, can_calibrate
from lodestar.pipeline.replay.calibration.calibration import Calibration
from lodestar.pipeline.replay.calibration.coefficients import coefficients_of
from lodestar.pipeline.replay.calibration.fleet import Fleet
from lodestar.pipeline.replay.calibration.forced import Forced
from lodestar.pipeline.replay.calibration.per_instance import slowness
from lodestar.pipeline.replay.calibration.stretch import stretch_of
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log

TRUTH = replace(EngineModel.preset("a100-llama-3.1-8b"), kv_capacity_tokens=150_000, noise_ratio=0.03)
STEPS = (
    {"prompt_tokens": 2048, "attention": 2048**2 / 2},
    {"prompt_tokens": 512, "attention": 512**2 / 2},
    {"prompt_tokens": 0, "attention": 0},
)


def log_of(engines: list[EngineModel], seed: int = 4, requests: int = 1200, sharing: float = 0.3) -> RequestLog:
    """The log of engines under random routing, at a rate that keeps them busy."""
    workload = sharing_workload(requests, rate_per_s=2.75 * len(engines), sharing_ratio=sharing, seed=seed)
    cluster, policy = Cluster.of(engines, workload), make_policy("random")
    return recorded_log("made", cluster, policy, cluster.replay(policy, seed=seed, record=True))


@cache
def recorded() -> RequestLog:
    return log_of([TRUTH] * 4)


@cache
def fitted() -> Calibration:
    return calibrate(recorded(), workload_of(recorded()))


def test_the_engine_behind_a_log_is_found() -> None:
    engine = fitted().engine
    for work in STEPS:
        for decoding in (1, 20):
            step = {**work, "decoding": decoding, "context_tokens": decoding * 4000}
            assert engine.step_ms(**step) == pytest.approx(TRUTH.step_ms(**step), rel=0.12), step
    assert engine.kv_capacity_tokens == pytest.approx(TRUTH.kv_capacity_tokens, rel=0.1)
    assert engine.max_batched_tokens == TRUTH.max_batched_tokens


def test_another_policy_is_predicted_from_the_log_of_random_routing() -> None:
    workload = workload_of(recorded())
    for name in ("least-request", "aibrix-prefix-cache"):
        policy = make_policy(name)
        truth = np.mean([Cluster.of([TRUTH] * 4, workload).replay(policy, seed=s).ttft_ms.mean() for s in range(5)])
        predicted = Cluster.of(fitted().engines, workload)
        found = np.mean([predicted.replay(policy, seed=s).ttft_ms.mean() for s in range(5, 10)])
        assert found == pytest.approx(truth, rel=0.1), name


def test_what_is_held_out_does_not_move_the_fit() -> None:
    log = recorded()
    later = np.arange(len(log)) >= 0.7 * len(log)
    usage = np.where(later[:, None], log.snapshot["kv_usage_ratio"] / 3, log.snapshot["kv_usage_ratio"])
    changed = replace(
        log, ttft_ms=np.where(later, 9 * log.ttft_ms, log.ttft_ms), snapshot={**log.snapshot, "kv_usage_ratio": usage}
    )
    assert calibrate(changed, workload_of(log)).engines == fitted().engines


def test_a_log_without_tpot_is_calibrated_by_its_e2e() -> None:
    log = recorded()
    without_tpot = replace(log, tpot_ms=np.full(len(log), np.nan))
    engine = calibrate(without_tpot, workload_of(without_tpot)).engine
    for work in STEPS:
        step = {**work, "decoding": 10, "context_tokens": 40_000}
        assert engine.step_ms(**step) == pytest.approx(fitted().engine.step_ms(**step), rel=0.03)


def test_a_log_without_outcomes_or_known_instances_cannot_calibrate() -> None:
    log = recorded()
    assert can_calibrate(log)
    assert not can_calibrate(replace(log, ttft_ms=np.full(len(log), np.nan)))
    assert not can_calibrate(replace(log, chosen=np.full(len(log), -1)))


def test_one_engine_is_calibrated_without_decisions() -> None:
    log = log_of([TRUTH], requests=400)
    alone = replace(log, chosen=np.full(len(log), -1))
    assert can_calibrate(alone)
    engine = calibrate(alone, workload_of(alone)).engine
    step = {"prompt_tokens": 1024, "decoding": 8, "context_tokens": 16_000, "attention": 1024**2 / 2}
    assert engine.step_ms(**step) == pytest.approx(TRUTH.step_ms(**step), rel=0.1)


def test_a_limit_of_the_batch_that_is_met_is_found() -> None:
    log = log_of([replace(TRUTH, max_sequences=8)] * 2, requests=300)
    fit = calibrate(log, workload_of(log))
    assert fit.engine.max_sequences == 8
    assert fit.identified["max_sequences"]


def test_draws_surround_the_fit_and_intervals_hold_the_truth() -> None:
    fit = fitted()
    step = {"prompt_tokens": 1024, "decoding": 10, "context_tokens": 20_000, "attention": 1024**2 / 2}
    drawn = np.log([draw[0].step_ms(**step) for draw in fit.draws])
    assert len(fit.draws) >= 20
    assert all(len(draw) == len(fit.engines) for draw in fit.draws)
    assert abs(drawn.mean() - np.log(fit.engine.step_ms(**step))) < 3 * drawn.std() < 0.15
    low, high = fit.intervals["prompt_token_ms"]
    assert low * 0.9 < TRUTH.prompt_token_ms < high * 1.1
    assert fit.identified["prompt_token_ms"]


def test_what_a_log_cannot_tell_is_said() -> None:
    """Requests that never meet each other do not tell what a sequence beside them costs."""
    log = log_of([TRUTH] * 2, requests=200)
    apart = replace(log, arrived_at_s=np.arange(len(log)) * 60.0)
    cluster = Cluster.of([TRUTH] * 2, workload_of(apart))
    policy = make_policy("random")
    lonely = recorded_log("lonely", cluster, policy, cluster.replay(policy, record=True))
    fit = calibrate(lonely, workload_of(lonely))
    assert not fit.identified["decode_sequence_ms"]
    assert not fit.identified["max_sequences"]
    assert any("does not tell" in note and "decode_sequence_ms" in note for note in fit.notes)


@pytest.mark.parametrize("factor", [1.5, 1.15])
def test_a_slow_instance_is_found_and_named(factor: float) -> None:
    log = log_of([TRUTH, TRUTH, TRUTH.slowed(factor), TRUTH], seed=1)
    fit = calibrate(log, workload_of(log))
    used = {speed.instance: speed.used for speed in fit.speeds}
    assert used["instance-02"] == pytest.approx(factor, rel=0.05)
    assert max(abs(used[name] - 1) for name in used if name != "instance-02") < 0.03
    assert (fit.speeds_p_value or 0.0) < 0.01
    assert any("instance-02" in note for note in fit.notes if "differ in speed" in note)


def test_instances_that_are_alike_stay_pooled_in_nineteen_of_twenty_logs() -> None:
    differ = []
    for seed in range(20):
        log = log_of([TRUTH] * 4, seed=seed, requests=600)
        workload = workload_of(log)
        forced = Forced(log, workload, stretch_of(log, workload), replace(TRUTH, noise_ratio=0.0))
        fleet = Fleet.of(replace(TRUTH, noise_ratio=0.0), 4)
        differ.append(slowness(forced, fleet, coefficients_of(TRUTH)).test.differ)
    assert sum(differ) <= 1


def test_an_instance_with_less_cache_and_one_without_prefix_caching_are_found() -> None:
    small = replace(TRUTH, kv_capacity_tokens=75_000)
    log = log_of([TRUTH, small, TRUTH, replace(TRUTH, prefix_caching=False)], seed=2, requests=1600, sharing=0.5)
    engines = calibrate(log, workload_of(log)).engines
    assert engines[1].kv_capacity_tokens == pytest.approx(75_000, rel=0.15)
    assert engines[0].kv_capacity_tokens == pytest.approx(150_000, rel=0.15)
    assert [engine.prefix_caching for engine in engines] == [True, True, True, False]
