"""Traps of other libraries, each of which would come back unnoticed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lodestar.pipeline.estimation.blocks import block_se
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.estimators.dm import dm
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.estimators.dr_os import dr_os
from lodestar.pipeline.estimation.estimators.ipw import ipw
from lodestar.pipeline.estimation.estimators.mipw import mipw
from lodestar.pipeline.estimation.estimators.sg_dr import sg_dr
from lodestar.pipeline.estimation.estimators.sg_ipw import sg_ipw
from lodestar.pipeline.estimation.estimators.sndr import sndr
from lodestar.pipeline.estimation.estimators.snipw import snipw
from lodestar.pipeline.estimation.estimators.switch_dr import switch_dr
from lodestar.pipeline.estimation.intervals.block_bootstrap import block_bootstrap_mean
from lodestar.pipeline.estimation.intervals.linearised import linearised_interval
from lodestar.pipeline.estimation.intervals.ratio_bootstrap import ratio_bootstrap
from lodestar.pipeline.estimation.intervals.simultaneous import compared
from lodestar.pipeline.estimation.one_step import (
    OneStepInput,
    Valued,
    direct_values,
    missing_weight,
    residuals,
    weights,
)
from lodestar.pipeline.estimation.resampling import resamples
from one_step_world import changed, three_decisions, world

TUNED = (switch_dr, dr_os, sg_ipw, sg_dr)


def other_policy(rows: OneStepInput) -> OneStepInput:
    """A policy that always takes the last candidate: its weights are as large as they get."""
    last = np.zeros(rows.log.candidates)
    last[rows.log.offsets[1:] - 1] = 1.0
    return replace(rows, target=last)


def test_self_normalised_estimators_take_no_hyper_parameter_that_they_would_ignore() -> None:
    for estimator in (snipw, sndr):
        assert list(inspect.signature(estimator).parameters) == ["rows"]


def test_no_default_makes_a_shrunk_estimator_the_model_alone() -> None:
    for estimator in (dr_os, switch_dr, sg_dr):
        towards_dm = []  # 0: dr, 1: the model alone
        for seed in range(20):
            rows, _ = world(seed)
            found = estimator(rows)
            assert found.lambda_ is not None
            assert found.path
            towards_dm.append(abs(found.value - dr(rows).value) / abs(dm(rows).value - dr(rows).value))
        assert np.mean(towards_dm) < 0.1
        assert max(towards_dm) < 0.75


def test_intervals_of_ratios_do_not_freeze_the_denominator() -> None:
    rows, _ = world(11, n=2000)
    cost, w = rows.log.cost + 500.0, weights(rows)  # far from 0, a frozen denominator is far too wide
    rows = changed(rows, cost=cost)
    draws = np.random.default_rng(0).multinomial(2000, np.full(2000, 1 / 2000), 2000).astype(np.float64)
    by_hand = {
        "snipw": (draws @ (w * cost)) / (draws @ w),
        "sndr": draws @ direct_values(rows) / 2000 + (draws @ (w * residuals(rows))) / (draws @ w),
    }
    for name, values in by_hand.items():
        assert block_se(estimators()[name](rows).influence, 1) == pytest.approx(values.std(), rel=0.08)
    frozen = w * cost / w.mean()
    assert block_se(frozen, 1) > 1.3 * by_hand["snipw"].std()


@pytest.mark.parametrize("estimator", TUNED)
def test_tuning_for_one_policy_leaves_nothing_for_the_next(estimator: Callable[[OneStepInput], Valued]) -> None:
    def log() -> OneStepInput:
        rows, _ = world(3)
        return replace(rows, predicted=np.full_like(rows.target, rows.log.cost.mean()))

    def as_logged() -> OneStepInput:
        """The policy that logged: all weights are 1, and none is shrunk."""
        logging = log().log.logging
        assert logging is not None
        return replace(log(), target=logging)

    rows, other = log(), as_logged()
    found = [estimator(each) for each in (rows, other, rows, log(), as_logged())]
    first, second, again, fresh, fresh_second = ((each.value, each.lambda_, each.path) for each in found)
    assert first == again == fresh
    assert second == fresh_second
    assert found[0].lambda_ != found[1].lambda_  # or a kept hyper-parameter would not be noticed here


def test_what_was_computed_for_one_input_is_not_used_for_a_changed_one() -> None:
    rows, _ = world(0)
    assert rows.predicted is not None
    before = dr(rows).value
    for altered in (
        changed(rows, cost=rows.log.cost + 1.0),
        replace(rows, predicted=rows.predicted / 2),
        other_policy(rows),
    ):
        fresh = OneStepInput(altered.log, altered.target, altered.predicted)
        assert dr(altered).value == dr(fresh).value != before
    with pytest.raises(ValueError, match="read-only"):
        weights(rows)[0] = 5.0


def test_half_widths_count_neighbours_as_one() -> None:
    rows, _ = world(0, n=2000)
    for estimator in TUNED:
        of_blocks, of_rows = estimator(rows, block=40).path, estimator(rows, block=1).path
        assert max(each.half_width for each in of_blocks) > 1.3 * max(each.half_width for each in of_rows)


def test_clipping_raw_costs_flatters_and_is_not_the_default() -> None:
    rows = replace(three_decisions(), target=np.array([1.0, 0.0, 0.0, 1.0, 1.0]))  # weights 2, 4 and 1
    assert ipw(rows).lambda_ is None
    assert ipw(rows).notes == ()
    raw, centred = ipw(rows, 2.0, centred=False), ipw(rows, 2.0)
    assert raw.value == pytest.approx((2 * 100 + 2 * 300 + 200) / 3)
    assert raw.value < ipw(rows).value
    assert raw.notes == (
        "costs are not centred: weight that is cut off counts as a cost of 0, which flatters the policy",
    )
    assert centred.value == pytest.approx(200 + (2 * -100 + 2 * 100) / 3)
    assert centred.notes == (
        "lambda_ 2 cuts off 28.6% of the weight and lowers the value by 66.67, which flatters the policy",
    )


def test_weight_that_is_cut_off_counts_as_the_mean_logged_cost_not_as_free() -> None:
    rows, _ = world(0)
    policy = other_policy(rows)  # the slowest candidate
    assert ipw(policy, lambda_=0.0).value == pytest.approx(rows.log.cost.mean())
    assert sg_ipw(policy, lambda_=1.0).value > rows.log.cost.mean()
    assert ipw(policy, lambda_=0.0, centred=False).value == 0.0


def test_raw_costs_that_are_asked_for_are_tuned_raw() -> None:
    rows, _ = world(0)
    found = sg_ipw(rows, centred=False)
    assert found.value >= ipw(rows).value
    for each in found.path:
        assert each.value == sg_ipw(rows, each.lambda_, centred=False).value


def test_a_cut_that_makes_a_policy_look_worse_says_so() -> None:
    rows = changed(three_decisions(), cost=np.array([100.0, 10.0, 200.0]))
    assert dr(rows, lambda_=1.0).notes == ("lambda_ 1 cuts off 40.0% of the weight and raises the value by 93.33",)


@pytest.mark.parametrize("bias", [0.7, 1.0, 1.4])
def test_tuning_never_makes_a_policy_look_better_than_the_whole_weights_do(bias: float) -> None:
    for seed in range(10):
        rows, _ = world(seed)
        assert rows.predicted is not None
        rows = replace(rows, predicted=rows.predicted * bias)
        for policy in (rows, other_policy(rows)):
            for estimator in (switch_dr, dr_os, sg_dr):
                assert estimator(policy).value >= dr(policy).value
            assert sg_ipw(policy).value >= sg_ipw(policy, lambda_=0.0).value


def test_a_hyper_parameter_that_widens_the_interval_is_never_chosen() -> None:
    """With a model that is wrong in level, equal weights are noisier than right ones, and far off."""
    random = np.random.default_rng(0)
    rows, _ = world(3, n=2000)
    assert rows.predicted is not None
    rows = replace(rows, predicted=rows.predicted * 0.9 + random.normal(0, 1, rows.log.candidates))
    found = 0
    for estimator in TUNED:
        valued = estimator(rows)
        by_lambda = {each.lambda_: each for each in valued.path}
        whole = by_lambda[0.0 if 0.0 in by_lambda else np.inf]
        wider = [each for each in valued.path if each.half_width > whole.half_width]
        found += len(wider)
        assert not any(each.accepted for each in wider)
        assert valued.lambda_ is not None
        assert by_lambda[valued.lambda_].half_width <= whole.half_width
    assert found


def test_the_share_that_is_cut_off_does_not_count_what_small_weights_are_raised_by() -> None:
    rows = replace(three_decisions(), target=np.array([1.0, 0.0, 0.125, 0.875, 1.0]))
    rows = changed(rows, propensity=np.array([0.5, 0.875, 2 / 3]), logging=None, chosen=np.array([0, 2, 4]))
    w, shrunk = np.array([2.0, 1 / 7, 1.5]), np.array([4 / 3, 1 / 4, 6 / 5])
    assert weights(rows) == pytest.approx(w)
    cut = ((2 - 4 / 3) + (1.5 - 6 / 5)) / w.sum()
    found = sg_dr(rows, lambda_=0.5)
    assert found.value == pytest.approx(dm(rows).value + np.mean(shrunk * residuals(rows)))
    assert f"cuts off {cut:.1%} of the weight" in found.notes[0]


def test_little_that_is_missing_from_the_mean_weight_is_not_worth_a_note_and_luck_is_none() -> None:
    assert missing_weight(np.full(10_000, 0.991)) == ()
    assert "the mean weight is 0.989" in missing_weight(np.full(10_000, 0.989))[0]
    unsure = np.tile([0.0, 1.9], 50)  # 0.95, with a standard error of 0.095
    assert missing_weight(unsure) == ()
    assert "the mean weight is 0.95" in missing_weight(np.tile(unsure, 100))[0]


def test_no_weight_is_lost_where_the_policy_never_makes_some_of_the_decisions() -> None:
    """0 / 0 in the formulas of both shrinkages, at either end."""
    rows = other_policy(world(0)[0])
    assert (weights(rows) == 0).any()
    assert dr_os(rows, lambda_=0.0).value == pytest.approx(dm(rows).value)
    shared = weights(rows) > 0
    assert sg_dr(rows, lambda_=1.0).value == pytest.approx(dm(rows).value + np.mean(shared * residuals(rows)))


def test_what_had_no_hyper_parameter_names_none() -> None:
    rows = three_decisions()
    for estimator in (dm, ipw, snipw, dr, sndr, mipw):
        assert estimator(rows).lambda_ is None
    assert dr(rows, lambda_=1.5).lambda_ == ipw(rows, lambda_=1.5).lambda_ == 1.5


def test_raw_costs_say_that_they_flatter_just_where_weight_is_cut_off() -> None:
    rows = three_decisions()  # weights are 2, 2 and 1
    for lambda_, told in ((0.0, True), (1.5, True), (2.0, False)):
        assert any("flatters" in note for note in ipw(rows, lambda_, centred=False).notes) is told


def test_choices_that_the_log_never_makes_count_as_a_cost_of_0_and_raw_weighting_says_so() -> None:
    rows, _ = world(5)
    assert ipw(rows).notes == mipw(rows).notes == ()
    never = rows.target.copy()
    never[rows.log.chosen] = 0.0
    never /= np.repeat(rows.log.sums(never), rows.log.counts)
    half = replace(rows, target=np.where(np.repeat(np.arange(800) < 400, 5), rows.target, never))
    for estimator in (ipw, mipw):
        assert estimator(half).value < estimator(rows).value
        assert "which flatters the policy" in estimator(half).notes[0]


def test_intervals_draw_enough_by_default() -> None:
    """A hundred draws, obp's default, leave the ends of an interval to luck."""
    for drawn in (ratio_bootstrap, compared, block_bootstrap_mean, resamples):
        assert inspect.signature(drawn).parameters["draws"].default >= 1000


def test_intervals_are_by_blocks_by_default() -> None:
    """Draws of single requests, obp's only ones, speak of this very log alone."""
    rows, _ = world(2, n=1200)
    w, cost, value = weights(rows), rows.log.cost, snipw(rows)
    both = {"policy": value, "log": Valued(float(cost.mean()), cost)}
    intervals: list[Callable[[int | None], object]] = [
        lambda block: ratio_bootstrap(w * cost, w, block=block),
        lambda block: compared(both, "log", block=block),
        lambda block: linearised_interval(value.value, value.influence, block),
        lambda block: estimate(rows, "policy", "snipw", block),
        *(lambda block, tuned=tuned: tuned(rows, block=block).path for tuned in TUNED),
    ]
    for interval in intervals:
        assert interval(None) == interval(100) != interval(1)
