"""Each diagnostic's error against its closed form, and what must not move it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from faulty_logs import world
from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.blocks import block_se
from lodestar.pipeline.estimation.diagnostics.balance import bucket_balance, instance_balance
from lodestar.pipeline.estimation.diagnostics.control_variates import contexts, control_variates
from lodestar.pipeline.estimation.diagnostics.groups import Groups
from lodestar.pipeline.estimation.diagnostics.mean_zero import Sums, family
from lodestar.pipeline.estimation.diagnostics.prediction import prediction
from lodestar.pipeline.estimation.diagnostics.propensity import calibration
from lodestar.pipeline.estimation.diagnostics.support import expected_weights, support
from lodestar.pipeline.estimation.diagnostics.weights import tail_effective_sample_size, weigh
from lodestar.pipeline.estimation.json_ready import json_ready
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput, weights

Floats = NDArray[np.float64]


def never_there(n: int) -> tuple[OneStepInput, Floats]:
    """Two candidates that the log draws, 52 % of the time the first, and one that it never takes."""
    chosen = 3 * np.arange(n) + (np.arange(n) % 25 >= 13)
    logging = np.tile([0.5, 0.5, 0.0], n)
    log = LoggedDecisions(np.ones(n), 3 * np.arange(n + 1), chosen, np.full(n, 0.5), logging)
    return OneStepInput(log, np.tile([0.55, 0.25, 0.2], n)), logging


def test_the_error_of_the_weight_on_an_instance_is_that_of_its_draws() -> None:
    """Σ Var(w 1{j}) = Σ (π² / p − π²), which is known, and here more than blocks of such even draws show."""
    n = 5000
    rows, _ = never_there(n)
    expected = expected_weights(rows)
    found = instance_balance(rows.log, expected, Groups.of_candidates(np.tile([0, 1, 2], n), rows.log, 50))
    z = {test.name: test.z for test in found.tests}
    assert z["instance 0"] == pytest.approx((1.1 * 0.52 * n - 0.55 * n) / np.sqrt(n * (0.55**2 / 0.5 - 0.55**2)))
    assert z["instance 1"] == pytest.approx((0.5 * 0.48 * n - 0.25 * n) / np.sqrt(n * (0.25**2 / 0.5 - 0.25**2)))


def test_what_the_log_never_chooses_is_missing_from_no_bucket() -> None:
    rows, _ = never_there(5000)
    found = bucket_balance(expected_weights(rows), "half", np.arange(5000) // 2500)
    assert not found.fails
    assert [test.off for test in found.tests] == pytest.approx([(0.52 * 1.1 + 0.48 * 0.5) / 0.8 - 1] * 2)
    with pytest.raises(DataError, match="a number of 0 or more each"):
        bucket_balance(expected_weights(rows), "half", np.arange(5000) // 2500 - 1)


def test_the_error_of_a_control_variate_is_the_larger_of_that_of_its_draws_and_of_its_blocks() -> None:
    rows = world(9, n=2000).rows
    expected = expected_weights(rows)
    assert expected.variance is not None
    tested = {test.name: test.z for test in control_variates(rows, expected).tests}
    assert len(tested) > 3
    larger = set()
    for name, f in contexts(rows).items():
        if name in tested:
            terms = f * expected.surplus
            of_draws, of_blocks = np.sum(f**2 * expected.variance), 50 * terms.reshape(50, 40).sum(axis=1).var(ddof=1)
            assert tested[name] == pytest.approx(terms.sum() / np.sqrt(max(of_draws, of_blocks)))
            larger.add(bool(of_draws > of_blocks))
    assert larger == {True, False}


def test_the_largest_term_of_a_group_may_be_one_below_0() -> None:
    groups = Groups.of(np.array([0, 0, 1, 1]), 2)
    assert groups.largest(np.array([1.0, -3.0, 2.0, 0.5])).tolist() == [3.0, 2.0]


def test_of_groups_that_luck_explains_the_furthest_off_comes_first() -> None:
    sums = Sums(np.full(3, 99), np.array([1.0, -9.0, 4.0]), np.full(3, 99.0), np.full(3, 100.0), np.ones(3))
    found = family("weight", ["a", "b", "c"], sums, 50)
    assert {test.p for test in found.tests} == {1.0}
    assert [test.name for test in found.tests] == ["b", "c", "a"]


def test_pick_rates_by_instance_err_as_draws_do() -> None:
    n = 5000
    rows, logging = never_there(n)
    found = calibration(rows.log, logging, Groups.of_candidates(np.tile([0, 1, 2], n), rows.log, 50)).families[1]
    z = {test.name: test.z for test in found.tests}
    assert (z["instance 0"], z["instance 1"]) == pytest.approx((0.02 * n / np.sqrt(n / 4), -0.02 * n / np.sqrt(n / 4)))


def test_a_draw_that_holds_for_a_while_is_no_miscalibration() -> None:
    """One coin for every 100 requests: the pick rate of the rare candidate is far off 20 % by luck."""
    failed = 0
    for seed in range(20):
        rare = np.repeat(np.random.default_rng(seed).random(50) < 0.2, 100)
        chosen, logging = 2 * np.arange(5000) + ~rare, np.tile([0.2, 0.8], 5000)
        log = LoggedDecisions(np.ones(5000), 2 * np.arange(5001), chosen, logging[chosen], logging)
        failed += calibration(log, logging, None).families[0].fails
    assert failed <= 1


def test_the_mean_weight_is_expected_to_lack_what_the_log_never_chooses() -> None:
    rows, _ = never_there(5000)
    found = weigh(rows.log.cost, expected_weights(rows))
    assert found.expected_mean == pytest.approx(0.8)
    variance = 0.55**2 / 0.5 + 0.25**2 / 0.5 - 0.8**2
    assert found.z == pytest.approx((0.52 * 1.1 + 0.48 * 0.5 - 0.8) * np.sqrt(5000 / variance))


def test_tails_are_those_of_the_costs_in_order() -> None:
    random = np.random.default_rng(0)
    cost, w = random.random(400), random.exponential(size=400)
    plain = LoggedDecisions(cost, np.arange(401), np.arange(400), np.ones(400))
    found = weigh(cost, expected_weights(OneStepInput(plain, np.ones(400))))
    assert found.tail_ess == {"p90": 40.0, "p99": 4.0}
    heavy = LoggedDecisions(cost, 2 * np.arange(401), 2 * np.arange(400), np.clip(0.9 * w / w.max(), 1e-3, 1))
    rows = OneStepInput(heavy, np.tile([1.0, 0.0], 400))
    told = weigh(cost, expected_weights(rows)).tail_ess
    assert told == {f"p{100 * q:g}": tail_effective_sample_size(cost, weights(rows), q) for q in (0.9, 0.99)}


def test_rounding_is_no_missing_support() -> None:
    n = 30
    third = np.full(3 * n, 1 / 3)
    third[::3] = 1 - 2 / 3 - 1e-15
    log = LoggedDecisions(np.ones(n), 3 * np.arange(n + 1), 3 * np.arange(n) + 1, third[1::3], third)
    rows = OneStepInput(log, third)
    assert (expected_weights(rows).mass < 1).any()
    found = support(rows, expected_weights(rows))
    assert (found.unsupported_ratio, found.decisions) == (0.0, 0)


def test_the_error_of_the_bias_of_a_model_is_by_blocks() -> None:
    rows = world(1).rows
    assert rows.predicted is not None
    residual = rows.log.cost - rows.predicted[rows.log.chosen]
    assert prediction(rows, 100, {}).bias_se == pytest.approx(block_se(residual, 100))


def test_a_feature_counts_by_its_mean_over_the_candidates() -> None:
    rows = world(2, n=300).rows
    feature = np.random.default_rng(0).normal(size=rows.log.candidates)
    means = np.array([each.mean() for each in np.split(feature, rows.log.offsets[1:-1])])
    found = contexts(replace(rows, features=feature[:, None]))["feature 0"]
    assert found == pytest.approx((means - means.mean()) / means.std())
    assert not control_variates(rows, expected_weights(rows)).signed


def test_infinity_has_its_sign_in_a_document() -> None:
    assert json_ready((np.inf, -np.inf, float("nan"), 1.5)) == ["inf", "-inf", None, 1.5]


@pytest.mark.parametrize("weight", [0.1, 0.7, 1 / 3])
def test_a_tail_of_equal_weights_begins_where_that_of_the_costs_does_whatever_their_sums_are_rounded_to(
    weight: float,
) -> None:
    for n in range(3, 40):
        w, cost = np.full(n, weight), np.arange(float(n))
        for k in range(1, n):
            assert tail_effective_sample_size(cost, w, k / n) == pytest.approx(n - k)
