from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.intervals.linearised import linearised_interval
from lodestar.pipeline.estimation.intervals.same_requests import SAME_REQUESTS, same_requests_interval
from lodestar.pipeline.estimation.shared_prefixes import SharedPrefixes
from one_step_world import world

Floats = NDArray[np.float64]

N, SIZE = 2400, 10


def dealt(seed: int) -> tuple[Floats, SharedPrefixes]:
    """The same requests in another order: a cost of 0.1 a token, 0.025 a token of the four before it, and luck."""
    lengths = np.random.default_rng(0).choice([1000, 2000, 4000, 8000], N // SIZE)
    random = np.random.default_rng([seed, 1])
    group = random.permutation(np.arange(N) // SIZE)
    tokens = lengths[group]
    queue = np.convolve(tokens, [0.0, 1.0, 1.0, 1.0, 1.0])[:N]
    return 0.1 * tokens + 0.025 * queue + random.normal(0.0, 200.0, N), SharedPrefixes(group, tokens)


def test_intervals_for_the_same_requests_hold_as_often_as_they_say_and_those_for_other_traffic_always() -> None:
    logs = [dealt(seed) for seed in range(300)]
    truth = float(np.mean([cost.mean() for cost, _ in logs]))
    same = [same_requests_interval(float(cost.mean()), cost, shared) for cost, shared in logs]
    other = [linearised_interval(float(cost.mean()), cost, shared=shared) for cost, shared in logs]
    assert 0.91 * 300 <= sum(each.holds(truth) for each in same) <= 0.99 * 300
    assert all(each.holds(truth) for each in other)
    assert np.mean([each.width for each in same]) < 0.2 * np.mean([each.width for each in other])


def test_it_says_of_what_it_is_and_that_lengths_are_taken_off() -> None:
    cost, shared = dealt(1)
    found = same_requests_interval(5.0, cost, shared)
    assert found.estimand == SAME_REQUESTS == "value of the same requests under other luck"
    assert found.method.endswith("12 blocks of 200 decisions, less what prompt lengths make")
    assert found.lower < found.value == 5.0 < found.upper


def test_the_slope_takes_a_degree_of_freedom() -> None:
    cost, shared = dealt(2)
    plain = linearised_interval(0.0, shared.without_lengths(cost, 200), 200)
    found = same_requests_interval(0.0, cost, shared, 200)
    assert plain.se is not None
    assert found.se == pytest.approx(np.sqrt(11 / 10) * plain.se)


def test_where_all_prompts_are_as_long_nothing_is_taken_off() -> None:
    cost, shared = dealt(3)
    alike = replace(shared, prompt_tokens=np.full(N, 500))
    assert np.array_equal(alike.without_lengths(cost, 200), cost)


@pytest.mark.parametrize("block", [1, 1200, 2400])
def test_blocks_that_tell_no_error_about_a_slope_are_refused(block: int) -> None:
    cost, shared = dealt(4)
    with pytest.raises(ConfigError, match=f"block {block} does not fit"):
        same_requests_interval(0.0, cost, shared, block)


@pytest.mark.parametrize("name", estimators())
def test_an_estimate_can_be_asked_for_the_same_requests(name: str) -> None:
    rows, _ = world(0)
    with pytest.raises(DataError, match="the log holds no prompt lengths"):
        estimate(rows, "policy", name, same_requests=True)
    shared = SharedPrefixes(np.full(800, -1), np.random.default_rng(0).integers(100, 900, 800))
    known = replace(rows, log=replace(rows.log, shared=shared))
    found, other = (estimate(known, "policy", name, same_requests=each) for each in (True, False))
    assert found.interval.startswith(SAME_REQUESTS)
    assert found.value_ms == other.value_ms
    assert found.ci95_ms != other.ci95_ms
