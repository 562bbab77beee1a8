"""Whether two arms are balanced: for a coin a request and for turns, with what is known before."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, rankdata, ttest_ind

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.beyond.arm_balance import (
    FALSE_ALARM,
    Balance,
    Covariate,
    arm_balance,
    quantile_buckets,
)
from lodestar.pipeline.estimation.beyond.known import costs_before, costs_seen, in_flight
from lodestar.pipeline.estimation.beyond.switchback import design_of
from lodestar.pipeline.estimation.beyond.turn_balance import Traffic, turn_balance

Ints = NDArray[np.int64]


def by(bucket: Ints, name: str = "load") -> Covariate:
    return Covariate(name, bucket, [f"of bucket {k}" for k in range(int(bucket.max()) + 1)])


def test_one_covariate_has_the_p_of_pearsons_table() -> None:
    random = np.random.default_rng(3)
    bucket = random.integers(0, 4, 900)
    arm = (random.random(900) < 0.4 + 0.03 * bucket).astype(np.int64)
    table = np.stack([np.bincount(bucket[arm == which], minlength=4) for which in (0, 1)])
    assert arm_balance(arm, [by(bucket)]).tests[0].p == pytest.approx(chi2_contingency(table, correction=False).pvalue)


def test_several_covariates_are_as_sure_together_as_one_alone() -> None:
    random = np.random.default_rng(0)
    failed = 0
    for _ in range(400):
        arm = random.integers(0, 2, 400)
        found = arm_balance(arm, [by(random.integers(0, 4, 400), str(k)) for k in range(5)])
        failed += found.tests[0].p < 0.05
        assert found.passed == (found.tests[0].p >= FALSE_ALARM)
    assert 0.02 < failed / 400 < 0.085


def test_the_finding_is_of_the_bucket_that_is_furthest_off() -> None:
    bucket = np.repeat([0, 1, 2], 200)
    arm = np.concatenate([np.tile([0, 1], 100), np.tile([0, 1, 1, 1], 50), np.tile([0, 1], 100)])
    found = arm_balance(arm, [by(np.tile([0, 0, 1, 1], 150), "pairs"), by(bucket)], "router-b")
    assert found.tests[0].finding.startswith(
        "router-b decided 75.0% of the requests of bucket 1 and 50.0% of the other"
    )
    assert found.tests[0].finding.endswith("expected 58.3% of both")


def test_a_bucket_that_is_most_of_the_log_is_told_where_it_differs_from_all_others() -> None:
    arm = np.concatenate([np.arange(800) % 2, np.arange(100) < 60, np.arange(100) < 62]).astype(np.int64)
    found = arm_balance(arm, [by(np.repeat([0, 1, 2], [800, 100, 100]))])
    assert "50.0% of the requests of bucket 0 and 61.0% of the others" in found.tests[0].finding


def test_buckets_that_are_small_or_unknown_are_left_out_and_a_covariate_of_one_is_named() -> None:
    arm = np.tile([0, 1], 100)
    alike = by(np.zeros(200, dtype=np.int64), "alike")
    rare = by(np.where(np.arange(200) < 19, 1, 0), "rare")
    some = by(np.where(np.arange(200) < 20, -1, np.arange(200) // 20 % 2), "some")
    found = arm_balance(arm, [alike, rare, some])
    assert (found.untested, [each.name for each in found.tests]) == (("alike", "rare"), ["some"])
    assert found.tests[0].p == 1
    with pytest.raises(DataError, match="too few requests or periods to test alike, rare"):
        arm_balance(arm, [alike, rare])


def test_a_bucket_needs_enough_of_the_rarer_arm_whichever_it_is() -> None:
    rare = (np.arange(160) % 10 == 0).astype(np.int64)
    for arm in (rare, 1 - rare):  # 8 of the rarer arm in each half, fewer than 10
        with pytest.raises(DataError, match="too few requests or periods to test load"):
            arm_balance(arm, [by(np.repeat([0, 1], 80))])


def test_what_is_left_out_does_not_count_in_the_share_of_the_others() -> None:
    random = np.random.default_rng(3)
    bucket = np.repeat([0, 1, 2], [400, 400, 15])
    arm = np.where(bucket == 2, 1, random.random(815) < 0.3 + 0.1 * bucket).astype(np.int64)
    table = np.stack([np.bincount(bucket[:800][arm[:800] == which], minlength=2) for which in (0, 1)])
    found = arm_balance(arm, [by(bucket)]).tests[0]
    assert found.p == pytest.approx(chi2_contingency(table, correction=False).pvalue)
    assert found.finding.endswith(f"expected {arm[:800].mean():.1%} of both")


def test_quarters_hold_as_many_and_equal_values_stay_together() -> None:
    assert np.bincount(quantile_buckets(np.random.default_rng(0).random(400), 4)[0]).tolist() == [100] * 4
    bucket, texts = quantile_buckets(np.array([0.0] * 6 + [5.0, 7.0]), 4)
    assert bucket.tolist() == [0] * 6 + [2, 2]
    assert texts == ["0 to 0", "", "5 to 7"]
    assert quantile_buckets(np.full(3, np.nan), 4)[0].tolist() == [-1] * 3


def test_load_and_latencies_are_those_of_the_moment() -> None:
    arrived_at_s, lasted_s = np.array([0.0, 1.0, 1.0, 4.0]), np.array([2.0, 3.5, 0.5, 1.0])
    assert in_flight(arrived_at_s, arrived_at_s + lasted_s).tolist() == [0, 1, 1, 1]
    assert in_flight(np.array([0.0, 1.0]), np.array([1.0, 2.0])).tolist() == [0, 1]  # whose end comes at this moment
    seen = costs_seen(np.array([1.0, 2.0, 3.0, 4.0]), arrived_at_s + lasted_s, arrived_at_s, 1)
    assert np.isnan(seen[:3]).all()
    assert seen[3] == 1.0  # the last of two that were over, not the second, which is still open
    at_once = costs_seen(np.array([5.0, 7.0]), np.array([1.0, 9.0]), np.array([0.0, 1.0]), 4)
    assert np.isnan(at_once).all()  # what is seen at the very moment came too late to choose by
    assert costs_before(np.arange(20.0))[19].tolist() == [16.5 - 9.5, 10.5 - 9.5, (171 - 19 * 9.5) / 64]


def alternating(periods: int, length: int) -> Ints:
    return np.repeat(np.arange(periods) % 2, length)


def test_turns_at_the_peaks_are_found_and_turns_along_a_trend_are_not() -> None:
    arm = alternating(16, 50)
    noise = np.random.default_rng(0).random(800)
    assert turn_balance(arm, [Traffic("gaps", noise + np.arange(800) / 100)]).passed
    found = turn_balance(arm, [Traffic("gaps", noise - 0.3 * arm)], ("a", "b"))
    assert not found.passed
    means = [(noise - 0.3 * arm)[arm == which].mean() for which in (1, 0)]
    b, a = (f"{each:.4g}" for each in means)
    assert found.tests[0].finding == f"gaps are {b} in the mean in the turns of b and {a} in those of a; expected alike"


@pytest.mark.parametrize("shift", [0.1, -0.1])
def test_the_p_of_turns_is_welchs_of_the_mean_ranks_of_periods(shift: float) -> None:
    arm = alternating(16, 50)
    values = np.random.default_rng(2).lognormal(0, 2, 800) * np.exp(shift * arm)
    of_period = (rankdata(values) / 800).reshape(16, 50).mean(axis=1)
    expected = ttest_ind(of_period[1::2], of_period[::2], equal_var=False).pvalue
    assert 0.001 < expected < 0.999
    assert turn_balance(arm, [Traffic("tokens", values)]).tests[0].p == pytest.approx(expected)
    values[25] = 1e9  # of one request alone, which can carry no more than its rank
    assert turn_balance(arm, [Traffic("tokens", values)]).tests[0].p == pytest.approx(expected, abs=0.05)


def test_what_speaks_at_a_switch_is_what_the_first_request_of_each_turn_met() -> None:
    lengths = np.tile([30, 2, 12, 30], 20)
    arm, random = np.repeat(np.arange(80) % 2, lengths), np.random.default_rng(1)
    load = 5.0 * arm + random.random(len(arm))
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    load[starts] = random.random(80)
    rank = rankdata(load[starts]) / 80
    expected = ttest_ind(rank[1::2], rank[::2], equal_var=False).pvalue
    found = turn_balance(arm, [Traffic("load", load, at_switch=True)])
    assert found.tests[0].p == pytest.approx(expected)
    assert f"{load[starts][1::2].mean():.4g} in the mean at the start of the turns" in found.tests[0].finding


def test_the_load_at_a_switch_speaks_where_turns_are_uneven_alone() -> None:
    even, lengths = alternating(40, 20), np.tile([30, 2, 12, 30], 20)
    uneven = np.repeat(np.arange(80) % 2, lengths)
    for arm, names in ((even, ["places"]), (uneven, ["load", "places"])):
        load = 5.0 * arm + np.random.default_rng(1).random(len(arm))
        places = Traffic("places", np.arange(len(arm), dtype=np.float64))
        found = turn_balance(arm, [places, Traffic("load", load, at_switch=True)])
        assert [each.name for each in found.tests] == names
        assert found.passed == (names == ["places"])


def test_turns_by_a_clock_are_even_however_many_requests_come() -> None:
    lengths = np.tile([40, 4, 5, 50], 10)
    arm = np.repeat(np.arange(40) % 2, lengths)
    load = Traffic("load", 5.0 * arm + np.random.default_rng(1).random(len(arm)), at_switch=True)
    places = Traffic("places", np.arange(len(arm), dtype=np.float64))
    clock_s = np.concatenate([np.linspace(60 * k, 60 * k + 59, many) for k, many in enumerate(lengths)])
    assert turn_balance(arm, [places, load], at_s=clock_s).passed
    assert not turn_balance(arm, [places, load], at_s=np.arange(len(arm), dtype=np.float64)).passed
    assert not turn_balance(arm, [places, load], at_s=np.full(len(arm), np.nan)).passed


def test_turns_that_the_log_cuts_off_do_not_count_as_uneven() -> None:
    arm = np.repeat(np.arange(12) % 2, [1, *[20] * 10, 1])
    load = Traffic("load", 5.0 * arm, at_switch=True)
    found = turn_balance(arm, [Traffic("places", np.arange(202.0)), load])
    assert [each.name for each in found.tests] == ["places"]


def test_turns_that_a_coin_strings_together_are_even() -> None:
    for share in (0.5, 0.8):
        arm = np.repeat((np.random.default_rng(2).random(120) < share).astype(np.int64), 20)
        load = Traffic("load", 5.0 * arm, at_switch=True)
        found = turn_balance(arm, [Traffic("places", np.arange(2400.0)), load])
        assert [each.name for each in found.tests] == ["places"]


def test_turns_without_anything_known_are_refused() -> None:
    arm = alternating(12, 20)
    with pytest.raises(DataError, match="to test prompt tokens, gaps"):
        turn_balance(arm, [Traffic("prompt tokens", np.full(240, 7.0)), Traffic("gaps", np.full(240, np.nan))])
    assert design_of(arm) == "switchback"


def test_the_document_has_what_was_tested_and_what_not() -> None:
    found = Balance.of([("load", 0.04, "says"), ("time", 0.5, "more")], ["tokens"]).to_dict()
    assert found["tests"] == [
        {"covariate": "load", "p": 0.08, "finding": "says"},
        {"covariate": "time", "p": 0.5, "finding": "more"},
    ]
    assert (found["passed"], found["false_alarm"], found["untested"]) == (True, FALSE_ALARM, ["tokens"])
