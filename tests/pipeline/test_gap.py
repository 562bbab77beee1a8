"""The gap between one step and closed loop: its three parts, and no cause where the log's own replay is as far off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from lodestar.data.log import RequestLog
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.estimates.closed_loop_correction import closed_loop_correction
from lodestar.pipeline.replay.estimates.gap import gap_rows
from lodestar.pipeline.replay.estimates.one_step import one_step
from lodestar.pipeline.replay.logged_traffic import LoggedTraffic
from lodestar.pipeline.replay.parallel import replay_all
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import Names, recorded_log
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.summary import summary

ENGINE = EngineModel.preset("l40s-llama-3.1-8b")
WORKLOAD = sharing_workload(600, 8.0, 0.5, 0)
SEEDS = range(12)
FEW = "epsilon:least-uncached-tokens,epsilon=0.2"  # explores so little towards another that some 15 decisions weigh
Found = tuple[dict[str, dict[str, Any]], list[str]]


@cache
def cluster(slowed: float = 1.0) -> Cluster:
    return Cluster.of([ENGINE.slowed(slowed)] * 4, WORKLOAD)


@cache
def recorded(name: str = "random") -> RequestLog:
    made, policy = cluster(), make_policy(name)
    return recorded_log("made", made, policy, made.replay(policy, seed=5, record=True), names=Names(policy=name))


def gaps(
    log: RequestLog, names: Sequence[str], made_by: Policy | None, slowed: float = 1.0, seeds: range = SEEDS
) -> Found:
    """Set what a cluster says beside a log that the true one made."""
    traffic, policies, on = LoggedTraffic.of(log), {name: make_policy(name) for name in names}, cluster(slowed)
    steps = one_step(traffic, policies, on.fleet, names[0])
    outcomes = replay_all(on, policies, seeds)
    rows = summary(outcomes, on.workload, names[0])["policies"]
    correction = closed_loop_correction(log, on, outcomes, made_by)
    found, notes = gap_rows(traffic, on, steps, outcomes, rows, correction, made_by)
    return {row["policy"]: row for row in found}, notes


@cache
def known(slowed: float = 1.0) -> Found:
    return gaps(recorded(), ("random", "least-request"), RandomChoice(), slowed)


@pytest.mark.parametrize("slowed", [1.0, 1.5])
def test_what_made_the_log_has_no_feedback_whatever_the_simulator_is_off_by(slowed: float) -> None:
    own = known(slowed)[0]["random"]
    assert own["made_by"] == "random"
    assert own["feedback_ms"] == pytest.approx(0.0, abs=1e-6)
    assert not own["feedback_told"]
    assert "as its replay is off the log that it made (luck or the simulator)" in own["sentence"]
    assert "own decisions" not in own["sentence"]


@pytest.mark.parametrize("made_by", [RandomChoice(), None])
def test_the_parts_add_up_to_the_gap(made_by: Policy | None) -> None:
    for row in gaps(recorded(), ("least-request",), made_by)[0].values():
        assert row["gap_ms"] == pytest.approx(row["closed_loop_ms"] - row["one_step_ms"])
        parts = row["feedback_ms"] + row["log_replay_error_ms"] + row["simulator_ms"]
        assert row["gap_ms"] == pytest.approx(parts)
        assert row["made_by"] == (None if made_by is None else "random")


def test_engines_that_are_all_slow_are_the_replays_error_and_no_effect_of_decisions() -> None:
    right, slow = (known(slowed)[0]["least-request"] for slowed in (1.0, 1.5))
    assert slow["log_replay_error_ms"] > right["log_replay_error_ms"] + 100
    assert slow["gap_ms"] > right["gap_ms"] + 100
    assert abs(slow["feedback_ms"]) <= abs(slow["log_replay_error_ms"])
    assert not slow["feedback_told"]
    assert "no cause can be named" in slow["sentence"]
    note = known(1.5)[1][0]
    assert note.startswith("the log itself: ")
    assert f"+{slow['log_replay_error_ms']:,.0f} ms is luck of that one run or the simulator's error" in note


def test_where_the_log_is_given_back_feedback_is_told() -> None:
    row = known()[0]["least-request"]
    assert abs(row["feedback_ms"]) > abs(row["log_replay_error_ms"])
    assert row["feedback_told"]
    assert "by what its own decisions lead to" in row["sentence"]


def test_of_a_single_run_no_cause_is_told() -> None:
    row = gaps(recorded(), ("random", "least-request"), RandomChoice(), seeds=range(1))[0]["least-request"]
    assert abs(row["feedback_ms"]) > 0.0
    assert not row["feedback_told"]


def test_where_the_log_carries_no_weights_dm_stands_beside_the_closed_loop() -> None:
    made_by = make_policy(FEW)
    found, _ = gaps(recorded(FEW), (FEW, "least-request"), made_by)
    assert {name: row["estimator"] for name, row in found.items()} == {FEW: "dr", "least-request": "dm"}
    assert found["least-request"]["corrected_one_step_ms"] is None
    assert found[FEW]["corrected_one_step_ms"] is not None
    assert found[FEW]["feedback_ms"] == pytest.approx(0.0, abs=1e-6)


def test_the_same_policy_set_otherwise_did_not_make_the_log() -> None:
    other = FEW.partition(",")[0]
    row = gaps(recorded(FEW), (other,), make_policy(FEW))[0][other]
    assert row["made_by"] == FEW
    assert "off the log that it made" not in row["sentence"]


def test_without_propensities_the_logged_choices_stand_for_what_made_the_log() -> None:
    log, none = recorded(), np.full(recorded().candidate.shape, np.nan)
    unknown = replace(log, policy=None, propensity=none[:, 0], probability=none)
    row = gaps(unknown, ("least-request",), None)[0]["least-request"]
    assert row["made_by"] is None
    assert row["estimator"] in ("dr", "dm")
    forced = [cluster().replay(forced=log.chosen, seed=seed).ttft_ms[30:].mean() for seed in SEEDS]
    assert row["log_replay_error_ms"] == pytest.approx(np.mean(forced) - log.ttft_ms[30:].mean())
