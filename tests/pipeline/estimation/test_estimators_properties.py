"""What holds of every estimator, whatever the log."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lodestar.pipeline.estimation.blocks import block_se
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
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, residuals, weights
from lodestar.pipeline.estimation.tails.support import effective_size
from one_step_world import changed, world

SEEDS = st.integers(0, 10_000)
few = settings(max_examples=20)

#: Every estimator, and those with a hyper-parameter also with one that is given.
EVERY: dict[str, Callable[[OneStepInput], Valued]] = {
    **estimators(),
    "ipw 2": lambda rows: ipw(rows, lambda_=2.0),
    "dr 2": lambda rows: dr(rows, lambda_=2.0),
    "switch-dr 2": lambda rows: switch_dr(rows, lambda_=2.0),
    "dr-os 2": lambda rows: dr_os(rows, lambda_=2.0),
    "sg-ipw 0.3": lambda rows: sg_ipw(rows, lambda_=0.3),
    "sg-dr 0.3": lambda rows: sg_dr(rows, lambda_=0.3),
}
#: A constant cost is worth its mean weight to these.
NOT_EQUIVARIANT = {"ipw", "mipw"}


def same(found: Valued, expected: Valued, add: float = 0.0, times: float = 1.0) -> bool:
    """Whether values and standard errors agree, after the expected one is moved and scaled."""
    error, expected_error = block_se(found.influence, 10), block_se(expected.influence, 10)
    return (
        found.value == pytest.approx(expected.value * times + add, rel=1e-7)
        and error == pytest.approx(expected_error * times, rel=1e-6, abs=1e-9)
        and found.lambda_ == expected.lambda_
    )


def with_spare_candidates(rows: OneStepInput, random: np.random.Generator) -> OneStepInput:
    """Put candidates that neither policy chooses, and of which nothing is known, at random places."""
    log = rows.log
    assert log.logging is not None
    spare = random.integers(0, 4, log.decisions)
    counts = log.counts + spare
    offsets = np.concatenate([[0], np.cumsum(counts)])
    place = np.concatenate(
        [
            first + np.sort(random.choice(count, old, replace=False))
            for first, count, old in zip(offsets[:-1], counts, log.counts, strict=True)
        ]
    )

    def spread(values: NDArray[np.float64], fill: float) -> NDArray[np.float64]:
        full = np.full((offsets[-1], *values.shape[1:]), fill)
        full[place] = values
        return full

    wider = LoggedDecisions(
        log.cost, offsets, place[log.chosen], log.propensity, spread(log.logging, 0.0), logger=log.logger
    )
    assert rows.predicted is not None
    assert rows.features is not None
    assert rows.embedding is not None
    return OneStepInput(
        wider,
        spread(rows.target, 0.0),
        spread(rows.predicted, np.nan),
        spread(rows.features, np.nan),
        spread(rows.embedding, -1.0).astype(np.int64),
    )


def shuffled(rows: OneStepInput, random: np.random.Generator) -> OneStepInput:
    """Put the candidates of every decision in another order."""
    log = rows.log
    order = np.lexsort((random.random(log.candidates), log.decision))
    back = np.argsort(order)
    assert log.logging is not None
    moved = replace(log, chosen=back[log.chosen], logging=log.logging[order])
    given_of = (rows.predicted, rows.features, rows.embedding)
    return OneStepInput(moved, rows.target[order], *(None if each is None else each[order] for each in given_of))


@few
@given(SEEDS)
def test_padding_and_order_of_candidates_change_nothing(seed: int) -> None:
    rows, _ = world(seed, n=100)
    random = np.random.default_rng(seed)
    for name, estimator in EVERY.items():
        expected = estimator(rows)
        assert same(estimator(with_spare_candidates(rows, random)), expected), name
        assert same(estimator(shuffled(rows, random)), expected), name


@few
@given(SEEDS, st.floats(-500, 500), st.floats(0.01, 100))
def test_costs_in_another_unit_or_from_another_zero_move_the_value_as_much(seed: int, add: float, times: float) -> None:
    rows, _ = world(seed, n=100)
    assert rows.predicted is not None
    scaled = replace(changed(rows, cost=rows.log.cost * times), predicted=rows.predicted * times)
    moved = replace(changed(rows, cost=rows.log.cost + add), predicted=rows.predicted + add)
    for name, estimator in EVERY.items():
        expected = estimator(rows)
        assert same(estimator(scaled), expected, times=times), name
        if name not in NOT_EQUIVARIANT:
            assert same(estimator(moved), expected, add=add), name


def test_plain_weighting_values_a_constant_at_its_mean_weight() -> None:
    rows, _ = world(2, n=100)
    for estimator in (ipw, mipw):
        more = estimator(changed(rows, cost=rows.log.cost + 1000.0)).value - estimator(rows).value
        assert more == pytest.approx(1000.0 * weights(rows).mean())


@few
@given(st.floats(0.05, 1.0), SEEDS)
def test_snipw_does_not_change_with_the_scale_of_the_weights(scale: float, seed: int) -> None:
    rows, _ = world(seed, n=100)
    scaled = changed(rows, propensity=rows.log.propensity * scale, logging=None)
    before, after = snipw(rows), snipw(scaled)
    assert after.value == pytest.approx(before.value)
    assert block_se(after.influence, 10) == pytest.approx(block_se(before.influence, 10))
    assert effective_size(weights(scaled)) == pytest.approx(effective_size(weights(rows)))
    assert sndr(scaled).value == pytest.approx(sndr(rows).value)


@few
@given(SEEDS)
def test_corrections_vanish_where_the_model_is_exact(seed: int) -> None:
    rows, _ = world(seed, n=100)
    assert rows.predicted is not None
    rows = changed(rows, cost=rows.predicted[rows.log.chosen])
    for estimator in (dr, sndr, switch_dr, dr_os, sg_dr):
        assert estimator(rows).value == pytest.approx(dm(rows).value)
        assert estimator(rows).influence == pytest.approx(dm(rows).influence)


@few
@given(SEEDS)
def test_hyper_parameters_lead_from_the_model_to_the_whole_weights(seed: int) -> None:
    rows, _ = world(seed, n=100)
    whole, model = dr(rows), dm(rows)
    for full in (dr_os(rows, math.inf), switch_dr(rows, math.inf), sg_dr(rows, 0.0), dr(rows, 1e9)):
        assert full.value == whole.value
        assert (full.influence == whole.influence).all()
    for none in (dr_os(rows, 0.0), switch_dr(rows, 0.0), dr(rows, 0.0)):
        assert none.value == pytest.approx(model.value)
    assert dr_os(rows, 1e-9).value == pytest.approx(model.value)
    assert dr_os(rows, 1e12).value == pytest.approx(whole.value)
    assert sg_ipw(rows, 0.0, centred=False).value == ipw(rows).value == ipw(rows, 1e9, centred=False).value
    shared = weights(rows) > 0
    assert sg_ipw(rows, 1.0, centred=False).value == pytest.approx(np.mean(shared * rows.log.cost))
    assert sg_dr(rows, 1.0).value == pytest.approx(model.value + np.mean(shared * residuals(rows)))


@few
@given(SEEDS)
def test_every_candidate_a_kind_of_its_own_is_plain_weighting(seed: int) -> None:
    rows, _ = world(seed, n=100)
    assert mipw(rows).value == pytest.approx(ipw(rows).value)
    assert mipw(rows).influence == pytest.approx(ipw(rows).influence)
    one_kind = mipw(replace(rows, embedding=np.zeros_like(rows.embedding)))
    assert one_kind.value == pytest.approx(rows.log.cost.mean())


#: Those with nothing fitted or chosen inside; what is chosen counts as given.
SMOOTH = [name for name in EVERY if name not in {"switch-dr", "dr-os", "sg-ipw", "sg-dr", "mrdr"}]


@pytest.mark.parametrize("name", SMOOTH)
def test_the_influence_is_the_slope_of_the_value(name: str) -> None:
    """Counting one decision twice moves the value by its influence, to first order."""
    rows, _ = world(5, n=400)
    estimator = EVERY[name]
    found = estimator(rows)
    about = found.influence - found.influence.mean()
    for place in (3, 100, 399):
        twice = counted_twice(rows, place)
        assert estimator(twice).value - found.value == pytest.approx(about[place] / 401, rel=0.03, abs=0.002)


def counted_twice(rows: OneStepInput, place: int) -> OneStepInput:
    order = np.append(np.arange(400), place)
    flat = (order[:, None] * 5 + np.arange(5)).reshape(-1)
    log = rows.log
    assert log.logging is not None
    more = LoggedDecisions(
        log.cost[order],
        np.arange(402) * 5,
        np.arange(401) * 5 + (log.chosen - log.offsets[:-1])[order],
        log.propensity[order],
        log.logging[flat],
    )
    given_of = (rows.predicted, rows.features, rows.embedding)
    return OneStepInput(more, rows.target[flat], *(None if each is None else each[flat] for each in given_of))
