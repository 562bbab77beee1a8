"""Two routers that take turns: what is left out of each turn, how far the interval reaches, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import t, ttest_ind

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.beyond.switchback import design_of, switchback

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def test_a_switchback_is_the_difference_of_means_after_the_burn_in() -> None:
    arm = np.repeat([0, 1, 0, 1, 1, 0, 1, 0], 5)
    cost = np.random.default_rng(0).random(40)
    found = switchback(cost, arm, np.array([2]), period=np.arange(40) // 5)
    kept = np.arange(40) % 5 >= 2
    means = [cost.reshape(8, 5)[arm[::5] == which, 2:].mean(axis=1) for which in (0, 1)]
    assert found.burn_ins.tolist() == [0, 2]
    assert found.values[1] == pytest.approx(cost[kept & (arm == 1)].mean() - cost[kept & (arm == 0)].mean())
    assert found.ses[1] == pytest.approx(np.sqrt(sum(each.var(ddof=1) / 4 for each in means)))


def skewed(of_a: Floats, of_b: Floats, t: float) -> float:
    """Johnson's shift for a difference of two means: (μ₃ of b / n² − μ₃ of a / m²) (1 + 2 t²) / (6 s²)."""
    third = [float(np.sum((x - x.mean()) ** 3)) / (len(x) * (len(x) - 1)) ** 1.5 for x in (of_a, of_b)]
    return (third[1] - third[0]) * (1 + 2 * t**2) / (6 * (of_a.var(ddof=1) / len(of_a) + of_b.var(ddof=1) / len(of_b)))


def test_the_interval_of_a_switchback_is_welchs_but_for_the_end_that_turns_are_skewed_to() -> None:
    arm = np.repeat([0, 1, 0, 1, 1, 0, 1, 0], 5)
    noise = np.random.default_rng(0).random(40) * (1 + 2 * arm)
    of_a, of_b = (noise.reshape(8, 5).mean(axis=1)[arm[::5] == which] for which in (0, 1))
    welch = ttest_ind(of_b, of_a, equal_var=False)
    for sign in (1, -1):
        plain = switchback(sign * noise, arm, np.array([0]), period=np.arange(40) // 5)
        assert plain.freedom == pytest.approx(welch.df)
        for level in (0.9, 0.95):
            low, high = (sign * end for end in welch.confidence_interval(level)[::sign])
            further = sign * skewed(of_a, of_b, t.ppf((1 + level) / 2, welch.df))
            assert plain.interval(level) == pytest.approx((low + min(further, 0), high + max(further, 0)))
            assert abs(further) > 0.01


def test_skewed_turns_are_held_as_often_as_said() -> None:
    """Where Welch's t alone misses a difference to an arm that jams now and then: it holds 90 % of the time."""
    random, arm = np.random.default_rng(0), np.tile([0, 1], 20)
    logs = np.where(arm == 0, random.gamma(0.5, 1.0, (1500, 40)), random.normal(2.0, 0.1, (1500, 40)))
    held = [low <= 1.5 <= high for low, high in (switchback(log, arm).interval() for log in logs)]
    by_t = ttest_ind(logs[:, 1::2], logs[:, ::2] + 1.5, axis=1, equal_var=False).pvalue > 0.05
    assert np.mean(held) > by_t.mean() + 0.015


def remembered(arm: Ints, memory: float) -> Floats:
    """Return costs that go to those of the arm, 0 or 1, as a disturbance does of which 1/e is left after `memory`."""
    keep = float(np.exp(-1 / memory))
    return np.asarray(lfilter([1 - keep], [1, -keep], arm.astype(np.float64)))


@pytest.mark.parametrize(("memory", "enough"), [(30, True), (95, True), (150, False)])
def test_the_interval_reaches_over_what_is_left_where_turns_are_three_times_the_memory(
    memory: float, enough: bool
) -> None:
    found = switchback(remembered(np.repeat(np.tile([0, 1], 20), 300), memory), np.repeat(np.tile([0, 1], 20), 300))
    assert found.burn_in == 100
    assert 1 - found.value > 0  # what is left
    assert (1 - found.value <= -found.carried_over) == enough
    assert f"the difference moves by {-found.carried_over:+.3g}, and the interval reaches as much" in found.notes[0]
    half = t.ppf(0.975, found.freedom) * found.se
    assert found.interval()[0] <= found.value - half
    assert found.interval()[1] >= found.value + half - found.carried_over


def test_what_is_carried_over_is_in_the_interval_as_often_as_said() -> None:
    random, arm = np.random.default_rng(0), np.repeat(np.tile([0, 1], 20), 300)
    logs = [switchback(remembered(arm, 95) + random.normal(0, 4.5, 12_000), arm) for _ in range(200)]
    assert np.mean([each.interval()[0] <= 1 <= each.interval()[1] for each in logs]) >= 0.92
    assert np.mean([abs(each.value - 1) <= t.ppf(0.975, each.freedom) * each.se for each in logs]) < 0.85


def test_the_burn_in_is_a_third_of_the_shortest_turn_and_has_its_own_error() -> None:
    arm, after = np.repeat([0, 1, 0, 1, 1, 0, 1, 0], 5), np.arange(40) % 5
    noise = np.random.default_rng(0).random(40) * (1 + 2 * arm)
    left = switchback(noise + 5.0 * (after < 2) * (1 - arm), arm, np.array([0, 2]), period=np.arange(40) // 5)
    assert left.burn_in == 2
    assert left.carried_over == pytest.approx(left.values[0] - left.values[1])
    by_period = (noise.reshape(8, 5).mean(axis=1) - noise.reshape(8, 5)[:, 2:].mean(axis=1)).reshape(8)
    errors = [by_period[arm[::5] == which].var(ddof=1) / 4 for which in (0, 1)]
    assert left.carried_over_se == pytest.approx(np.sqrt(sum(errors)))
    assert switchback(noise, np.repeat([0, 1] * 4, [5, 6, 4, 5, 5, 5, 5, 5])).burn_ins.tolist() == [0, 1]
    assert switchback(np.ones(2400), np.repeat([0, 1] * 4, 300)).burn_ins.tolist() == [0, 1, 2, 4, 8, 16, 32, 64, 100]


def test_a_difference_that_still_moves_is_said() -> None:
    arm = np.repeat(np.tile([0, 1], 20), 300)
    noise = np.random.default_rng(0).normal(0, 1.0, 12_000)
    assert len(switchback(noise + arm, arm).notes) == 1
    assert len(switchback(noise + remembered(arm, 5), arm).notes) == 1
    says = switchback(noise + remembered(arm, 100), arm).notes[1]
    assert says.startswith("from a burn-in of 16 requests to 100 it still moves by +0.")
    assert says.endswith("what the other arm left may not be out; let each arm's turns last longer")


def test_too_few_turns_are_refused_and_turns_without_names_last_until_the_arm_changes() -> None:
    arm = np.repeat([0, 1, 0, 1, 0, 1], 20)
    with pytest.raises(DataError, match="there are no requests"):
        switchback(np.zeros(0), np.zeros(0, dtype=np.int64))
    with pytest.raises(DataError, match="3 periods of an arm are too few"):
        switchback(np.ones(120), arm)
    assert switchback(np.random.default_rng(0).random(160), np.repeat([0, 1] * 4, 20)).periods == (4, 4)
    with pytest.raises(DataError, match="requests of both arms"):
        switchback(np.ones(160), np.repeat([0, 1] * 4, 20), period=np.arange(160) // 30)
    with pytest.raises(ConfigError, match="expected 0 to 19"):
        switchback(np.ones(160), np.repeat([0, 1] * 4, 20), np.array([20]))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_coin_and_turns_are_told_apart(share: float) -> None:
    coin = (np.random.default_rng(1).random(2000) < share).astype(np.int64)
    assert design_of(coin) == "per request"
    assert design_of(np.repeat(coin[:100], 20)) == "switchback"
    assert design_of(np.zeros(50, dtype=np.int64)) == "one arm"


def test_half_as_many_changes_as_a_coin_makes_are_turns() -> None:
    assert design_of(np.repeat(np.tile([0, 1], 100), 5)) == "switchback"  # one in 5, where a coin makes one in 2
    assert design_of(np.repeat(np.tile([0, 1], 100), 3)) == "per request"  # which the test of balance then sees


def test_turns_too_short_for_a_burn_in_say_that_none_was_tried() -> None:
    short = switchback(np.random.default_rng(0).random(20), np.tile([0, 1], 10))
    assert short.burn_ins.tolist() == [0]
    assert "no burn-in was tried" in short.notes[-1]
