"""Two routers that shared a log: an effect where a coin or a plan chose between them, a refusal where the load did."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lodestar.data.log import RequestLog
from lodestar.pipeline.estimation.beyond.differences_in_q import differences_in_q
from lodestar.pipeline.estimation.blocks import block_of
from lodestar.pipeline.replay.estimates.known_of_arms import covariates_before, traffic_of_turns
from lodestar.pipeline.replay.estimates.router_test import router_test
from two_routers import two_routers

N = 2500


def judged(log: RequestLog) -> tuple[dict[str, Any] | None, str]:
    test, note = router_test(log, np.ones(len(log), dtype=np.bool_))
    return test, note or ""


def bucketed(log: RequestLog, name: str) -> np.ndarray:
    return next(each.bucket for each in covariates_before(log, np.ones(len(log), dtype=np.bool_)) if each.name == name)


@pytest.mark.parametrize(("rule", "design"), [("coin", "per request"), ("turns of 50", "switchback")])
def test_a_fair_log_has_an_effect_and_says_what_was_tested(rule: str, design: str) -> None:
    test, note = judged(two_routers(1, rule, N))
    assert test is not None
    assert (test["design"], note) == (design, "")
    assert test["balance"]["passed"]
    names = {each["covariate"] for each in test["balance"]["tests"]}
    assert names == (
        {"requests in flight", "TTFT before", "prompt tokens", "time", "routers of the two requests before"}
        if rule == "coin"
        else {"prompt tokens", "seconds between arrivals", "places in the log"}
    )
    notes = "; ".join(test["notes"])
    assert "tested for balance and passed: " in notes
    assert ("the share of router-b, 50.4%, is the observed one" in notes) == (rule == "coin")


def test_fair_coins_are_hardly_ever_refused() -> None:
    assert sum(judged(two_routers(seed, "coin", 1000))[0] is None for seed in range(60)) <= 2


@pytest.mark.parametrize("rule", ["fallback", "fallback until it is quiet", "0.5 ± 0.1 with load"])
def test_routers_between_which_the_load_chose_have_no_effect(rule: str) -> None:
    test, note = judged(two_routers(1, rule, N, differ=False))
    assert test is None
    assert note.startswith("no test of routers: ")
    assert "expected" in note
    assert "An effect would be mixed with that of what each was given; let " in note


def test_a_mild_leaning_is_told_with_both_shares_and_what_was_expected() -> None:
    note = judged(two_routers(1, "0.5 ± 0.1 with load", N))[1]
    assert "router-b decided 38.8% of the requests that came with 0 to 3 requests in flight and 57.8% of" in note
    assert "no coin chose for each request" in note


def test_a_coin_that_was_turned_up_on_the_way_and_one_that_alternates_are_none() -> None:
    log = two_routers(1, "coin", N)
    ramped = (np.random.default_rng(0).random(N) < np.linspace(0.2, 0.8, N)).astype(np.int64)
    assert "of the log and" in judged(replace(log, logger=ramped))[1]
    assert "after one of router-a and one of router-b" in judged(replace(log, logger=np.arange(N) % 2))[1]


def test_a_coin_for_each_conversation_is_none_for_each_request() -> None:
    log, random = two_routers(1, "coin", N), np.random.default_rng(0)
    session = random.integers(0, 400, N)
    note = judged(replace(log, session=session, logger=random.integers(0, 2, 400)[session]))[1]
    assert "whose conversation router-" in note
    assert judged(replace(log, session=session))[0] is not None


def test_the_conversation_so_far_is_that_of_the_request_before_in_it() -> None:
    log = two_routers(0, "coin", 6)
    log = replace(log, session=np.array([0, 1, 0, -1, 1, -1]), logger=np.array([1, 0, 0, 1, 1, 1]))
    assert bucketed(log, "router of the conversation so far").tolist() == [-1, -1, 1, -1, 0, -1]
    assert bucketed(log, "routers of the two requests before").tolist() == [-1, -1, 2, 0, 1, 3]


def test_a_rhythm_of_days_is_seen_in_a_log_of_days() -> None:
    log = two_routers(0, "coin", N)
    days = replace(log, arrived_at_s=np.linspace(0, 4 * 86_400, N), e2e_ms=np.full(N, 100.0))
    night = (days.arrived_at_s % 86_400 < 3 * 10_800).astype(np.int64)
    turned = (np.random.default_rng(0).random(N) < 0.35 + 0.3 * night).astype(np.int64)
    assert "hours after the log's first, by the day" in judged(replace(days, logger=turned))[1]
    assert "time of day" not in {each.name for each in covariates_before(log, np.ones(N, dtype=np.bool_))}


def test_without_times_of_arrival_the_rest_is_tested_and_the_lack_told() -> None:
    log = two_routers(1, "coin", N)
    test, _ = judged(replace(log, arrived_at_s=np.full(N, np.nan)))
    assert test is not None
    assert test["balance"]["untested"] == ["requests in flight"]
    assert any("not tested for balance" in note for note in test["notes"])


def test_what_is_left_out_still_counts_as_load() -> None:
    log = two_routers(2, "coin", 100, load=2.0)
    late = np.arange(100) >= 50
    traffic = {each.name: each.values for each in traffic_of_turns(log, late)}
    assert traffic["requests in flight"].tolist() == traffic_of_turns(log, np.ones(100, bool))[3].values[50:].tolist()
    assert traffic["seconds between arrivals"][1:] == pytest.approx(np.diff(log.arrived_at_s[50:]))
    assert len(traffic["prompt tokens"]) == 50


@pytest.mark.parametrize("rule", ["coin", "turns of 50"])
def test_a_decision_without_a_router_is_left_out_and_counted(rule: str) -> None:
    log = two_routers(1, rule, N)
    assert log.logger is not None
    for unnamed, refused in ((25, False), (26, True)):
        test, note = judged(replace(log, logger=np.where(np.arange(N) < unnamed, -1, log.logger)))
        assert (test is None) == refused
        assert f"{unnamed} of 2500 requests lack a TTFT or the name of a policy" in note


def test_an_effect_is_of_the_counted_requests_at_the_share_that_they_have() -> None:
    log = two_routers(1, "coin of 1 in 10", N)
    assert log.logger is not None
    late = np.arange(N) >= 500
    test, _ = router_test(log, late)
    assert test is not None
    share, block = float(log.logger[late].mean()), block_of(int(late.sum()))
    expected = differences_in_q(log.ttft_ms[late], log.logger[late], share, block=block)
    assert (test["value"], test["se"], test["naive"]) == (expected.path.value, expected.path.se, expected.naive)


def test_the_load_is_what_had_not_ended_and_names_stay_with_their_routers() -> None:
    log = two_routers(1, "fallback until it is quiet", N, differ=False)
    load = traffic_of_turns(log, np.ones(N, dtype=np.bool_))[3].values
    ended_s = log.arrived_at_s + log.e2e_ms / 1000
    for i in (500, 1000, 2000):
        assert load[i] == np.sum((log.arrived_at_s < log.arrived_at_s[i]) & (ended_s >= log.arrived_at_s[i]))
    of = r"requests in flight are ([0-9.]+) in the mean at the start of the turns of router-b and ([0-9.]+) in"
    (of_b, of_a) = re.findall(of, judged(log)[1])[0]
    assert float(of_b) > 2 * float(of_a)


def test_a_log_of_one_router_or_three_is_no_test() -> None:
    log = two_routers(1, "coin", 200)
    assert router_test(replace(log, logger=None), np.ones(200, dtype=np.bool_)) == (None, None)
    assert "the log is of 3; expected two" in judged(replace(log, loggers=("a", "b", "c")))[1]
    alone = judged(replace(log, logger=np.ones(200, dtype=np.int64)))[1]
    assert alone == "no test of routers: all 200 requests that count are of one router; expected both"
