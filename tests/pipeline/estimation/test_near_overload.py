from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.near_overload import Worth, independent_requests, near_overload, worth_of
from lodestar.pipeline.estimation.one_step import OneStepInput, requests_worth
from one_step_world import three_decisions, world

Floats = NDArray[np.float64]

NEAR = "so near overload"


def queued(load: float, seed: int, n: int = 6000) -> Floats:
    """Sojourns of M/M/1 after its warm-up, by Lindley's recursion."""
    random = np.random.default_rng(seed)
    service, gap = random.exponential(1.0, n + 2000), random.exponential(1 / load, n + 2000)
    steps = np.concatenate([[0.0], np.cumsum(service[:-1] - gap[1:])])
    return (steps - np.minimum.accumulate(steps) + service)[2000:]


def test_independent_costs_are_worth_as_many_and_those_in_runs_as_many_as_there_are_runs() -> None:
    luck = np.random.default_rng(0).pareto(1.2, 9600)
    found = [np.mean([independent_requests(np.roll(luck, 7 * k)) for k in range(10)])]
    found.append(independent_requests(np.repeat(luck[:960], 10)))
    assert found == pytest.approx([9600, 960], rel=0.3)


def test_one_jam_does_not_decide_how_much_a_log_is_worth() -> None:
    cost = queued(0.5, seed=1)
    longer = np.where(cost > np.quantile(cost, 0.99), 1000.0 * cost, cost)
    assert independent_requests(longer) == independent_requests(cost)


def test_requests_of_one_cost_are_worth_as_many_in_whatever_order_equal_costs_come() -> None:
    assert independent_requests(np.full(500, 7.0)) == 500
    halves = np.random.default_rng(2).permutation(np.repeat([1.0, 2.0], 2400))
    assert independent_requests(halves) == pytest.approx(4800, rel=0.3)
    rounded = np.round(queued(0.5, seed=1))
    assert independent_requests(-rounded) == pytest.approx(independent_requests(rounded), rel=1e-9)


def test_a_queue_near_overload_is_told_from_a_calm_one_whether_or_not_it_has_a_jam() -> None:
    for load, fewest, most in ((0.5, 0, 0), (0.6, 0, 1), (0.98, 39, 40)):
        logs = [queued(load, seed) for seed in range(40)]
        noted = sum(bool(near_overload(worth_of(cost))) for cost in logs)
        assert fewest <= noted <= most, load


def test_queues_of_many_instances_that_outlive_blocks_are_told_though_no_two_are_long_at_once() -> None:
    """16 queues of 750 requests: together worth many hundreds, and blocks are alike as each queue stays as it is."""
    random = np.random.default_rng(3)
    for load, expected in ((0.5, False), (0.95, True)):
        instance = random.permutation(np.repeat(np.arange(16), 750))
        cost = np.empty(12_000)
        for j in range(16):
            cost[instance == j] = queued(load, seed=j, n=750)
        found = worth_of(cost, instance)
        assert found.of_one == 750
        assert found.independent > 600
        assert near_overload(worth_of(cost)) == []
        assert bool(near_overload(found)) == expected


def test_of_a_short_log_it_is_not_told() -> None:
    assert near_overload(Worth(1599, 10.0, 479.0, 1.0)) == []
    assert NEAR in near_overload(Worth(1600, 10.0, 479.0, 1.0))[0]
    assert "480 requests of an instance" in near_overload(Worth(1599, 10.0, 480.0, 1.0))[0]
    assert near_overload(Worth(12_000, 10.0, 0.0, 0.0))[0].startswith("12,000 requests tell no more than 10 that share")


def test_instances_are_told_apart_by_name_and_not_by_their_place_among_the_candidates() -> None:
    """Of 8 instances each request has 2 candidates, always as many, and the place tells nothing of which they are."""
    random = np.random.default_rng(0)
    candidate = np.argsort(random.random((800, 8)), axis=1) < 2
    column = np.where(random.random(800) < 0.5, candidate.argmax(axis=1), 7 - candidate[:, ::-1].argmax(axis=1))
    log = LoggedDecisions.of_padded(random.exponential(size=800), candidate, column, np.full(800, 0.5))
    assert requests_worth(OneStepInput(log, np.full(1600, 0.5))) == pytest.approx(worth_of(log.cost, column))
    some = log.only(np.arange(800) % 3 == 0)
    assert some.instance is not None
    assert some.instance.tolist() == column[::3].tolist()
    assert requests_worth(three_decisions()).of_one == 0


def test_an_estimate_near_overload_says_so_unless_it_speaks_of_its_own_path() -> None:
    rows, _ = world(0, n=6000)
    jammed, calm = (replace(rows, log=replace(rows.log, cost=100 * queued(load, seed=0))) for load in (0.98, 0.5))
    for name in estimators():
        assert sum(NEAR in note for note in estimate(jammed, "policy", name).notes) == 1, name
        assert not any(NEAR in note for note in estimate(calm, "policy", name).notes), name
    assert not any(NEAR in note for note in estimate(jammed, "policy", "dr", block=1).notes)
