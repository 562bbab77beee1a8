from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.blocks import block_se
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.estimators.ipw import ipw
from lodestar.pipeline.estimation.estimators.mipw import mipw
from lodestar.pipeline.estimation.estimators.sg_dr import sg_dr
from lodestar.pipeline.estimation.estimators.snipw import snipw
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.loggers import balanced, stratified, weighted_dr, weighted_ipw, weighted_snipw
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, direct_values, residuals, weights
from one_step_world import changed, probabilities

Floats = NDArray[np.float64]

REPETITIONS = 300


def two_loggers(seed: int, n: int = 400, m: int = 4) -> tuple[OneStepInput, Floats]:
    """A quarter of the decisions by a logger that hardly does what the policy does, the rest by one that does."""
    random = np.random.default_rng(seed)
    taste = random.normal(size=(n, m))
    expected = 100.0 + 30.0 * np.arange(m) + 10.0 * taste
    tastes = (taste + 0.8 * np.arange(m), taste - 0.6 * np.arange(m))
    loggers = np.stack([0.2 / m + 0.8 * probabilities(each, 1.0) for each in tastes])
    logger = (np.arange(n) % 4 > 0).astype(np.int64)
    behaviour = loggers[logger, np.arange(n)]
    column = (random.random((n, 1)) > behaviour.cumsum(axis=1)[:, :-1]).sum(axis=1)
    chosen = np.arange(n) * m + column
    log = LoggedDecisions(
        cost=expected.reshape(-1)[chosen] + random.normal(0, 5, n),
        offsets=np.arange(n + 1) * m,
        chosen=chosen,
        propensity=behaviour[np.arange(n), column],
        logger=logger,
    )
    target = probabilities(-expected, 20.0).reshape(-1)
    return OneStepInput(log, target, expected.reshape(-1) * 0.8), loggers[:, np.arange(n), column]


FORMS: dict[str, Callable[[OneStepInput, Floats], Valued]] = {
    "naive ipw": lambda rows, _: stratified(ipw(rows), rows.log),
    "naive snipw": lambda rows, _: stratified(snipw(rows), rows.log),
    "naive dr": lambda rows, _: stratified(dr(rows), rows.log),
    "balanced ipw": lambda rows, p: stratified(ipw(balanced(rows, p)), rows.log),
    "balanced snipw": lambda rows, p: stratified(snipw(balanced(rows, p)), rows.log),
    "balanced dr": lambda rows, p: stratified(dr(balanced(rows, p)), rows.log),
    "weighted ipw": lambda rows, _: weighted_ipw(rows),
    "weighted snipw": lambda rows, _: weighted_snipw(rows),
    "weighted dr": lambda rows, _: weighted_dr(rows),
}


@lru_cache
def repeated(name: str) -> tuple[Floats, Floats]:
    found = [FORMS[name](*logs(seed)) for seed in range(REPETITIONS)]
    return np.array([each.value for each in found]), np.array([block_se(each.influence, 1) for each in found])


@lru_cache(maxsize=REPETITIONS)
def logs(seed: int) -> tuple[OneStepInput, Floats]:
    return two_loggers(seed)


@lru_cache
def truth() -> float:
    found = []
    for seed in range(REPETITIONS, REPETITIONS + 200):
        rows, _ = two_loggers(seed)
        assert rows.predicted is not None
        found.append(rows.log.sums(rows.target * rows.predicted / 0.8).mean())
    return float(np.mean(found))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_right_on_average_and_covers(name: str) -> None:
    values, errors = repeated(name)
    assert abs(values.mean() - truth()) < 4 * values.std() / np.sqrt(REPETITIONS)
    assert 0.90 <= np.mean(np.abs(values - truth()) <= 1.96 * errors) <= 0.99
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(ddof=1), rel=0.15)


def test_balanced_has_the_least_noise_and_weighted_less_than_naive() -> None:
    noise = {name: repeated(name)[0].std() for name in FORMS}
    for estimator in ("ipw", "snipw", "dr"):
        assert noise[f"balanced {estimator}"] < noise[f"weighted {estimator}"] < noise[f"naive {estimator}"]


def test_the_error_within_loggers_is_smaller_than_over_all() -> None:
    rows, p = two_loggers(0)
    whole = ipw(balanced(rows, p))
    inside = stratified(whole, rows.log)
    assert inside.value == whole.value
    assert block_se(inside.influence, 1) < block_se(whole.influence, 1)
    for number in (0, 1):
        assert inside.influence[rows.log.logger == number].mean() == pytest.approx(0.0, abs=1e-9)


def test_obp_formulas() -> None:
    rows, p = two_loggers(1)
    log = rows.log
    assert log.logger is not None
    assert balanced(rows, p).log.propensity == pytest.approx(0.25 * p[0] + 0.75 * p[1])
    w, logger = weights(rows), log.logger
    counts = np.bincount(logger)

    def of_obp(spread: Floats) -> Floats:
        variance = np.array([np.var(spread[logger == k]) for k in range(2)])
        return np.asarray((log.decisions / (variance * np.sum(counts / variance)))[logger])

    costs, corrections = w * log.cost, w * residuals(rows)
    assert weighted_ipw(rows).value == pytest.approx(np.mean(costs * of_obp(costs)))
    direct = direct_values(rows)
    assert weighted_dr(rows).value == pytest.approx(np.mean(direct + corrections * of_obp(direct + corrections)))


def test_weighted_snipw_by_hand() -> None:
    rows, _ = two_loggers(2)
    log, w, values, counted = rows.log, weights(rows), [], []
    for number in (0, 1):
        inside = log.logger == number
        value = np.sum(w[inside] * log.cost[inside]) / w[inside].sum()
        values.append(value)
        counted.append(inside.sum() / np.var(w[inside] * (log.cost[inside] - value) / w[inside].mean()))
    assert weighted_snipw(rows).value == pytest.approx(np.average(values, weights=counted))


def test_one_logger_alone_is_no_mixture() -> None:
    rows, _ = two_loggers(3)
    one = changed(rows, logger=np.zeros(400, dtype=np.int64))
    assert ipw(balanced(one, one.log.propensity[None])).value == pytest.approx(ipw(rows).value)
    assert weighted_ipw(one).value == pytest.approx(ipw(rows).value)
    assert weighted_snipw(one).value == pytest.approx(snipw(rows).value)
    assert weighted_dr(one).value == pytest.approx(dr(rows).value)
    assert block_se(weighted_dr(one).influence, 10) == pytest.approx(block_se(dr(rows).influence, 10))


def test_a_logger_that_shares_nothing_is_not_trusted_alone() -> None:
    rows, _ = two_loggers(4)
    assert rows.log.logger is not None
    first = rows.log.offsets[:-1]
    column = rows.log.chosen - first
    target = np.zeros(rows.log.candidates)
    target[first + np.where(rows.log.logger == 0, (column + 1) % 4, column)] = 1.0
    for estimator, what in ((weighted_ipw, "contribution"), (weighted_snipw, "weight")):
        with (
            np.errstate(all="raise"),
            pytest.raises(DataError, match=rf"every {what} of logger 0 is the same.*or use the balanced form"),
        ):
            estimator(OneStepInput(rows.log, target))


def test_the_balanced_form_leaves_out_the_probabilities_of_single_loggers() -> None:
    """They are those of the logger that decided, and no longer what the weights are made of."""
    logging = np.array([0.25, 0.75, 0.5, 0.5])
    log = LoggedDecisions(
        np.array([1.0, 5.0]), np.array([0, 2, 4]), np.array([0, 3]), np.array([0.25, 0.5]), logging, np.array([0, 1])
    )
    rows = balanced(OneStepInput(log, np.array([1.0, 0.0, 0.0, 1.0])), np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert rows.log.logging is None
    assert weights(rows).tolist() == [1 / 0.375, 1 / 0.625]
    assert ipw(rows).value == pytest.approx((1 / 0.375 + 5 / 0.625) / 2)


def test_what_is_missing_or_wrong_is_named() -> None:
    rows, p = two_loggers(5)
    with pytest.raises(DataError, match="does not say which logger decided"):
        weighted_ipw(changed(rows, logger=None))
    with pytest.raises(DataError, match=r"loggers \[0, 2\]; expected every number from 0 on"):
        weighted_dr(changed(rows, logger=rows.log.logger * 2))  # type: ignore[operator]
    with pytest.raises(DataError, match=r"shape \(1, 400\); expected \(2, 400\)"):
        balanced(rows, p[:1])
    with pytest.raises(DataError, match="expected 0 to 1 for every logged choice"):
        balanced(rows, -p)
    with pytest.raises(DataError, match="expected 0 to 1 for every logged choice"):
        balanced(rows, np.where(np.arange(2)[:, None] == rows.log.logger, p, 1.5))
    with pytest.raises(DataError, match="by its own logger is not its propensity"):
        balanced(rows, p[::-1])
    with pytest.raises(DataError, match="logging probability of every candidate"):
        mipw(OneStepInput(balanced(rows, p).log, rows.target, embedding=np.zeros(1600, dtype=np.int64)))


@pytest.mark.parametrize("constant", [0.1, 0.3, 1e6])
def test_a_logger_whose_costs_are_all_alike_is_not_trusted_alone_for_its_rounding(constant: float) -> None:
    logger = np.repeat([0, 1], 500)
    cost = np.where(logger == 0, constant, np.random.default_rng(0).exponential(size=1000))
    log = LoggedDecisions(cost, np.arange(1001) * 2, np.arange(1000) * 2, np.full(1000, 0.5), logger=logger)
    rows = OneStepInput(log, np.full(2000, 0.5), np.zeros(2000))
    for estimator in (weighted_ipw, weighted_snipw, weighted_dr):
        with pytest.raises(DataError, match="every contribution of logger 0 is the same"):
            estimator(rows)


def test_weights_by_variance_do_not_change_with_the_zero_of_the_costs() -> None:
    rows, _ = two_loggers(6)
    far = changed(rows, cost=rows.log.cost + 1e9)
    assert weighted_snipw(far).value - 1e9 == pytest.approx(weighted_snipw(rows).value, abs=1e-5)


def test_a_logger_that_shares_nothing_with_the_policy_is_refused_where_the_model_alone_would_speak_for_it() -> None:
    rows, _ = two_loggers(7)
    never = rows.target.copy()
    never[rows.log.chosen] = 0.0
    never /= np.repeat(rows.log.sums(never), rows.log.counts)
    of_first = np.repeat(rows.log.logger == 0, rows.log.counts)
    with pytest.raises(DataError, match="every weight of logger 0 is the same, often 0"):
        weighted_dr(replace(rows, target=np.where(of_first, never, rows.target)))
    with pytest.raises(DataError, match="shares none of the 400 logged decisions, so weighted dr has"):
        weighted_dr(replace(rows, target=never))


def test_the_whole_weights_of_a_tuned_estimate_are_stratified_with_it() -> None:
    rows, _ = two_loggers(8)
    assert rows.predicted is not None
    found = sg_dr(replace(rows, predicted=rows.predicted * 1.4))
    assert found.whole is not None
    by_logger = stratified(found, rows.log)
    assert by_logger.whole is not None
    for logger in (0, 1):
        own = rows.log.logger == logger
        assert by_logger.influence[own].mean() == pytest.approx(0, abs=1e-9)
        assert by_logger.whole.influence[own].mean() == pytest.approx(0, abs=1e-9)
