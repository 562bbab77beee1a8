"""From a dataset to one-step estimates: several routers in one log, tests of two, what is left out and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.loggers import balanced, stratified
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.estimates import one_step as one_step_module
from lodestar.pipeline.replay.estimates.differences import one_step_differences
from lodestar.pipeline.replay.estimates.mixed_loggers import mixed_estimates
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


def test_the_calibration_of_the_predictor_is_in_the_diagnostics(coin: OneStep) -> None:
    for row in coin.diagnostics:
        every = {each["quantile"]: each for each in row["coverage"] if each["group"] == "all decisions"}
        assert set(every) == {0.1, 0.5, 0.9}
        assert all(abs(each["covered_ratio"] - quantile) < 0.1 for quantile, each in every.items())
        assert all(each["pinball"] > 0 and each["decisions"] == 600 for each in every.values())
        assert {each["group"].split()[0] for each in row["coverage"]} == {"all", "time", "load"}
        assert row["miscalibrated"] is None or "the predictor is miscalibrated" in row["miscalibrated"]


def test_a_log_of_two_routers_has_balanced_and_weighted_estimates(coin: OneStep) -> None:
    found = values(coin, "least-request")
    assert {"balanced-snipw", "balanced-dr", "weighted-snipw", "weighted-dr"} <= set(found)
    spread = {row["estimator"]: row["se_ms"] for row in coin.rows if row["policy"] == "least-request"}
    for name in ("balanced-snipw", "balanced-dr", "weighted-snipw", "weighted-dr"):
        assert abs(found[name] - found["dr"]) < 3 * spread["dr"]
        assert found[name] not in (found["dr"], found["snipw"])


def test_the_error_of_a_balanced_estimate_takes_as_given_how_many_each_router_decided(coin: OneStep) -> None:
    rows = coin.scored["random"]
    probabilities = np.stack([rows.log.propensity * (1 + 0.5 * (rows.log.logger != k)) for k in (0, 1)])
    found, failed = mixed_estimates(rows, "random", 50, np.minimum(probabilities, 1.0))
    assert failed == []
    of = balanced(rows, np.minimum(probabilities, 1.0))
    expected = estimate(rows, "random", "balanced-dr", 50, lambda _: stratified(dr(of), rows.log)).to_dict()
    plain = estimate(rows, "random", "balanced-dr", 50, lambda _: dr(of)).to_dict()
    assert next(row for row in found if row["estimator"] == "balanced-dr")["se_ms"] == expected["se_ms"]
    assert expected["se_ms"] != plain["se_ms"]


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


def test_nobody_meets_an_slo_that_nothing_meets() -> None:
    found = estimated(recorded("random"), "random", slo_ttft_ms=1e-6)
    met = {row["value"] for row in found.tails if row["measure"] == "slo" and row["estimator"] != "dm"}
    assert met == {0.0}


def test_without_propensities_the_model_alone_speaks_of_all_decisions() -> None:
    log = recorded("random")
    none = replace(log, propensity=np.full(600, np.nan), probability=np.full(log.candidate.shape, np.nan))
    traffic = replace(LoggedTraffic.of(log, 0.0), log=none, propensity=none.propensity)
    found = one_step(traffic, {"least-request": make_policy("least-request")}, CLUSTER.fleet, "least-request")
    assert [row["estimator"] for row in found.rows] == ["dm"]
    assert found.rows[0]["value_ms"] == pytest.approx(values(estimated(log, "least-request"), "least-request")["dm"])
    assert (found.tails, found.diagnostics, found.derivatives, found.differences) == ([], [], [], [])
    assert "direct only: without propensities only dm" in (found.note or "")
    assert "the interval does not contain the predictor's own error" in found.rows[0]["notes"]


def test_without_propensities_a_policy_that_dm_cannot_value_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    log, asked = recorded("random"), one_step_module.target_of
    none = replace(log, propensity=np.full(600, np.nan), probability=np.full(log.candidate.shape, np.nan))
    traffic = replace(LoggedTraffic.of(log, 0.0), log=none, propensity=none.propensity)

    def without_predictions(*given: Any) -> Any:
        rows, notes = asked(*given)
        return replace(rows, predicted=np.full_like(rows.predicted, np.nan)), notes

    monkeypatch.setattr(one_step_module, "target_of", without_predictions)
    found = one_step(traffic, {"least-request": make_policy("least-request")}, CLUSTER.fleet, "least-request")
    assert found.rows == []
    assert "no dm of least-request: " in (found.note or "")


FEW = "epsilon:least-uncached-tokens,epsilon=0.2"  # explores so little towards another that some 15 decisions weigh


@pytest.fixture(scope="module")
def few() -> OneStep:
    return estimated(recorded(FEW), FEW, "least-request")


def test_where_the_verdict_is_direct_only_no_number_uses_weights(few: OneStep) -> None:
    words = {row["policy"]: row["verdict"]["word"] for row in few.diagnostics}
    assert words == {FEW: "usable", "least-request": "direct only"}
    assert list(values(few, "least-request")) == ["dm"]
    assert {"dm", "snipw", "dr"} < set(values(few, FEW))
    assert few.differences == []
    assert [row["policy"] for row in few.derivatives] == [FEW]
    weighed = [row for row in few.tails if row["policy"] == "least-request" and row["estimator"] != "dm"]
    assert weighed
    assert all(row["value"] is None and row["refused"] for row in weighed)
    assert "expected 100 or more; it has dm alone, and no other estimator, difference or derivative" in (few.note or "")
    assert "log more, or a policy that explores towards this one" in (few.note or "")


def test_a_baseline_that_the_log_does_not_carry_has_no_differences() -> None:
    found = estimated(recorded(FEW), "least-request", FEW)
    assert found.differences == []
    assert "no one-step differences: least-request has no doubly robust value; name another" in (found.note or "")


def test_propensities_that_did_not_choose_leave_the_model_alone() -> None:
    log = recorded("random")
    wrong = replace(log, propensity=log.propensity / 2, probability=np.full(log.candidate.shape, np.nan))
    found = estimated(wrong, "random", "least-request")
    assert {row["verdict"]["word"] for row in found.diagnostics} == {"not usable"}
    assert {row["estimator"] for row in found.rows} == {"dm"}
    assert {row["estimator"] for row in found.tails if row["value"] is not None} == {"dm"}
    assert found.derivatives == found.differences == []
    assert "log the probability that each choice was drawn with" in (found.note or "")


def test_a_policy_that_shares_no_decision_has_neither_a_difference_nor_a_rank(coin: OneStep) -> None:
    scored = coin.scored["least-request"]
    target = np.zeros(scored.log.candidates)
    first = scored.log.offsets[:-1]
    target[np.where(scored.log.chosen == first, first + 1, first)] = 1.0
    three = {**coin.scored, "never": replace(scored, target=target)}
    rows, notes = one_step_differences(three, "random", 500.0, 0)
    assert [row["policy"] for row in rows] == ["least-request", "random"]
    assert all(len(row["ranks"]) == 2 for row in rows)
    assert notes[0].startswith("never is left out of the one-step differences: the policy shares none of")
    assert one_step_differences(three, "never", None, 0)[0] == []


def test_a_difference_says_that_it_is_of_one_step(coin: OneStep) -> None:
    assert coin.differences[0]["estimand"].startswith("one-step, logged states: value over traffic like the logged one")


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
