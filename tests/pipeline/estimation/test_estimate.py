from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import block_of, block_se
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.estimators.ipw import ipw
from lodestar.pipeline.estimation.estimators.snipw import snipw
from lodestar.pipeline.estimation.intervals.interval import OVER_TRAFFIC
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued
from one_step_world import world


def explored(blocks: int, seed: int = 0) -> OneStepInput:
    """1200 decisions, of which the log draws those of the first of 12 blocks and always takes the first elsewhere."""
    random = np.random.default_rng(seed)
    drawn = np.arange(1200) < 100 * blocks
    column = np.where(drawn, random.integers(0, 2, 1200), 0)
    cost = random.exponential(5.0, 1200)
    log = LoggedDecisions(cost, np.arange(1201) * 2, np.arange(1200) * 2 + column, np.where(drawn, 0.5, 1.0))
    return OneStepInput(log, np.tile([0.0, 1.0], 1200), np.full(2400, 5.0))


@pytest.mark.parametrize("name", estimators())
def test_an_estimate_is_the_value_with_its_block_interval_and_estimand(name: str) -> None:
    rows, _ = world(0)
    found, valued = estimate(rows, "policy", name), estimators()[name](rows)
    assert found.value_ms == valued.value
    assert found.se_ms == block_se(valued.influence, block_of(800))
    assert found.ci95_ms[0] < found.value_ms < found.ci95_ms[1]
    assert OVER_TRAFFIC in found.interval
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["estimand"] == "one-step, logged states"


@pytest.mark.parametrize(("name", "whole"), [("sg-ipw", 0.0), ("sg-dr", 0.0), ("dr-os", np.inf), ("switch-dr", np.inf)])
def test_an_interval_of_a_chosen_hyper_parameter_reaches_over_that_of_whole_weights(name: str, whole: float) -> None:
    of_lambda: Any = estimators()[name]
    shrunk = 0
    for seed in range(10):
        rows, _ = world(seed)
        rows = replace(rows, predicted=np.full_like(rows.target, rows.log.cost.mean()))
        found = estimate(rows, "policy", name)
        alone, full = (
            estimate(rows, "policy", name, by=partial(of_lambda, lambda_=each)) for each in (found.lambda_, whole)
        )
        assert found.ci95_ms == (min(alone.ci95_ms[0], full.ci95_ms[0]), max(alone.ci95_ms[1], full.ci95_ms[1]))
        assert ("reaching over that of whole weights" in found.interval) == (found.lambda_ != whole)
        assert (found.value_ms, found.se_ms) == (alone.value_ms, alone.se_ms)
        shrunk += found.lambda_ != whole
    assert shrunk


def test_an_estimator_of_ones_own_is_used() -> None:
    rows, _ = world(0)
    assert estimate(rows, "policy", "clipped", by=lambda each: ipw(each, 2.0)).value_ms == ipw(rows, 2.0).value


@pytest.mark.parametrize("name", ["snipw", "sndr"])
def test_a_ratio_whose_weight_lies_on_few_blocks_says_so(name: str) -> None:
    few = "weight lies on few blocks"
    assert not any(few in note for note in estimate(explored(12), "policy", name).notes)
    assert any(few in note for note in estimate(explored(2), "policy", name).notes)
    assert not any(few in note for note in estimate(explored(2), "policy", name, block=1).notes)


def test_of_few_blocks_that_all_have_weight_it_is_not_said_that_it_lies_on_few() -> None:
    few = "weight lies on few blocks"
    assert not any(few in note for note in estimate(explored(12), "policy", "snipw", block=200).notes)
    assert any(few in note for note in estimate(explored(6), "policy", "snipw", block=200).notes)
    assert any(few in note for note in estimate(explored(2), "policy", "balanced-snipw", by=snipw).notes)


@pytest.mark.parametrize("name", ["snipw", "sndr"])
def test_a_ratio_of_one_block_is_refused_as_its_error_would_be_0(name: str) -> None:
    assert block_se(estimators()[name](explored(1)).influence, 100) < 1e-12
    with pytest.raises(DataError, match=f"in one of 12 blocks, so how far off {name} is cannot be told"):
        estimate(explored(1), "policy", name)


def test_a_burst_that_decides_how_sure_the_value_seems_is_said() -> None:
    rows, _ = world(1)
    cost = rows.log.cost + np.where(np.arange(800) < 40, 1000.0, 0.0)
    burst = replace(rows, log=replace(rows.log, cost=cost))
    assert "of the variance: how often the like comes is not known" in estimate(burst, "policy", "snipw").notes[-1]


def test_a_burst_is_one_of_what_differs_from_the_mean_however_far_that_is_from_0() -> None:
    rows, _ = world(1)
    influence = 1e6 + np.random.default_rng(0).normal(size=800) + np.where(np.arange(800) < 40, 1000.0, 0.0)
    for block, blocks in ((67, 12), (40, 20)):
        notes = estimate(rows, "policy", "own", block, by=lambda _: Valued(1e6, influence)).notes
        assert any(f"one of {blocks} blocks makes more than half of the variance" in note for note in notes)


def test_a_burst_that_shrinking_hides_is_said_too() -> None:
    rows, _ = world(1)
    even = np.random.default_rng(0).normal(size=800)
    whole = Valued(0.0, even + np.where(np.arange(800) < 40, 1000.0, 0.0))
    for valued, notes in ((Valued(0.0, even), 0), (Valued(0.0, even, whole=whole), 1)):
        assert len(estimate(rows, "policy", "own", by=lambda _, valued=valued: valued).notes) == notes


@pytest.mark.parametrize("name", ["snipw", "switch-dr", "dr-os", "sg-ipw", "sg-dr"])
def test_a_block_of_none_is_refused_and_not_taken_for_the_default(name: str) -> None:
    rows, _ = world(2)
    with pytest.raises(ConfigError, match="block 0 does not fit"):
        estimate(rows, "policy", name, block=0)
    if name != "snipw":
        with pytest.raises(ConfigError, match="block 0 does not fit"):
            estimators()[name](rows, block=0)  # type: ignore[call-arg]


def test_an_estimator_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="estimator 'dros' is not known; expected one of dm, ipw, snipw"):
        estimate(world(0)[0], "policy", "dros")
