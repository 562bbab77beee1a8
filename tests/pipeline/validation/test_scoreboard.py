from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.models.engine import EngineModel
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.view import RouterView
from lodestar.pipeline.validation import scoreboard
from lodestar.pipeline.validation.scoreboard import queueing_scoreboard
from lodestar.pipeline.validation.scoreboard_derivative import derivatives
from lodestar.pipeline.validation.scoreboard_one_step import decisions_of, one_step_of
from lodestar.pipeline.validation.scoreboard_ranks import apart, kendall_tau
from lodestar.pipeline.validation.scoreboard_replay import Calibrated, calibrated_cluster, replayed
from lodestar.pipeline.validation.scoreboard_summary import summary_of
from lodestar.pipeline.validation.worlds.queueing import World, traffic_of
from lodestar.pipeline.validation.worlds.queueing_kernel import POLICIES
from lodestar.pipeline.validation.worlds.queueing_log import BLOCK_TOKENS, as_log
from lodestar.pipeline.validation.worlds.queueing_policies import policies_of
from lodestar.pipeline.validation.worlds.queueing_truth import closed_loop

WORLD = World()
TRAFFIC = traffic_of(WORLD, 6000)
RUN = WORLD.run(TRAFFIC, keep=True)
DECISIONS = decisions_of(WORLD, TRAFFIC, RUN)
UNBIASED = ("ipw", "snipw", "dr", "sndr")


def true_cluster() -> Cluster:
    engine = EngineModel(
        prefill_base_ms=WORLD.overhead_ms,
        prompt_token_ms=WORLD.token_ms,
        attention_ms=0.0,
        kv_capacity_tokens=(WORLD.cached_groups * 3 + 1) * BLOCK_TOKENS,
        block_tokens=BLOCK_TOKENS,
        max_sequences=1,
        noise_ratio=WORLD.noise_ratio,
    )
    view = RouterView(index_block_tokens=BLOCK_TOKENS, index_capacity_blocks=72, index_per_instance=True)
    return Cluster.of([engine.slowed(1 / each) for each in WORLD.speed], workload_of(as_log(WORLD, TRAFFIC, RUN)), view)


@pytest.mark.parametrize("policy", POLICIES)
def test_unbiased_estimators_tell_the_one_step_truth_and_cover_it(policy: str) -> None:
    found = one_step_of(DECISIONS, policy)
    assert set(found["estimators"]) == set(estimators())
    for name in UNBIASED:
        assert abs(found["estimators"][name]["relative_error"]) < 0.1, name
        assert found["estimators"][name]["covered"], name


def test_the_model_alone_is_wrong_for_a_policy_that_sees_what_the_model_does_not() -> None:
    found = one_step_of(DECISIONS, "least-ttft")["estimators"]
    assert found["dm"]["relative_error"] > 0.05 > abs(found["dr"]["relative_error"])


def test_derivatives_of_several_logs_are_near_their_truth() -> None:
    found = derivatives(WORLD, 6000, logs=4)
    assert list(found) == list(POLICIES[1:])
    assert found["affinity+load"]["truth_ms"] < -50 < 0 < found["uniform"]["truth_ms"]
    for policy in ("jsq", "affinity", "affinity+load"):
        assert abs(found[policy]["z"]) < 3, policy
        assert found[policy]["logs"] == 4


@pytest.mark.parametrize("policy", ["jsq/speed", "affinity+load", "least-ttft"])
def test_replay_with_true_engines_gives_the_closed_loop_truth(policy: str) -> None:
    seeds = range(4)
    truth, found = (
        closed_loop(WORLD, TRAFFIC, policy, seeds),
        replayed(true_cluster(), policies_of(WORLD)[policy], seeds),
    )
    assert found["mean_ms"] == pytest.approx(truth.mean_ms, rel=0.02)
    assert not found["unstable"]
    assert not found["path_dependent"]


def test_the_replays_own_flags_find_what_has_no_mean() -> None:
    cluster, twins = true_cluster(), policies_of(WORLD)
    assert replayed(cluster, twins["fastest-3"], range(3))["unstable"]
    assert replayed(cluster, twins["affinity"], range(12))["path_dependent"]


def test_kendalls_tau_counts_the_pairs_that_the_truth_tells_apart() -> None:
    truth, se = np.array([1.0, 1.01, 5.0, 9.0]), np.array([0.0, 0.0, 0.1, 3.0])
    counted = apart(truth, se)
    assert counted.sum() == 2 * 4  # not the first with the second, nor the third with the last
    assert kendall_tau(np.array([2.0, 1.0, 3.0, 4.0]), truth, counted) == 1.0
    assert kendall_tau(np.array([4.0, 1.0, 3.0, 4.0]), truth, counted) == pytest.approx(0.25)  # one tie, one wrong
    assert np.isnan(kendall_tau(truth, truth, np.zeros((4, 4), dtype=bool)))


def row(
    policy: str, truth_ms: float, replayed_ms: float, z: float, unstable: bool = False, flagged: bool = False
) -> Any:
    return {
        "policy": policy,
        "truth_mean_ms": truth_ms,
        "truth_se_ms": 0.1,
        "truth_median_ms": truth_ms,
        "truth_median_se_ms": 0.1,
        "truth_unstable": unstable,
        "truth_path_dependent": False,
        "e1_truth_ms": truth_ms,
        "estimators": {"dm": {"value_ms": None, "note": "no model"}},
        "replayed": {
            "mean_ms": replayed_ms,
            "median_ms": replayed_ms,
            "relative_error": replayed_ms / truth_ms - 1,
            "p99_relative_error": 0.0,
            "unstable": flagged,
            "path_dependent": False,
        },
        "misspecified": {"median_ms": 2 * truth_ms, "relative_error": 1.0, "corrected_relative_error": 0.5},
        "derivative": {"z": z, "logs": 2, "logs_within_two_se": 1},
    }


def test_targets_are_met_or_missed_by_what_was_measured() -> None:
    good = [row("a", 100.0, 102.0, -1.9), row("b", 200.0, 201.0, 0.3), row("c", 9e4, 1e5, 1.0, True, True)]
    assert [each["met"] for each in summary_of(good)["targets"]] == [True] * 4
    bad = [row("a", 100.0, 210.0, 0.1), row("b", 200.0, 201.0, -2.1), row("c", 9e4, 1e5, 1.0, True, False)]
    assert [each["met"] for each in summary_of(bad)["targets"]] == [False] * 4
    assert summary_of(bad)["derivative_logs_within_two_se"] == 0.5
    assert summary_of(bad)["targets"][2]["measured"] == ["c"]
    assert summary_of(bad)["kendall_tau"]["replayed"] == pytest.approx(1 / 3)


def test_too_few_requests_or_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="100 requests"):
        queueing_scoreboard(requests=100)
    with pytest.raises(ConfigError, match="1 seeds"):
        queueing_scoreboard(requests=5000, seeds=1)


def test_engines_are_found_from_the_log_alone() -> None:
    traffic = traffic_of(WORLD, 2500)
    counted: list[int] = []
    fit = calibrated_cluster(WORLD, as_log(WORLD, traffic, WORLD.run(traffic, keep=True)), progress=counted.append)
    for engine, speed in zip(fit.cluster.engines, WORLD.speed, strict=True):
        assert engine.max_sequences == 1
        whole_ms = engine.step_ms(prompt_tokens=1920, decoding=0, context_tokens=0, attention=1920**2 / 2)
        assert whole_ms == pytest.approx(212.0 / speed, rel=0.05)
        assert engine.kv_capacity_tokens == pytest.approx(73 * BLOCK_TOKENS, rel=0.1)
    assert counted == list(range(1, fit.replays + 1))


def test_the_board_puts_everything_beside_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Calibrated(true_cluster(), ["told, not fitted"], 0)
    monkeypatch.setattr(scoreboard, "calibrated_cluster", lambda *_: fit)
    board = queueing_scoreboard(requests=6000, seeds=6)
    assert [each["policy"] for each in board.rows] == list(POLICIES)
    targets = {each["target"]: each["met"] for each in board.summary["targets"]}
    assert targets["the replay ranks all policies that the truth tells apart right"]
    assert targets["unstable and path-dependent policies that it does not flag"]
    errors = {each["policy"]: each["replayed"]["relative_error"] for each in board.rows}
    assert max(abs(errors[policy]) for policy in ("logging", "jsq", "jsq/speed", "affinity+load", "least-ttft")) < 0.03
    # One-step values are no policy's performance: the one that never comes to rest looks better than the logged one.
    one_step = {each["policy"]: each["e1_truth_ms"] for each in board.rows}
    assert one_step["fastest-3"] < one_step["logging"]
    assert board.summary["kendall_tau"]["e1_truth"] < 1.0
    assert json.loads(json.dumps(board.to_dict())) == board.to_dict()
