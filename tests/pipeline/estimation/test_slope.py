from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t

from lodestar.data.errors import ConfigError
from lodestar.pipeline.estimation.estimators.dr_os import dr_os
from lodestar.pipeline.estimation.estimators.ipw import ipw
from lodestar.pipeline.estimation.estimators.sg_dr import sg_dr
from lodestar.pipeline.estimation.estimators.sg_ipw import sg_ipw
from lodestar.pipeline.estimation.estimators.switch_dr import switch_dr
from lodestar.pipeline.estimation.one_step import Valued
from lodestar.pipeline.estimation.slope import CLIPS, SHARES, SHRINKAGES, slope, tuned
from one_step_world import changed, world

Floats = NDArray[np.float64]


def spread(value: float, half_width: float) -> Valued:
    """An estimate of four decisions whose half-width, taken as independent, is the one given."""
    unit = np.array([-1.0, 1.0, -1.0, 1.0]) * math.sqrt(3) / t(3).ppf(0.9)
    return Valued(value, value + half_width * unit)


def obp_walk(lambdas: Sequence[float], rounds: Sequence[Floats]) -> float:
    """The choice, as obp's `_tune_hyperparam_with_slope` goes about it."""
    values = [each.mean() for each in rounds]
    widths = [math.sqrt(each.var() / (len(each) - 1)) * t(len(each) - 1).ppf(0.9) for each in rounds]
    order = np.argsort(widths)[::-1]
    seen: list[tuple[float, float]] = []
    for i, place in enumerate(order):
        if any(abs(values[place] - v) > widths[place] + (math.sqrt(6) - 1) * w for v, w in seen):
            return lambdas[order[i - 1]]
        seen.append((values[place], widths[place]))
    return lambdas[order[-1]]


def test_the_walk_by_hand() -> None:
    tries = {1.0: spread(10.0, 4.0), 2.0: spread(14.0, 1.0), 3.0: spread(20.0, 0.5), 4.0: spread(14.0, 0.1)}
    found = slope(tries.__getitem__, [3.0, 4.0, 1.0, 2.0])
    assert [each.lambda_ for each in found.path] == [1.0, 2.0, 3.0, 4.0]
    assert [each.half_width for each in found.path] == pytest.approx([4.0, 1.0, 0.5, 0.1])
    assert [each.value for each in found.path] == [10.0, 14.0, 20.0, 14.0]
    assert [each.accepted for each in found.path] == [True, True, False, False]  # nothing counts after a failure
    assert found.lambda_ == 2.0


def test_all_that_agree_are_walked_to_the_narrowest() -> None:
    tries = {1.0: spread(10.0, 4.0), 2.0: spread(11.0, 1.0), 3.0: spread(10.5, 0.5)}
    assert slope(tries.__getitem__, [1.0, 2.0, 3.0]).lambda_ == 3.0


def test_it_must_agree_with_every_wider_one_and_not_the_last_alone() -> None:
    tries = {1.0: spread(10.0, 1.0), 2.0: spread(12.0, 0.9), 3.0: spread(13.0, 0.8)}
    found = slope(tries.__getitem__, [1.0, 2.0, 3.0])
    assert abs(13.0 - 12.0) < 0.8 + (math.sqrt(6) - 1) * 0.9
    assert found.lambda_ == 2.0


@pytest.mark.parametrize("seed", range(5))
def test_independent_half_widths_choose_as_obp_does(seed: int) -> None:
    rows, _ = world(seed)
    chosen = set()
    for estimator, lambdas in (
        (partial(switch_dr, rows), CLIPS),
        (partial(dr_os, rows), SHRINKAGES),
        (partial(ipw, rows, centred=False), (1e6, 100.0, 20.0, 8.0, 3.0, 1.0)),
    ):
        expected = obp_walk(lambdas, [estimator(lambda_).influence for lambda_ in lambdas])
        assert slope(estimator, lambdas).lambda_ == expected
        chosen.add(expected)
    assert chosen != {math.inf}


def test_rewards_and_costs_choose_alike() -> None:
    for seed in range(5):
        rows, _ = world(seed)
        of_costs = slope(partial(ipw, rows, centred=False), (1e6, 20.0, 8.0, 3.0, 1.0))
        rewards = changed(rows, cost=-rows.log.cost)
        of_rewards = slope(partial(ipw, rewards, centred=False), (1e6, 20.0, 8.0, 3.0, 1.0))
        assert of_costs.lambda_ == of_rewards.lambda_
        assert [each.accepted for each in of_costs.path] == [each.accepted for each in of_rewards.path]


def test_half_widths_are_students_bound_of_blocks() -> None:
    influence = np.array([1.0, 3.0, 2.0, 8.0, 5.0, 5.0])
    path = slope(lambda _: Valued(4.0, influence), [1.0], block=2, delta=0.05).path
    means = np.array([2.0, 5.0, 5.0])
    assert path[0].half_width == pytest.approx(means.std(ddof=1) / math.sqrt(3) * t(2).ppf(0.95))


def test_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(ConfigError, match="no lambda_ to choose from"):
        slope(lambda _: spread(1.0, 1.0), [])


def test_default_hyper_parameters_begin_with_the_whole_weights() -> None:
    assert CLIPS[0] == SHRINKAGES[0] == math.inf
    assert SHARES[0] == 0.0


def test_tuning_passes_over_what_flatters() -> None:
    tries = {0.0: spread(10.0, 4.0), 1.0: spread(10.5, 2.0), 2.0: spread(9.5, 1.0)}
    assert slope(tries.__getitem__, [0.0, 1.0, 2.0]).lambda_ == 2.0
    found = tuned(tries.__getitem__, [0.0, 1.0, 2.0], block=1)
    assert found.value == 10.5
    assert [each.accepted for each in found.path] == [True, True, True]


def test_tuning_hands_on_the_whole_weights_where_it_chose_to_shrink_them() -> None:
    tries = {0.0: spread(10.0, 4.0), 1.0: spread(10.5, 2.0), 2.0: spread(30.0, 1.0)}
    assert tuned(tries.__getitem__, [0.0, 1.0, 2.0], block=1).whole == tries[0.0]
    assert tuned(tries.__getitem__, [0.0, 2.0], block=1).whole is None


def test_tuning_does_not_begin_with_one_that_is_wider_than_the_whole_weights() -> None:
    tries = {0.0: spread(10.0, 1.0), 1.0: spread(20.0, 2.0), 2.0: spread(10.5, 0.5)}
    assert slope(tries.__getitem__, [0.0, 1.0, 2.0]).lambda_ == 1.0
    found = tuned(tries.__getitem__, [0.0, 1.0, 2.0], block=1)
    assert found.value == 10.5
    assert [(each.lambda_, each.accepted) for each in found.path] == [(1.0, False), (0.0, True), (2.0, True)]


@pytest.mark.parametrize("bias", [-5.0, 5.0])
def test_tuning_begins_with_the_whole_weights_where_others_are_as_wide(bias: float) -> None:
    """Costs that are all alike make every interval 0 wide: nothing is gained, and a biased one decides nothing."""
    tries = {0.0: Valued(10.0, np.full(4, 10.0)), 1.0: Valued(10.0 + bias, np.full(4, 10.0 + bias))}
    found = tuned(tries.__getitem__, [0.0, 1.0], block=1)
    assert found.value == 10.0
    assert [(each.lambda_, each.accepted) for each in found.path] == [(0.0, True), (1.0, False)]


def test_tuning_goes_on_to_the_narrowest_that_does_not_flatter() -> None:
    tries = {0.0: spread(10.0, 4.0), 1.0: spread(10.5, 2.0), 2.0: spread(11.0, 1.0), 3.0: spread(9.5, 0.5)}
    assert tuned(tries.__getitem__, [0.0, 1.0, 2.0, 3.0], block=1).value == 11.0


def test_tuning_keeps_the_whole_weights_where_shrinking_them_gains_nothing() -> None:
    """Of the logging policy itself all weights are 1, and no hyper-parameter makes its interval narrower."""
    rows, _ = world(0)
    assert rows.log.logging is not None
    same = replace(rows, target=rows.log.logging)
    for estimator, whole in ((switch_dr, math.inf), (sg_dr, 0.0), (sg_ipw, 0.0)):
        found = estimator(same)
        assert (found.lambda_, found.whole) == (whole, None)
