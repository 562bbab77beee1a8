"""From a dataset to one-step estimates: several routers in one log, tests of two, what is left out and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data.log import RequestLog
from lodestar.pipeline.estimation.beyond.derivative import derivative
from lodestar.pipeline.estimation.beyond.known import known_before
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.loggers import balanced, stratified
from lodestar.pipeline.estimation.one_step import weights
from lodestar.pipeline.replay.estimates import one_step as one_step_module
from lodestar.pipeline.replay.estimates.differences import one_step_differences
from lodestar.pipeline.replay.estimates.mixed_loggers import mixed_estimates
from lodestar.pipeline.replay.estimates.one_step import OneStep, one_step
from lodestar.pipeline.replay.estimates.router_test import router_test
from lodestar.pipeline.replay.logged_traffic import LoggedTraffic
from lodestar.pipeline.replay.policy_names import make_policy
from routed_logs import CLUSTER, LOGGERS, mixed, recorded

Bools = NDArray[np.bool_]

FEW = "epsilon:least-uncached-tokens,epsilon=0.2"  # explores so little towards another that some 15 decisions weigh


def estimated(
    log: RequestLog, *names: str, warmup_ratio: float = 0.0, slo_ttft_ms: float = 500.0, blocks: int = 12
) -> OneStep:
    policies, traffic = {name: make_policy(name) for name in names}, LoggedTraffic.of(log, warmup_ratio)
    return one_step(traffic, policies, CLUSTER.fleet, names[0], slo_ttft_ms=slo_ttft_ms, blocks=blocks)


def without_all_but(log: RequestLog, kept: Bools) -> RequestLog:
    """Take the propensities of the other requests away."""
    return replace(
        log,
        propensity=np.where(kept, log.propensity, np.nan),
        probability=np.where(kept[:, None], log.probability, np.nan),
    )


@pytest.fixture(scope="module")
def coin() -> OneStep:
    return estimated(mixed(np.random.default_rng(0).random(600) < 0.5), "least-request", "random")


def values(found: OneStep, policy: str) -> dict[str, float]:
    return {row["estimator"]: row["value_ms"] for row in found.rows if row["policy"] == policy}


def said(found: OneStep) -> str:
    return "; ".join(found.notes)


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
    assert "no balanced estimates: in-house of the log is no policy that is known here" in said(found)


def test_a_name_in_a_log_makes_no_file_run(tmp_path: Path) -> None:
    file = tmp_path / "router.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine:\n    def choose(self, *a): return 0\n")
    log = mixed(np.random.default_rng(0).random(600) < 0.5)
    found = estimated(replace(log, loggers=(f"{file}:Mine", "random")), "random")
    assert not (tmp_path / "ran").exists()
    assert f"{file}:Mine of the log is no policy that is known here" in said(found)


def test_a_router_that_would_choose_otherwise_than_it_logged_is_named_once() -> None:
    log = mixed(np.random.default_rng(0).random(600) < 0.5)
    found = estimated(replace(log, loggers=("epsilon:least-request", "random")), "random", "least-request")
    assert said(found).count("balanced") == 1
    assert "epsilon:least-request, asked again, gives" in said(found)


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
    assert "direct only: without propensities only dm" in said(found)
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
    assert "no dm of least-request: " in said(found)


@pytest.mark.parametrize("kept", [1, 199])
def test_a_few_propensities_are_never_worse_than_none(kept: int) -> None:
    log = recorded(FEW)
    none = estimated(without_all_but(log, np.zeros(600, dtype=np.bool_)), "least-request")
    found = estimated(without_all_but(log, np.arange(600) < kept), "least-request")
    assert [(row["estimator"], row["value_ms"], row["ci95_ms"]) for row in found.rows] == [
        (row["estimator"], row["value_ms"], row["ci95_ms"]) for row in none.rows
    ]
    assert (found.tails, found.diagnostics, found.derivatives, found.differences) == ([], [], [], [])
    assert none.notes[-1].startswith("direct only: without propensities only dm")
    assert found.notes == [
        f"direct only: {kept} of 600 decisions have a propensity; expected 200 or more. Only dm, the predictor, can "
        "speak, of all 600: no weights, tails, differences or derivatives; log the probability of every candidate with "
        "every decision"
    ]


def test_propensities_that_carry_no_policy_leave_dm_of_all_decisions() -> None:
    log = recorded(FEW)
    found = estimated(without_all_but(log, np.arange(600) % 2 == 0), "least-request")
    none = estimated(without_all_but(log, np.zeros(600, dtype=np.bool_)), "least-request")
    assert [row["value_ms"] for row in found.rows] == [row["value_ms"] for row in none.rows]
    assert [row["verdict"]["word"] for row in found.diagnostics] == ["direct only"]
    assert "as the 300 decisions with a propensity carry no policy's weights, dm is of all 600" in found.notes


def test_decisions_that_are_left_out_are_counted_and_compared_with_the_others() -> None:
    log = recorded(FEW)
    fair = estimated(without_all_but(log, np.arange(600) % 2 == 0), FEW)
    assert "300 of 600 decisions left out: no propensity or no candidates. One-step values are of the" in said(fair)
    assert "no more than luck explains" in said(fair)
    slow = estimated(without_all_but(log, log.ttft_ms > np.median(log.ttft_ms)), FEW)
    assert "more than luck explains: they are no fair sample" in said(slow)
    assert "some decisions only" not in said(slow)
    assert slow.inputs.decisions is not None
    assert f"{slow.inputs.decisions.cost.mean():,.0f} ms" in said(slow)


def test_every_interval_goes_by_the_blocks_that_were_asked_for() -> None:
    log = mixed(np.random.default_rng(0).random(600) < 0.5)
    few, many = (estimated(log, "random", "least-request", blocks=blocks) for blocks in (8, 20))
    assert (few.blocks, few.to_dict()["one_step_blocks"]) == (8, 8)
    for ours, theirs in zip(few.rows, many.rows, strict=True):
        assert "8 blocks of 75 decisions" in ours["interval"]
        assert "20 blocks of 30 decisions" in theirs["interval"]
        assert ours["se_ms"] != theirs["se_ms"]
        if ours["path"]:  # SLOPE's own
            assert [each["half_width"] for each in ours["path"]] != [each["half_width"] for each in theirs["path"]]
    told = [(a, b) for a, b in zip(few.tails, many.tails, strict=True) if a["value"] is not None and a["low"] < 1]
    assert told
    assert all((a["low"], a["high"]) != (b["low"], b["high"]) for a, b in told)
    assert few.differences[1]["se"] != many.differences[1]["se"]
    assert [row["blocks"] for row in few.derivatives] == [8, 8]
    assert few.test is not None
    assert many.test is not None
    assert few.test["blocks"] == 8
    assert few.test["naive_se"] != many.test["naive_se"]


def test_a_derivative_takes_off_what_had_been_seen_at_the_decision() -> None:
    log = recorded("random")
    found = estimated(log, "least-request")
    cost, arrived_at_s = log.ttft_ms, CLUSTER.workload.arrived_at_s
    known = known_before(cost, arrived_at_s + cost / 1000, arrived_at_s)
    expected = derivative(cost, weights(found.scored["least-request"]), known=known)
    assert found.derivatives[0]["value"] == pytest.approx(expected.value)
    assert found.derivatives[0]["se"] == pytest.approx(expected.se)


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
    assert "expected 100 or more; it has dm alone, and no other estimator, difference or derivative" in said(few)
    assert "log more, or a policy that explores towards this one" in said(few)


def test_a_baseline_that_the_log_does_not_carry_has_no_differences() -> None:
    found = estimated(recorded(FEW), "least-request", FEW)
    assert found.differences == []
    assert "no one-step differences: least-request has no doubly robust value; name another" in said(found)


def test_propensities_that_did_not_choose_leave_the_model_alone() -> None:
    log = recorded("random")
    wrong = replace(log, propensity=log.propensity / 2, probability=np.full(log.candidate.shape, np.nan))
    found = estimated(wrong, "random", "least-request")
    assert {row["verdict"]["word"] for row in found.diagnostics} == {"not usable"}
    assert {row["estimator"] for row in found.rows} == {"dm"}
    assert {row["estimator"] for row in found.tails if row["value"] is not None} == {"dm"}
    assert found.derivatives == found.differences == []
    assert "log the probability that each choice was drawn with" in said(found)


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
    assert found.notes == ["random and epsilon:random,epsilon=0.5 decide alike in all of these logged states"]


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
    assert "30 of 600 requests left out: no decision or no TTFT" in said(found)
    assert "no derivative towards least-request: 30 of 600 requests lack" in said(found)
