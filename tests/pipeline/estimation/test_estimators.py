from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np
import pytest

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import block_se
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.estimators.dm import dm
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.estimators.dr_os import dr_os
from lodestar.pipeline.estimation.estimators.ipw import ipw
from lodestar.pipeline.estimation.estimators.mipw import mipw
from lodestar.pipeline.estimation.estimators.mrdr import mrdr, mrdr_weights
from lodestar.pipeline.estimation.estimators.sg_dr import sg_dr
from lodestar.pipeline.estimation.estimators.sg_ipw import sg_ipw
from lodestar.pipeline.estimation.estimators.sndr import sndr
from lodestar.pipeline.estimation.estimators.snipw import snipw
from lodestar.pipeline.estimation.estimators.switch_dr import switch_dr
from lodestar.pipeline.estimation.least_squares import linear_costs, weighted_least_squares
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import ESTIMAND, OneStepInput, Valued, weights
from lodestar.pipeline.estimation.tails.support import effective_size
from one_step_world import changed, population_value, three_decisions, world

REPETITIONS = 250
BLOCK = 40

#: Estimators with hyper-parameters that leave no bias, or next to none, in this world.
UNBIASED: dict[str, Callable[[OneStepInput], Valued]] = {
    **{name: each for name, each in estimators().items() if name != "dm"},
    "ipw, centred": lambda rows: ipw(rows, lambda_=1e9),
    "sg-ipw, centred": lambda rows: sg_ipw(rows, lambda_=0.0),
}


def test_values_by_hand() -> None:
    rows = three_decisions()  # weights 2, 2, 1; residuals -10, 20, 10
    direct = (110 + 200 + 190) / 3
    assert dm(rows).value == pytest.approx(direct)
    assert ipw(rows).value == pytest.approx((2 * 100 + 2 * 300 + 200) / 3)
    assert snipw(rows).value == pytest.approx((2 * 100 + 2 * 300 + 200) / 5)
    assert dr(rows).value == pytest.approx((110 + 200 + 190 + 2 * -10 + 2 * 20 + 1 * 10) / 3)
    assert sndr(rows).value == pytest.approx(direct + (2 * -10 + 2 * 20 + 1 * 10) / 5)
    assert mipw(rows).value == pytest.approx((1 * 100 + 2 * 300 + 1 * 200) / 3)


def test_values_with_a_hyper_parameter_by_hand() -> None:
    rows = three_decisions()
    direct = (110 + 200 + 190) / 3
    assert dr(rows, lambda_=1.5).value == pytest.approx(direct + (1.5 * -10 + 1.5 * 20 + 10) / 3)
    assert switch_dr(rows, lambda_=1.5).value == pytest.approx(direct + 10 / 3)
    assert switch_dr(rows, lambda_=2.0).value == dr(rows).value  # the weight that equals it counts
    assert dr_os(rows, lambda_=4.0).value == pytest.approx(direct + (1 * -10 + 1 * 20 + 0.8 * 10) / 3)
    assert sg_dr(rows, lambda_=0.5).value == pytest.approx(direct + (4 / 3 * -10 + 4 / 3 * 20 + 10) / 3)
    assert ipw(rows, lambda_=1.5).value == pytest.approx(200 + (1.5 * -100 + 1.5 * 100 + 0) / 3)
    assert ipw(rows, lambda_=1.5, centred=False).value == pytest.approx((1.5 * 100 + 1.5 * 300 + 200) / 3)
    assert sg_ipw(rows, lambda_=0.5).value == pytest.approx(200 + (4 / 3 * -100 + 4 / 3 * 100 + 0) / 3)
    assert sg_ipw(rows, lambda_=0.5, centred=False).value == pytest.approx((4 / 3 * 100 + 4 / 3 * 300 + 200) / 3)


def test_mrdr_is_dr_with_the_weighted_fit_of_the_other_blocks() -> None:
    rows, _ = world(1, n=60)
    log = rows.log
    p = log.propensity
    counts = rows.target[log.chosen] * (1 - p) / p**2
    assert mrdr_weights(rows) == pytest.approx(counts)
    table = np.column_stack([rows.predicted, rows.features])
    fitted = np.empty(log.candidates)
    for held in (slice(0, 30), slice(30, 60)):
        others = np.ones(60, dtype=bool)
        others[held] = False
        root = np.sqrt(counts[others])[:, None]
        basis = np.column_stack([np.ones(60), table[log.chosen]])[others]
        solved = np.linalg.lstsq(root * basis, root[:, 0] * log.cost[others], rcond=None)[0]
        place = slice(held.start * 5, held.stop * 5)
        fitted[place] = np.column_stack([np.ones(150), table[place]]) @ solved
    assert mrdr(rows, folds=2).value == pytest.approx(dr(replace(rows, predicted=fitted)).value)


def test_mrdr_leaves_out_of_its_fit_what_was_in_flight_at_the_border_of_a_block() -> None:
    rows, _ = world(1, n=60)
    fitted = linear_costs(rows.log, np.column_stack([rows.predicted, rows.features]), mrdr_weights(rows), 2, 5)
    assert mrdr(rows, folds=2, gap=5).value == dr(replace(rows, predicted=fitted)).value
    assert mrdr(rows, folds=2, gap=5).value != mrdr(rows, folds=2).value


def test_a_propensity_that_rounding_puts_above_1_counts_for_nothing_in_the_fit_of_mrdr() -> None:
    rows = changed(three_decisions(), propensity=np.array([0.5, 0.25, 1 + 1e-10]), logging=None)
    assert mrdr_weights(rows).tolist() == [2.0, 6.0, 0.0]


def test_diagnostics_by_hand() -> None:
    w = weights(three_decisions())
    assert (effective_size(w), w.mean(), w.max()) == (pytest.approx(25 / 9), pytest.approx(5 / 3), 2.0)
    assert ESTIMAND == "one-step, logged states"


def test_standard_errors_by_hand() -> None:
    rows = three_decisions()
    rows_of_dr = np.array([110 - 20, 200 + 40, 190 + 10])
    assert block_se(dr(rows).influence, 1) == pytest.approx(rows_of_dr.std(ddof=1) / np.sqrt(3))
    influence = np.array([2 * (100 - 200), 2 * (300 - 200), 0.0]) / (5 / 3)
    assert block_se(snipw(rows).influence, 1) == pytest.approx(influence.std(ddof=1) / np.sqrt(3))
    ratio = (2 * -10 + 2 * 20 + 1 * 10) / 5
    of_ratio = np.array([2 * (-10 - ratio), 2 * (20 - ratio), 10 - ratio]) / (5 / 3) + np.array([110, 200, 190])
    assert block_se(sndr(rows).influence, 1) == pytest.approx(of_ratio.std(ddof=1) / np.sqrt(3))


@lru_cache
def repeated(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and standard errors over many logs."""
    found = [UNBIASED[name](logs(seed)) for seed in range(REPETITIONS)]
    return np.array([each.value for each in found]), np.array([block_se(each.influence, BLOCK) for each in found])


@cache
def logs(seed: int) -> OneStepInput:
    return world(seed, n=2000)[0]


@pytest.mark.parametrize("name", UNBIASED)
def test_intervals_cover_the_known_truth(name: str) -> None:
    truth = population_value()
    values, errors = repeated(name)
    covered = np.mean(np.abs(values - truth) <= 1.96 * errors)
    assert 0.90 <= covered <= 0.99
    assert values.mean() == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize("name", UNBIASED)
def test_standard_errors_are_the_spread_over_logs(name: str) -> None:
    values, errors = repeated(name)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(ddof=1), rel=0.15)


def test_requests_taken_as_independent_cover_too_little() -> None:
    truth = population_value()
    found = [dr(world(seed)[0]) for seed in range(REPETITIONS)]
    assert np.mean([abs(each.value - truth) <= 1.96 * block_se(each.influence, 1) for each in found]) < 0.7


def test_dm_is_as_wrong_as_its_model_and_dr_is_not() -> None:
    pairs = [world(seed) for seed in range(100)]
    error_of_dm = np.mean([dm(rows).value - truth for rows, truth in pairs])
    error_of_dr = np.mean([dr(rows).value - truth for rows, truth in pairs])
    assert error_of_dm > 5
    assert abs(error_of_dr) < 1


def test_mrdr_has_a_smaller_error_than_dr_with_the_wrong_model() -> None:
    pairs = [world(seed) for seed in range(100)]
    of_mrdr = np.mean([(mrdr(rows).value - truth) ** 2 for rows, truth in pairs])
    of_dr = np.mean([(dr(rows).value - truth) ** 2 for rows, truth in pairs])
    assert of_mrdr < 0.8 * of_dr


def test_no_weight_is_clipped() -> None:
    rows = changed(three_decisions(), propensity=np.array([1e-6, 0.25, 1.0]), logging=None)
    assert weights(rows).max() == 1e6
    assert ipw(rows).value == pytest.approx((1e6 * 100 + 2 * 300 + 200) / 3)
    assert dr(rows).value == pytest.approx((110 + 200 + 190 - 1e6 * 10 + 2 * 20 + 10) / 3)


def test_the_logging_policy_itself_is_worth_the_plain_mean() -> None:
    rows, _ = world(7)
    assert rows.log.logging is not None
    rows = replace(rows, target=rows.log.logging)
    for estimator in (ipw, snipw, mipw):
        assert estimator(rows).value == pytest.approx(rows.log.cost.mean())
    w = weights(rows)
    assert (effective_size(w), w.mean(), w.max()) == (pytest.approx(800), pytest.approx(1), pytest.approx(1))


def test_snipw_needs_no_model() -> None:
    rows, _ = world(3)
    blind = replace(rows, predicted=np.full_like(rows.target, np.nan))
    assert snipw(blind).value == snipw(rows).value
    assert (snipw(blind).influence == snipw(rows).influence).all()
    for estimator in (dm, dr, sndr, switch_dr, dr_os, sg_dr):
        with pytest.raises(DataError, match="prediction is not finite"):
            estimator(blind)
        with pytest.raises(DataError, match=r"no prediction is given; train a model .* or use snipw"):
            estimator(replace(rows, predicted=None))


def test_a_choice_of_which_the_model_says_nothing_is_named_though_the_policy_never_makes_it() -> None:
    rows = three_decisions()
    holes = replace(
        rows, target=np.array([0.0, 1.0, 0.5, 0.5, 1.0]), predicted=np.array([np.nan, 210, 120, 280, 190.0])
    )
    assert dm(holes).value == pytest.approx((210 + 200 + 190) / 3)
    for estimator in (dr, sndr, switch_dr, dr_os, sg_dr):
        with pytest.raises(DataError, match="the prediction is not finite for a chosen candidate"):
            estimator(holes)


def test_a_policy_that_shares_no_decision_is_refused_by_all_but_the_model_alone() -> None:
    log = LoggedDecisions(
        np.array([100.0, 300.0, 200.0]), np.arange(4) * 2, np.array([1, 3, 5]), np.full(3, 0.5), np.full(6, 0.5)
    )
    rows = OneStepInput(log, np.tile([1.0, 0.0], 3), np.full(6, 150.0), None, np.tile([0, 1], 3))
    for name, estimator in estimators().items():
        if name != "dm":
            with pytest.raises(DataError, match=f"shares none of the 3 logged decisions, so {name} has .* use dm"):
                estimator(rows)
    for given_one in (dr, switch_dr, dr_os, sg_dr):
        with pytest.raises(DataError, match="shares none of the 3 logged decisions"):
            given_one(rows, 0.5)
    assert dm(rows).value == 150.0


def test_a_log_of_costs_and_propensities_alone_is_valued_or_refused_in_words() -> None:
    rows, _ = world(3)
    bare = OneStepInput(changed(rows, logging=None).log, rows.target)
    for name, estimator in estimators().items():
        if name in {"ipw", "snipw", "sg-ipw"}:
            found = estimator(bare)
            assert np.isfinite(found.value)
            assert found.influence.shape == (800,)
        else:
            with pytest.raises(DataError, match="use snipw"):
                estimator(bare)


def test_what_an_estimator_lacks_is_named_with_the_next_step() -> None:
    rows, _ = world(3)
    with pytest.raises(DataError, match=r"mipw needs the embedding .* or use snipw"):
        mipw(replace(rows, embedding=None))
    with pytest.raises(DataError, match=r"logging probability of every candidate.*log all of them, or use snipw"):
        mipw(changed(rows, logging=None))
    with pytest.raises(DataError, match="neither a prediction nor features are given"):
        mrdr(replace(rows, predicted=None, features=None))
    with pytest.raises(DataError, match="mrdr cannot fit its model: no row has weight"):
        mrdr(changed(rows, propensity=np.ones(800), logging=None))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: changed(rows, propensity=np.array([0.5, 0.0, 1.0])), "propensity must lie above 0"),
        (lambda rows: changed(rows, propensity=np.array([0.5, np.nan, 1.0])), "propensity must lie above 0"),
        (
            lambda rows: changed(rows, propensity=np.array([0.5, 1.5, 1.0])),
            "propensity must lie above 0 and at most at 1",
        ),
        (lambda rows: changed(rows, chosen=np.array([0, 1, 4])), "chosen must be a candidate of its own decision"),
        (lambda rows: changed(rows, chosen=np.array([0, 1])), r"chosen has shape \(2,\)"),
        (lambda rows: changed(rows, cost=np.array([1.0, np.nan, 1.0])), "cost is not finite"),
        (lambda rows: changed(rows, logging=np.array([0.4, 0.6, 0.75, 0.25, 1.0])), "is not its propensity"),
        (lambda rows: replace(rows, target=rows.target / 2), "sums to 0.5; expected 1"),
        (lambda rows: replace(rows, target=-rows.target), "must be 0 or more"),
        (lambda rows: replace(rows, target=np.array([0.0, 0.0, 0.5, 0.5, 1.0])), "sums to 0; expected 1"),
        (lambda rows: replace(rows, predicted=np.ones((5, 1))), r"predicted has shape \(5, 1\); expected \(5,\)"),
        (lambda rows: replace(rows, features=np.ones(5)), r"features have shape \(5,\); expected \(5, k\)"),
        (lambda rows: replace(rows, predicted=rows.predicted[:4]), r"predicted has shape \(4,\); expected \(5,\)"),
        (lambda rows: replace(rows, features=rows.features[:4]), r"features have shape \(4, 1\); expected \(5, k\)"),
        (lambda rows: replace(rows, embedding=rows.embedding[:4]), r"embedding has shape \(4,\); expected \(5,\)"),
    ],
)
def test_unusable_input_is_named(damage: Callable[[OneStepInput], OneStepInput], message: str) -> None:
    with pytest.raises(DataError, match=message):
        damage(three_decisions())


@pytest.mark.parametrize("block", [0, 3])
def test_a_block_that_leaves_no_spread_is_refused(block: int) -> None:
    with pytest.raises(ConfigError, match="expected at least two blocks in 3 requests"):
        block_se(snipw(three_decisions()).influence, block)


@pytest.mark.parametrize(
    ("estimator", "lambda_"),
    [(ipw, -1.0), (dr, math.nan), (switch_dr, -0.1), (dr_os, -2.0), (sg_ipw, 1.5), (sg_dr, -0.5)],
)
def test_a_hyper_parameter_out_of_range_is_named(estimator: Callable[..., Valued], lambda_: float) -> None:
    with pytest.raises(
        ConfigError, match=rf"lambda_ {lambda_:g} of {estimator.__name__.replace('_', '-')} does not fit"
    ):
        estimator(three_decisions(), lambda_=lambda_)


def test_candidates_of_one_kind_count_as_one() -> None:
    """Ten instances of two kinds: pooling leaves the value and takes most of the noise."""
    random = np.random.default_rng(4)
    n, m = 4000, 10
    kind = np.tile(np.arange(m) % 2, n)
    logging, target = random.dirichlet(np.ones(m), n), random.dirichlet(np.ones(m), n)
    column = (random.random((n, 1)) > logging.cumsum(axis=1)[:, :-1]).sum(axis=1)
    chosen = np.arange(n) * m + column
    cost = 100.0 + 50.0 * kind[chosen] + random.normal(0, 5, n)
    flat = logging.reshape(-1)
    log = LoggedDecisions(cost, np.arange(n + 1) * m, chosen, flat[chosen], flat)
    rows = OneStepInput(log, target.reshape(-1), embedding=kind)
    truth = float(np.mean(log.sums(rows.target * (100.0 + 50.0 * kind))))
    pooled, single = mipw(rows), ipw(rows)
    error, error_single = block_se(pooled.influence, 1), block_se(single.influence, 1)
    assert abs(pooled.value - truth) < 3 * error
    assert error < 0.25 * error_single


def test_least_squares_is_scikit_learns() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    features = np.column_stack([random.normal(size=(200, 3)), np.eye(4)[random.integers(0, 4, 200)], np.ones(200)])
    cost, weight = random.gamma(2.0, 1.0, 200), random.gamma(0.5, 1.0, 200) * (random.random(200) < 0.8)
    for ridge, peer in ((0.0, linear_model.LinearRegression()), (2.5, linear_model.Ridge(alpha=2.5))):
        peer.fit(features, cost, sample_weight=weight)
        ours = weighted_least_squares(features, cost, weight, ridge)
        assert ours.predict(features) == pytest.approx(peer.predict(features), abs=1e-9)


def test_without_propensities_only_the_model_speaks() -> None:
    rows, _ = world(3)
    blind = replace(rows, log=replace(rows.log, propensity=np.full(rows.log.decisions, np.nan), logging=None))
    assert dm(blind).value == dm(rows).value
    for estimator in (snipw, dr):
        with pytest.raises(DataError, match="no propensities, so its decisions cannot be weighed; use dm"):
            estimator(blind)
    some = rows.log.propensity.copy()
    some[0] = np.nan
    with pytest.raises(DataError, match="propensity must lie above 0"):
        replace(rows.log, propensity=some)
