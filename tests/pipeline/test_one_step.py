"""From a dataset to one-step estimates: several routers in one log, tests of two, what is left out and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from lodestar.data.errors import ConfigError
from lodestar.data.formats.native import write_decision_log
from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.cli import app
from lodestar.pipeline.estimating import estimate_dataset
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.estimates.one_step import OneStep, one_step
from lodestar.pipeline.replay.estimates.router_test import router_test
from lodestar.pipeline.replay.logged_traffic import LoggedTraffic
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import Names, recorded_log
from lodestar.pipeline.replay.settings import Settings

Bools = NDArray[np.bool_]

ENGINE = EngineModel.preset("l40s-llama-3.1-8b")
CLUSTER = Cluster.of([ENGINE] * 4, sharing_workload(600, 8.0, 0.5, 0))
LOGGERS = ("epsilon:least-request,epsilon=0.4", "random")


def recorded(name: str, seed: int = 1) -> RequestLog:
    policy = make_policy(name)
    outcome = CLUSTER.replay(policy, seed=seed, record=True)
    return recorded_log("made", CLUSTER, policy, outcome, names=Names(policy=name))


def mixed(arm: Bools) -> RequestLog:
    """One run in which both routers decide: each is asked along the way, and the arm's choice is taken."""
    policies = [make_policy(name) for name in LOGGERS]
    own = CLUSTER.replay(policies[1], seed=3, record=True).instance.astype(np.int64)
    forced = np.where(arm, own, -1)
    log = recorded_log(
        "made", CLUSTER, policies[0], CLUSTER.replay(policies[0], forced=forced, seed=3, record=True, always=True)
    )
    uniform = np.where(log.candidate, 1 / log.candidate.sum(axis=1, keepdims=True), 0.0)
    probability = np.where(arm[:, None], uniform, log.probability)
    propensity = probability[np.arange(len(log)), log.chosen]
    return replace(
        log, policy=None, loggers=LOGGERS, logger=arm.astype(np.int64), probability=probability, propensity=propensity
    )


def estimated(log: RequestLog, *names: str, warmup_ratio: float = 0.0, slo_ttft_ms: float = 500.0) -> OneStep:
    policies = {name: make_policy(name) for name in names}
    return one_step(LoggedTraffic.of(log, warmup_ratio), policies, CLUSTER.fleet, names[0], slo_ttft_ms=slo_ttft_ms)


@pytest.fixture(scope="module")
def coin() -> OneStep:
    return estimated(mixed(np.random.default_rng(0).random(600) < 0.5), "least-request", "random")


def values(found: OneStep, policy: str) -> dict[str, float]:
    return {row["estimator"]: row["value_ms"] for row in found.rows if row["policy"] == policy}


def test_a_log_of_two_routers_has_balanced_and_weighted_estimates(coin: OneStep) -> None:
    found = values(coin, "least-request")
    assert {"balanced-snipw", "balanced-dr", "weighted-snipw", "weighted-dr"} <= set(found)
    spread = {row["estimator"]: row["se_ms"] for row in coin.rows if row["policy"] == "least-request"}
    for name in ("balanced-snipw", "balanced-dr", "weighted-snipw", "weighted-dr"):
        assert abs(found[name] - found["dr"]) < 3 * spread["dr"]
        assert found[name] not in (found["dr"], found["snipw"])


def test_a_coin_for_each_request_is_a_test_of_the_routers(coin: OneStep) -> None:
    assert coin.test is not None
    assert (coin.test["design"], coin.test["a"], coin.test["b"]) == ("per request", *LOGGERS)


def test_turns_are_a_switchback() -> None:
    found = estimated(mixed(np.arange(600) // 50 % 2 == 1), "random")
    assert found.test is not None
    assert found.test["design"] == "switchback"
    assert found.test["periods"] == [6, 6]


@pytest.mark.parametrize(("missing", "tested"), [(6, True), (7, False)])
def test_a_few_requests_without_ttft_do_not_spoil_a_test_of_routers(missing: int, tested: bool) -> None:
    log = mixed(np.arange(600) // 50 % 2 == 1)
    ttft_ms = log.ttft_ms.copy()
    ttft_ms[:missing] = np.nan
    test, note = router_test(replace(log, ttft_ms=ttft_ms), np.ones(600, dtype=np.bool_))
    assert (test is not None) == tested
    assert f"{missing} of 600 requests lack a TTFT or the name of a policy" in (note or "")


def test_a_router_that_is_not_known_by_name_leaves_the_weighted_forms() -> None:
    log = mixed(np.random.default_rng(0).random(600) < 0.5)
    found = estimated(replace(log, loggers=("in-house", "random")), "random")
    assert "weighted-dr" in values(found, "random")
    assert "balanced-dr" not in values(found, "random")
    assert "no balanced estimates: in-house of the log is no policy that is known here" in (found.note or "")


def test_a_name_in_a_log_makes_no_file_run(tmp_path: Path) -> None:
    file = tmp_path / "router.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine:\n    def choose(self, *a): return 0\n")
    log = mixed(np.random.default_rng(0).random(600) < 0.5)
    found = estimated(replace(log, loggers=(f"{file}:Mine", "random")), "random")
    assert not (tmp_path / "ran").exists()
    assert f"{file}:Mine of the log is no policy that is known here" in (found.note or "")


def test_a_router_that_would_choose_otherwise_than_it_logged_is_named_once() -> None:
    log = mixed(np.random.default_rng(0).random(600) < 0.5)
    found = estimated(replace(log, loggers=("epsilon:least-request", "random")), "random", "least-request")
    assert (found.note or "").count("balanced") == 1
    assert "epsilon:least-request, asked again, gives" in (found.note or "")


def test_an_slo_that_nothing_meets_leaves_the_other_tails() -> None:
    found = estimated(recorded("random"), "random", slo_ttft_ms=0.0)
    assert {"p50", "p90"} <= {row["measure"] for row in found.tails}
    assert "slo" not in {row["measure"] for row in found.tails}


def test_without_propensities_the_model_alone_speaks_of_all_decisions() -> None:
    log = recorded("random")
    none = replace(log, propensity=np.full(600, np.nan), probability=np.full(log.candidate.shape, np.nan))
    traffic = replace(LoggedTraffic.of(log, 0.0), log=none, propensity=none.propensity)
    found = one_step(traffic, {"least-request": make_policy("least-request")}, CLUSTER.fleet, "least-request")
    assert [row["estimator"] for row in found.rows] == ["dm"]
    assert found.rows[0]["value_ms"] == pytest.approx(values(estimated(log, "least-request"), "least-request")["dm"])
    assert (found.tails, found.diagnostics, found.derivatives, found.differences) == ([], [], [], [])
    assert "without propensities only dm" in (found.note or "")


def test_policies_that_decide_alike_are_named() -> None:
    found = estimated(recorded("random"), "random", "epsilon:random,epsilon=0.5", "least-request")
    assert found.note == "random and epsilon:random,epsilon=0.5 decide alike in all of these logged states"


def test_only_the_counted_requests_are_valued() -> None:
    log = recorded("random")
    found = estimated(log, "random", warmup_ratio=0.5)
    assert values(found, "random")["snipw"] == pytest.approx(log.ttft_ms[300:].mean())
    assert found.inputs.decisions is not None
    assert found.inputs.decisions.decisions == 300


def test_a_derivative_is_refused_where_too_many_requests_lack_what_they_paid() -> None:
    log = recorded("random")
    ttft_ms = log.ttft_ms.copy()
    ttft_ms[::20] = np.nan
    found = estimated(replace(log, ttft_ms=ttft_ms), "random", "least-request")
    assert found.derivatives == []
    assert "30 of 600 requests left out: no decision or no TTFT" in (found.note or "")
    assert "no derivative towards least-request: 30 of 600 requests lack" in (found.note or "")


def workspace_of(log: RequestLog, folder: Path) -> Workspace:
    write_decision_log(folder / "log.jsonl", log)
    workspace = Workspace.open(folder / "home")
    ingest(workspace, [folder / "log.jsonl"], "made")
    return workspace


def test_the_command_says_that_no_closed_loop_was_asked_for(tmp_path: Path) -> None:
    workspace = workspace_of(recorded("random"), tmp_path)
    command = ["estimate", "made", "--policy", "random", "--policy", "least-request", "--one-step-only", "--json"]
    done = CliRunner().invoke(app, [*command, "--home", str(workspace.home)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["gap"] == found["policies"] == []
    assert found["gap_notes"] == ["no closed loop was asked for: these are no policy's performance"]
    assert {row["policy"] for row in found["one_step"]} == {"random", "least-request"}
    assert all(row["estimand"] == "one-step, logged states" for row in found["one_step"])
    assert found["command"].startswith("lodestar estimate made --policy random --policy least-request")
    assert found["command"].endswith("--one-step-only")


def test_one_step_alone_takes_arrival_times_from_elsewhere_too(tmp_path: Path) -> None:
    workspace = workspace_of(recorded("random"), tmp_path)
    settings = Settings(["random"], arrivals_from="elsewhere")
    with pytest.raises(ConfigError, match="dataset 'elsewhere' is not known"):
        estimate_dataset(workspace, "made", settings, closed_loop=False)


def test_two_routers_without_propensities_are_a_test_all_the_same(tmp_path: Path) -> None:
    log = mixed(np.arange(600) // 50 % 2 == 1)
    none = np.full(log.candidate.shape, np.nan)
    workspace = workspace_of(replace(log, probability=none, propensity=none[:, 0]), tmp_path)
    found = estimate_dataset(workspace, "made", Settings(["random"]), closed_loop=False)
    assert [row["estimator"] for row in found["one_step"]] == ["dm"]
    assert found["test"]["design"] == "switchback"


def test_a_log_that_allows_no_estimate_says_why_in_one_line(tmp_path: Path) -> None:
    log = recorded("random")
    none = np.full(log.candidate.shape, np.nan)
    workspace = workspace_of(replace(log, probability=none, propensity=none[:, 1], ttft_ms=none[:, 0]), tmp_path)
    command = ["estimate", "made", "--policy", "random", "--one-step-only", "--home", str(workspace.home)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code != 0
    assert "no one-step estimates: 0 requests have a decision and a TTFT; expected 200" in str(done.exception)
