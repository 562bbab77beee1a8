"""Beyond one step: what later requests pay, found in logs of a small queue whose truth is simulated."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.beyond.control_variate import control_variate
from lodestar.pipeline.estimation.beyond.derivative import DerivativePath, derivative, horizons_of
from lodestar.pipeline.estimation.beyond.differences_in_q import DifferencesInQ, differences_in_q
from lodestar.pipeline.estimation.beyond.known import costs_before, known_before
from lodestar.pipeline.estimation.beyond.switchback import Switchback, switchback
from lodestar.pipeline.estimation.blocks import block_of, block_se
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.estimators.ipw import ipw
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rule = Callable[[Floats], Floats]

SPEEDS = np.array([1.2, 1.0, 0.8])
RATE = 1.6
WARM = 300
LOGS = 24


def uniform(wait: Floats) -> Floats:
    return np.full(wait.shape, 1 / wait.shape[1])


def soft(wait: Floats) -> Floats:
    weight = np.exp(-wait)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def lowest(cost: Floats) -> Floats:
    low = cost == cost.min(axis=1, keepdims=True)
    return np.asarray(low / low.sum(axis=1, keepdims=True))


def fastest(wait: Floats) -> Floats:
    return lowest(wait + 1 / SPEEDS)


def queue(rules: list[Rule], arm: Ints, seed: int) -> tuple[Floats, Ints, Floats]:
    """Return cost, server and waits of three first-come-first-served servers (Lindley), shape (n, logs[, servers])."""
    n, logs = arm.shape
    random = np.random.default_rng(seed)
    gap, work, luck = (
        random.exponential(1 / RATE, (n, logs)),
        random.exponential(1.0, (n, logs)),
        random.random(arm.shape),
    )
    wait, row = np.zeros((logs, 3)), np.arange(logs)
    cost, server, waits = np.empty((n, logs)), np.empty((n, logs), dtype=np.int64), np.empty((n, logs, 3))
    for i in range(n):
        wait = np.maximum(wait - gap[i][:, None], 0.0)
        waits[i] = wait
        chance = rules[0](wait) if len(rules) == 1 else np.where(arm[i][:, None] == 1, rules[1](wait), rules[0](wait))
        server[i] = np.minimum((chance.cumsum(axis=1) < luck[i][:, None]).sum(axis=1), 2)
        wait[row, server[i]] += work[i] / SPEEDS[server[i]]
        cost[i] = wait[row, server[i]]
    return cost, server, waits


def mean_under(rule: Rule) -> Floats:
    """Return the mean cost of each of 160 runs in which one rule decides."""
    return np.asarray(queue([rule], np.zeros((4000, 160), dtype=np.int64), seed=1)[0][WARM:].mean(axis=0))


@cache
def slope() -> tuple[float, float]:
    """Return the true derivative from uniform towards the shortest wait, and its error: mixtures of 5 % and 10 %."""

    def mixed(share: float) -> Rule:
        return lambda wait: (1 - share) * uniform(wait) + share * lowest(wait)

    none, little, more = (mean_under(mixed(share)) for share in (0.0, 0.05, 0.1))
    found = 2 * (little - none) / 0.05 - (more - none) / 0.1  # what is of second order cancels
    return float(found.mean()), float(found.std() / np.sqrt(len(found)))


@cache
def logged() -> tuple[Floats, Floats, Floats]:
    """Return cost, weights towards the shortest wait, and all work waiting, of logs made by chance."""
    cost, server, waits = queue([uniform], np.zeros((12_000, LOGS), dtype=np.int64), seed=0)
    wants = np.take_along_axis(lowest(waits.reshape(-1, 3)), server.reshape(-1, 1), axis=1).reshape(server.shape)
    return cost, 3.0 * wants, waits.sum(axis=2)


@cache
def paths(known: bool = False) -> list[DerivativePath]:
    cost, w, waiting = logged()
    return [derivative(cost[:, k], w[:, k], known=waiting[:, [k]] if known else None) for k in range(LOGS)]


def test_the_derivative_is_that_of_a_little_more_of_the_policy() -> None:
    truth, error = slope()
    values, ses = np.array([path.value for path in paths()]), np.array([path.se for path in paths()])
    assert abs(values.mean() - truth) < 3 * np.hypot(error, values.std() / np.sqrt(LOGS))
    assert np.mean(np.abs(values - truth) < 2 * ses) >= 0.75  # 24 logs: of 0.95, fewer by luck once in a thousand


def test_one_step_is_far_short_of_it() -> None:
    myopic = np.array([path.values[0] for path in paths()])
    assert myopic.mean() > 0.6 * slope()[0]  # both are negative
    assert myopic.std() < 0.2


def test_a_horizon_of_one_is_the_weighted_mean_less_the_mean() -> None:
    cost, w, _ = logged()
    path = derivative(cost[:, 0], w[:, 0], horizons=np.array([1]))
    assert path.value == pytest.approx(np.sum(w[:, 0] * cost[:, 0]) / w[:, 0].sum() - cost[:, 0].mean(), abs=1e-12)
    influence = w[:, 0] * (cost[:, 0] - np.average(cost[:, 0], weights=w[:, 0])) / w[:, 0].mean() - cost[:, 0]
    assert path.se == pytest.approx(block_se(influence, block_of(len(cost))), rel=1e-9)


def test_every_horizon_is_the_formula_summed_by_hand() -> None:
    random = np.random.default_rng(3)
    cost, w = random.exponential(1.0, 200), random.random(200)
    path = derivative(cost, w, horizons=np.array([1, 3, 7]))
    for horizon, value in zip((1, 3, 7), path.values, strict=True):
        later = [sum(cost[i + k] - cost.mean() for k in range(horizon)) for i in range(194)]
        assert value == pytest.approx(np.mean((w[:194] / w[:194].mean() - 1) * later), abs=1e-12)
    assert path.requests == 194
    assert "the last 6 of 200 decisions are left out" in path.notes[1]


def test_standard_errors_are_how_far_logs_lie_apart() -> None:
    found = np.std([path.values for path in paths()], axis=0) / np.mean([path.ses for path in paths()], axis=0)
    assert ((found > 0.65) & (found < 1.5)).all()


def test_what_is_known_before_a_decision_takes_noise_off_and_moves_nothing() -> None:
    at = int(np.searchsorted(paths()[0].horizons, 32))
    plain, helped = (np.array([path.values[at] for path in paths(known)]) for known in (False, True))
    assert helped.std() < 0.8 * plain.std()
    assert abs(helped.mean() - plain.mean()) < 2 * (plain - helped).std() / np.sqrt(LOGS)
    assert np.mean([path.ses[at] for path in paths(True)]) == pytest.approx(helped.std(), rel=0.4)


def test_what_a_decision_moves_that_is_still_open_is_not_taken_for_known() -> None:
    """Each decision moves the cost of the request before it, whose first token is still to come, and nothing later."""
    n, random = 40_000, np.random.default_rng(0)
    left = random.random(n) < 0.5
    load = np.repeat(random.normal(size=n // 20), 20)
    cost = 10.0 + load + 4.0 * np.append(left[1:], False)
    arrived_at_s = np.arange(float(n))
    at = np.array([16])
    seen = derivative(cost, 2.0 * left, at, known=known_before(cost, arrived_at_s + 1.5, arrived_at_s))
    before = derivative(cost, 2.0 * left, at, known=costs_before(cost))
    assert abs(seen.value) < 3 * seen.se
    assert abs(before.value) > 5 * before.se


def test_what_was_known_takes_noise_off_a_loaded_system() -> None:
    random = np.random.default_rng(0)
    cost = np.convolve(random.normal(size=20_200), np.exp(-np.arange(200) / 50), "valid")[:20_000]
    arrived_at_s, w = np.arange(20_000.0), 2.0 * (random.random(20_000) < 0.5)
    known = known_before(cost, arrived_at_s + 2.5, arrived_at_s)
    at = np.array([16])
    assert derivative(cost, w, at, known=known).se < 0.7 * derivative(cost, w, at).se


def test_a_block_is_never_shorter_than_four_horizons() -> None:
    cost, w = np.random.default_rng(0).normal(size=(2, 1000))
    paths = [derivative(cost, w**2, np.array([1, 16]), block=block) for block in (10, 64, 200)]
    assert [path.blocks for path in paths] == [16, 16, 5]


def test_a_path_that_never_rests_is_said() -> None:
    w = 2.0 * (np.random.default_rng(0).random(4000) < 0.5)
    rests = w + np.append(0.0, w[:-1])  # a decision costs now, and the next request
    grows = np.convolve(w, np.ones(30))[: len(w)]  # and here each of the next 29
    grid = np.array([1, 2, 4, 8])
    assert derivative(rests, w, grid).horizon == 2
    assert not any("no plateau" in note for note in derivative(rests, w, grid).notes)
    assert any("no plateau up to 8 requests" in note for note in derivative(grows, w, grid).notes)


def test_a_request_without_a_cost_is_refused_and_so_is_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="1 of 200 requests have no cost"):
        derivative(np.append(np.ones(199), np.nan), np.ones(200))
    with pytest.raises(DataError, match="shares none"):
        derivative(np.ones(200), np.zeros(200))
    with pytest.raises(DataError, match="10 requests are too few"):
        derivative(np.ones(10), np.ones(10))
    with pytest.raises(ConfigError, match="expected 1 to 100, half of 200 requests"):
        derivative(np.ones(200), np.ones(200), horizons=np.array([150]))
    assert horizons_of(100).tolist() == [1, 2]


ARMS: list[Rule] = [lowest, fastest]


@cache
def difference() -> float:
    return float((mean_under(fastest) - mean_under(lowest)).mean())


@cache
def by_coin() -> list[DifferencesInQ]:
    arm = np.random.default_rng(5).integers(0, 2, (12_000, LOGS))
    cost = queue(ARMS, arm, seed=2)[0]
    return [differences_in_q(cost[:, k], arm[:, k]) for k in range(LOGS)]


def test_the_difference_of_means_of_two_arms_in_one_queue_is_off_and_that_in_q_is_not() -> None:
    at = int(np.searchsorted(by_coin()[0].path.horizons, 12))
    naive, in_q = np.array([each.naive for each in by_coin()]), np.array([each.path.values[at] for each in by_coin()])
    assert abs(naive.mean() - difference()) > 6 * naive.std() / np.sqrt(LOGS)
    assert abs(in_q.mean() - difference()) < 2 * in_q.std() / np.sqrt(LOGS)
    assert np.mean([abs(each.path.value - difference()) < 2 * each.path.se for each in by_coin()]) >= 0.75


def test_the_plain_difference_is_the_first_of_the_path() -> None:
    found = by_coin()[0]
    assert found.naive == pytest.approx(found.path.values[0], abs=0.02)
    assert found.to_dict()["estimand"] == "closed loop, all B minus all A"
    assert "second order" in found.path.notes[0]


def test_an_unfair_coin_is_said_and_one_arm_alone_refused() -> None:
    cost, arm = np.ones(1000), (np.arange(1000) % 3 == 0).astype(np.int64)
    assert "arm 1 has 33.4% of the requests, -10.5 standard errors off" in differences_in_q(cost, arm).path.notes[-1]
    assert "fair coin" not in differences_in_q(cost, arm, share=1 / 3).path.notes[-1]
    for wrong, says in ((np.zeros(1000, int), "of one arm"), (np.full(1000, 2), "each 0 or 1")):
        with pytest.raises(DataError, match=says):
            differences_in_q(cost, wrong)
    with pytest.raises(DataError, match="between 0 and 1"):
        differences_in_q(cost, arm, share=1.0)


def test_arms_that_differ_by_more_than_a_quarter_are_said_to_give_a_direction() -> None:
    arm = np.random.default_rng(5).integers(0, 2, (12_000, 3))
    cost = queue([uniform, lowest], arm, seed=2)[0]
    for k in range(3):
        found = differences_in_q(cost[:, k], arm[:, k])
        says = f"the arms differ by {-found.naive / cost[:, k].mean():.0%} of the mean cost at once: beyond 25%"
        assert any(note.startswith(says) for note in found.path.notes)
    assert not any("mean cost at once" in note for each in by_coin() for note in each.path.notes)


def test_each_request_counts_by_its_own_share() -> None:
    busy, arm = np.tile([0, 1], 400).repeat(4), np.tile([0, 0, 0, 1, 1, 1, 0, 1], 400)
    cost = 10.0 * busy + arm  # arm 1, of a quarter of the idle requests and of three in four busy ones, costs 1 more
    found = differences_in_q(cost, arm, np.where(busy, 0.75, 0.25), horizons=np.array([1]))
    assert found.naive == found.path.value == pytest.approx(1.0)
    assert differences_in_q(cost, arm, 0.5, horizons=np.array([1])).naive == pytest.approx(6.0)


@cache
def turns() -> list[Switchback]:
    period = np.arange(12_000) // 400
    coins = np.random.default_rng(6).permuted(np.tile(np.arange(30) % 2, (LOGS, 1)), axis=1)
    arm = np.repeat(coins.T, 400, axis=0)
    cost = queue([uniform, lowest], arm, seed=3)[0]
    return [switchback(cost[:, k], arm[:, k], period=period) for k in range(LOGS)]


def test_burn_in_takes_out_what_the_other_arm_left_behind() -> None:
    truth = float((mean_under(lowest) - mean_under(uniform)).mean())
    plain, burnt = (np.array([each.values[place] for each in turns()]) for place in (0, -1))
    assert plain.mean() - truth > 2 * (plain - burnt).std() / np.sqrt(LOGS)
    assert abs(burnt.mean() - truth) < 2 * burnt.std() / np.sqrt(LOGS)
    covered = [each.interval()[0] < truth < each.interval()[1] for each in turns()]
    assert np.mean(covered) >= 0.75
    assert np.mean([each.se for each in turns()]) == pytest.approx(np.std([each.value for each in turns()]), rel=0.35)
    assert np.mean([each.carried_over for each in turns()]) > 0


def test_a_wrong_simulator_is_corrected_and_one_that_knows_something_lowers_the_noise() -> None:
    random = np.random.default_rng(0)
    n = 4000
    work, chosen = random.exponential(1.0, n), random.integers(0, 2, n)
    true = np.stack([work, 2 * work], axis=1)
    cost = true[np.arange(n), chosen] + random.normal(0, 0.1, n)
    log = LoggedDecisions(cost, 2 * np.arange(n + 1), 2 * np.arange(n) + chosen, np.full(n, 0.5))
    rows = OneStepInput(log, np.tile([1.0, 0.0], n), 1.3 * true.ravel() + 0.2)
    found = control_variate(rows)
    assert found.simulated == pytest.approx(1.3 * work.mean() + 0.2)
    assert abs(found.valued.value - work.mean()) < 3 * found.valued.influence.std() / np.sqrt(n)
    assert found.valued.value == dr(rows).value == found.simulated + found.correction
    plain, corrected = ipw(rows).influence, found.valued.influence
    assert found.explained == pytest.approx(1 - corrected.var() / plain.var())
    assert 0.5 < found.explained < 0.6  # what the simulator says itself differs from request to request, and stays
    assert found.to_dict()["estimand"] == "one-step, logged states"
