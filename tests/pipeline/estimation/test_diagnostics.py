"""Each diagnostic against numbers worked by hand, or against what it estimates."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import stdtr

from faulty_logs import world
from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import block_se
from lodestar.pipeline.estimation.diagnostics import diagnose
from lodestar.pipeline.estimation.diagnostics.balance import bucket_balance, instance_balance
from lodestar.pipeline.estimation.diagnostics.control_variates import contexts, control_variates, controlled
from lodestar.pipeline.estimation.diagnostics.groups import Groups
from lodestar.pipeline.estimation.diagnostics.mean_zero import Sums, family
from lodestar.pipeline.estimation.diagnostics.prediction import coverage, prediction
from lodestar.pipeline.estimation.diagnostics.propensity import calibration, counts
from lodestar.pipeline.estimation.diagnostics.support import expected_weights, support
from lodestar.pipeline.estimation.diagnostics.weights import tail_effective_sample_size, weigh
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, weights

Floats = NDArray[np.float64]


def by_hand(logging: list[float] | None = None) -> OneStepInput:
    """Three decisions of 2, 3 and 1 candidates; weights are 2, 0.5 and 1."""
    log = LoggedDecisions(
        np.array([10.0, 30.0, 20.0]),
        np.array([0, 2, 5, 6]),
        np.array([1, 2, 5]),
        np.array([0.25, 0.5, 1.0]),
        None if logging is None else np.array(logging),
    )
    return OneStepInput(log, np.array([0.5, 0.5, 0.25, 0.5, 0.25, 1.0]), np.array([9.0, 12.0, 25.0, 40.0, 10.0, 20.0]))


ALL = [0.75, 0.25, 0.5, 0.5, 0.0, 1.0]  # the log never chooses the fifth candidate, which the policy does in a quarter


def test_weights_by_hand() -> None:
    rows = by_hand()
    found = weigh(rows.log.cost, expected_weights(rows))
    assert found.ess == pytest.approx(3.5**2 / 5.25)
    assert found.mean == pytest.approx(3.5 / 3)
    assert (found.largest, found.largest_ratio, found.top_ratio) == (2.0, 2 / 3.5, 2 / 3.5)
    assert not found.tested  # of three, one decides


def test_the_tail_begins_at_the_quantile_of_the_weighted_costs() -> None:
    cost, w = np.array([4.0, 1.0, 3.0, 2.0]), np.array([1.0, 8.0, 3.0, 0.0])
    assert tail_effective_sample_size(cost, w, 0.6) == pytest.approx((1 + 3) ** 2 / (1 + 9))  # beyond cost 1
    assert tail_effective_sample_size(cost, w, 0.9) == 1.0  # beyond cost 3
    assert tail_effective_sample_size(cost, w, 0.95) == 0.0


def test_what_the_log_never_chooses_is_told_where_all_probabilities_are_logged() -> None:
    rows = by_hand(ALL)
    expected = expected_weights(rows)
    found = support(rows, expected)
    assert (found.unsupported_ratio, found.decisions) == (0.25 / 3, 1)
    np.testing.assert_allclose(expected.mass, [1.0, 0.75, 1.0])
    squares = 0.5**2 / 0.75 + 0.5**2 / 0.25
    np.testing.assert_allclose(expected.variance, [squares - 1, 0.25**2 / 0.5 + 0.5**2 / 0.5 - 0.75**2, 0.0])
    assert support(by_hand(), expected_weights(by_hand())).unsupported_ratio is None


def test_choices_of_which_one_would_carry_too_much_are_thin() -> None:
    n = 1000
    logging = np.tile([0.999, 0.001], n)
    log = LoggedDecisions(np.ones(n), np.arange(0, 2 * n + 1, 2), 2 * np.arange(n), np.full(n, 0.999), logging)
    for share, thin_ratio in ((0.06, 0.06), (0.04, 0.0)):  # a weight of 60 of 1,000, and one of 40
        rows = OneStepInput(log, np.tile([1 - share, share], n))
        assert support(rows, expected_weights(rows)).thin_ratio == pytest.approx(thin_ratio)


def test_the_weight_found_on_an_instance_is_what_the_policy_gives_it() -> None:
    rows, instance = by_hand(ALL), np.array([0, 1, 0, 1, 2, 1])
    expected, groups = expected_weights(rows), Groups.of_candidates(instance, rows.log, 3)
    terms = {0: 0.5 - 0.75, 1: 3.0 - 2.0, 2: 0.0}  # found less expected, with what the log never chooses left out
    sums = Sums.of(groups, *_instance_terms(rows))
    np.testing.assert_allclose(sums.total, list(terms.values()))
    assert instance_balance(rows.log, expected, groups).name == "weight by instance"
    assert sums.total.sum() == pytest.approx(expected.surplus.sum())


def _instance_terms(rows: OneStepInput) -> tuple[Floats, Floats]:
    expected = expected_weights(rows)
    terms = -expected.target
    terms[rows.log.chosen] += expected.weight
    return terms, expected.target


def test_known_variances_are_those_of_many_logs() -> None:
    """The same decisions, drawn 4,000 times over, each with its true propensities."""
    rows, draws = by_hand(ALL), 4000
    random = np.random.default_rng(0)
    logging = np.array(ALL)
    totals = np.zeros((draws, 3))
    for first, last in ((0, 2), (2, 5), (5, 6)):
        chosen = first + random.choice(last - first, size=draws, p=logging[first:last])
        weight = rows.target[chosen] / logging[chosen]
        for candidate, instance in enumerate((0, 1, 0, 1, 2, 1)):
            totals[:, instance] += np.where(chosen == candidate, weight, 0.0)
    expected = expected_weights(rows)
    groups = Groups.of_candidates(np.array([0, 1, 0, 1, 2, 1]), rows.log, 3)
    assert expected.squares is not None
    known = groups.sums(expected.squares) - groups.sums(expected.target**2)
    # Instances are chosen once a decision, and two decisions share none of their draws.
    np.testing.assert_allclose(totals.mean(axis=0), groups.sums(expected.target), atol=0.05)
    np.testing.assert_allclose(totals.var(axis=0), known, rtol=0.06)


def test_the_instance_that_served_is_no_bucket() -> None:
    """The mean weight is 1 at any load, not among the requests of one instance: those were chosen."""
    made = world(0)
    rows, log = made.rows, made.rows.log
    expected = expected_weights(rows)
    served = made.instance[log.chosen]
    assert bucket_balance(expected, "served by", served).fails
    assert not instance_balance(log, expected, Groups.of_candidates(made.instance, log, 25)).fails
    assert not bucket_balance(expected, "load", made.buckets["load"]).fails


def test_a_group_of_a_short_time_is_tested_by_its_own_blocks() -> None:
    """Cut into blocks of the whole log it would have rows in one block only, and nothing to compare."""
    n = 5000
    time, surplus = np.arange(n) * 25 // n, np.random.default_rng(0).choice([-0.5, 0.5], n)
    surplus[time == 7] += 0.3
    groups = Groups.of(time, 25)
    found = family("weight", [f"time {k}" for k in range(25)], Sums.of(groups, surplus, np.ones(n)), 25)
    assert found.fails
    assert found.worst is not None
    assert found.worst.name == "time 7"
    assert found.worst.off == pytest.approx(0.3, abs=0.1)


def test_a_draw_that_holds_for_a_while_is_no_alarm() -> None:
    """Weights of 0.5 or 1.5 by a coin for every 200 requests: the mean is off 0.04, and by blocks that is nothing."""
    failed = {200: 0, 1: 0}
    for seed in range(40):
        coins = np.random.default_rng(seed).choice([-0.5, 0.5], 25)
        terms = np.repeat(coins, 200)
        for block in failed:
            sums = Sums.of(Groups.one(5000, 5000 // block), terms, np.ones(5000))
            failed[block] += family("weight", ["all"], sums, 5000 // block).fails
    assert failed[200] <= 2
    assert failed[1] > 20


def test_many_groups_are_tested_by_holms_rule() -> None:
    """Twenty right groups and one that is off: its p counts 21 times, that of the next 20 times."""
    sums = Sums(
        np.full(21, 1000),
        np.concatenate([[100.0, -60.0], np.zeros(19)]),
        np.full(21, 1000.0),
        np.full(21, 400.0),
        np.ones(21),
    )
    found = family("weight", [f"instance {k}" for k in range(21)], sums, 50)
    assert [test.name for test in found.tests[:2]] == ["instance 0", "instance 1"]
    assert [test.z for test in found.tests[:2]] == [5.0, -3.0]
    p = 2 * stdtr(49, [-5.0, -3.0]) * [21, 20]
    np.testing.assert_allclose([test.p for test in found.tests[:2]], p)
    more = family("weight", [f"instance {k}" for k in range(21)], sums, 50, more_only=True)
    assert {test.name: test.p for test in more.tests}["instance 1"] == 1.0


def test_a_group_in_which_one_request_decides_is_not_tested() -> None:
    sums = Sums(np.full(2, 99), np.full(2, 30.0), np.full(2, 99.0), np.full(2, 100.0), np.array([2.0, 2.1]))
    found = family("weight", ["a", "b"], sums, 50)
    assert ([test.name for test in found.tests], found.too_few) == (["a"], ("b",))


def test_chi_square_of_two_tenths_by_hand() -> None:
    """Candidates of 0.2 and 0.8: one degree of freedom, (found − expected)² / (n · 0.2 · 0.8)."""
    n, rare = 400, 100
    chosen = 2 * np.arange(n) + (np.arange(n) % 4 != 0)
    logging = np.tile([0.2, 0.8], n)
    log = LoggedDecisions(np.ones(n), np.arange(0, 2 * n + 1, 2), chosen, logging[chosen], logging)
    found = calibration(log, logging, None)
    assert found.chi_square == pytest.approx((rare - 0.2 * n) ** 2 / (n * 0.2 * 0.8))
    assert found.freedom == 1
    assert {test.name: test.z for test in found.families[0].tests} == {
        "tenth 1": pytest.approx(20 / 8),
        "tenth 2": pytest.approx(-20 / 8),
    }
    rates = [(row.logged_ratio, row.picked_ratio) for row in found.reliability]
    np.testing.assert_allclose(rates, [(0.2, 0.25), (0.8, 0.75)])


def test_chi_square_of_right_propensities_is_what_its_freedom_says() -> None:
    found = [calibration(log, log.logging, None) for log in (world(seed, n=600).rows.log for seed in range(60))]
    p = np.array([each.p for each in found])
    assert {each.freedom for each in found} <= {9, 10}
    assert np.mean([each.chi_square / each.freedom for each in found]) == pytest.approx(1.0, abs=0.2)
    assert (p < 0.1).mean() < 0.25
    assert 0.35 < p.mean() < 0.65


def test_the_mean_of_one_over_the_propensity_is_the_number_of_candidates() -> None:
    right, cut = world(3, full=False).rows.log, world(3, "one instance never chosen", full=False)
    assert counts(right, None).supported_ratio == pytest.approx(1.0, abs=0.03)
    found = counts(cut.rows.log, Groups.of_candidates(cut.instance, cut.rows.log, 25))
    assert found.supported_ratio == pytest.approx(5 / 6, abs=0.03)
    never = next(test for test in found.families[1].tests if test.name == "instance 5")
    assert never.off == -1.0
    assert not any(each.fails for each in found.families)  # no fault of the propensities
    low = world(3, "all a fifth too low", full=False).rows.log
    assert counts(low, None).families[0].fails


def test_the_correction_is_what_dr_adds_to_dm_and_its_error() -> None:
    rows = world(1).rows
    found = prediction(rows, 100, {})
    dm, dr = (estimators()[name](rows) for name in ("dm", "dr"))
    assert found.correction == pytest.approx(dr.value - dm.value)
    assert found.correction_se == pytest.approx(block_se(dr.influence - dm.influence, 100))
    assert found.correction < -2 * found.correction_se  # the model is a tenth too high


def test_residuals_by_tenth_and_bucket_add_up() -> None:
    made = world(1)
    found = prediction(made.rows, 100, {"load": made.buckets["load"]})
    residual = made.rows.log.cost - made.rows.predicted[made.rows.log.chosen]  # type: ignore[index]
    assert [each.group for each in found.residuals] == [
        *(f"prediction {k}" for k in range(1, 11)),
        *(f"load {k}" for k in range(4)),
    ]
    for of in ("prediction", "load"):
        rows = [each for each in found.residuals if each.group.startswith(of)]
        assert sum(each.decisions for each in rows) == len(residual)
        assert sum(each.bias * each.decisions for each in rows) == pytest.approx(residual.sum())
    busy = residual[made.buckets["load"] == 3]
    assert found.residuals[-1].bias == pytest.approx(busy.mean())
    assert found.residuals[-1].mae == pytest.approx(np.abs(busy).mean())
    assert np.all(np.diff([each.predicted for each in found.residuals[:10]]) > 0)


def test_coverage_by_bucket() -> None:
    cost, half = np.arange(100.0), np.arange(100) // 50
    found = coverage(cost, {0.9: np.where(half == 0, 44.5, 79.5)}, 10, {"half": half})
    assert [(each.group, each.covered_ratio) for each in found] == [
        ("all decisions", 0.75),
        ("half 0", 0.9),
        ("half 1", 0.6),
    ]
    covered = (cost <= np.where(half == 0, 44.5, 79.5)).astype(np.float64)
    assert found[0].se == pytest.approx(block_se(covered, 10))
    with pytest.raises(ConfigError, match="quantile 90 is foretold; expected a share between 0 and 1"):
        coverage(cost, {90: cost}, 10, {})


def test_contexts_do_not_look_at_the_choice_nor_at_what_came_of_it() -> None:
    rows = world(2).rows
    others = rows.log.offsets[:-1] + (rows.log.chosen - rows.log.offsets[:-1] + 1) % rows.log.counts
    assert rows.log.logging is not None
    log = replace(rows.log, chosen=others, propensity=rows.log.logging[others], cost=rows.log.cost[::-1].copy())
    one, another = contexts(rows), contexts(replace(rows, log=log))
    assert list(one) == list(another)
    assert len(one) == 6
    for name, f in one.items():
        np.testing.assert_array_equal(f, another[name])
        assert (f.mean(), f.std()) == (pytest.approx(0.0, abs=1e-9), pytest.approx(1.0))


def test_features_are_contexts_and_gaps_in_them_are_filled() -> None:
    rows = world(2, n=300).rows
    features = np.random.default_rng(0).normal(size=(rows.log.candidates, 2))
    features[::7, 0] = np.nan
    found = control_variates(replace(rows, features=features), expected_weights(rows))
    assert {"feature 0", "feature 1"} <= {test.name for test in found.tests} | set(found.too_few)


def test_control_variates_take_noise_out_and_move_nothing_in_the_mean() -> None:
    """Over 100 logs: ipw stays where the truth is, and its standard error falls in nearly all of them."""
    apart, missed, narrower = [], [], 0
    for seed in range(100):
        rows = world(seed, n=500).rows
        influence = weights(rows) * rows.log.cost
        after = controlled(Valued(float(influence.mean()), influence), rows)
        assert rows.predicted is not None
        truth = float(rows.log.sums(rows.target * rows.predicted).mean()) / 1.1 * np.exp(0.5 * 0.3**2)
        apart.append(after.value - influence.mean())
        missed.append(after.value / truth - 1)
        narrower += block_se(after.influence, 20) < block_se(influence, 20)
    assert abs(np.mean(apart)) < 3 * np.std(apart) / 10
    assert abs(np.mean(missed)) < 3 * np.std(missed) / 10
    assert narrower > 70


def test_what_control_variates_explain_whole_is_known_whole() -> None:
    """Of a constant cost, ipw says the constant times the mean weight: all of its error is that of the weights."""
    rows = world(8, n=500).rows
    w = weights(rows)
    after = controlled(Valued(float(7.0 * w.mean()), 7.0 * w), rows)
    assert after.value == pytest.approx(7.0)
    assert after.value != pytest.approx(7.0 * w.mean(), rel=1e-3)
    np.testing.assert_allclose(after.influence, 7.0)


def test_the_logging_policy_itself_has_nothing_to_control() -> None:
    rows = world(4, n=300).rows
    assert rows.log.logging is not None
    same = replace(rows, target=rows.log.logging)
    valued = Valued(1.0, rows.log.cost)
    assert controlled(valued, same) is valued


def test_all_of_it_is_ready_for_json() -> None:
    made = world(5, n=300)
    quantiles = {0.9: np.full(300, 4.0)}
    for full in (True, False):
        log = made.rows.log if full else replace(made.rows.log, logging=None)
        found = diagnose(replace(made.rows, log=log), 12, made.buckets, made.instance, quantiles)
        text = json.dumps(found.to_dict(), allow_nan=False)
        assert json.loads(text)["verdict"]["sentence"] == found.verdict.sentence
        assert json.loads(text)["estimand"] == "one-step, logged states"
        assert bool(found.notes) != full


def test_a_model_that_says_nothing_of_a_choice_is_noted_and_the_weights_are_still_judged() -> None:
    rows = world(6).rows
    assert rows.predicted is not None
    holes = rows.predicted.copy()
    holes[rows.log.chosen[0]] = np.nan
    found = diagnose(replace(rows, predicted=holes), 100)
    assert found.prediction is None
    assert found.notes[0].startswith("the model is not looked at: the prediction is not finite for a chosen candidate")
    assert found.verdict.word == "usable"


def test_labels_of_another_length_are_refused() -> None:
    made = world(7, n=200)
    with pytest.raises(DataError, match=r"bucket 'load' has shape \(3,\); expected \(200,\)"):
        diagnose(made.rows, 8, {"load": np.zeros(3, np.int64)})
    with pytest.raises(DataError, match=r"instance has shape \(200,\); expected"):
        diagnose(made.rows, 8, None, np.zeros(200, np.int64))
    with pytest.raises(ConfigError, match="block 200 does not fit"):
        diagnose(made.rows, 200)


def test_an_error_of_too_few_blocks_is_none_rather_than_0() -> None:
    rows = world(0).rows
    n = rows.log.decisions
    few = {"load": (np.arange(n) < 3).astype(np.int64)}
    found = coverage(rows.log.cost, {0.9: np.full(n, np.median(rows.log.cost))}, n // 12, few)
    assert [np.isnan(each.se) for each in found] == [False, False, True]
    assert all(np.isnan(each.bias_se) for each in prediction(rows, n // 3, {}).residuals)
    assert "NaN" not in json.dumps(diagnose(rows, n // 3).to_dict())
    assert Sums.of(Groups.one(3, 50), np.ones(3), np.ones(3)).variance.item() == 3  # tests fall back on the terms


def test_labels_of_few_bits_make_as_many_cells() -> None:
    label = np.arange(1000) % 100
    small, large = Groups.of(label.astype(np.int8), 50), Groups.of(label, 50)
    assert np.array_equal(small.cell, large.cell)


def test_a_quantile_that_is_not_foretold_is_no_miss() -> None:
    cost = np.arange(100.0)
    for foretold in (np.where(cost > 50, np.nan, 99.0), np.ones(3)):
        with pytest.raises(DataError, match=r"quantile 0.9 is foretold with shape .* expected \(100,\), all finite"):
            coverage(cost, {0.9: foretold}, 10, {})
