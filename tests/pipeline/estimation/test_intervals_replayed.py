"""Intervals by how many seeds were replayed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.pipeline.estimation.intervals.block_bootstrap import expanded_interval, simultaneous_intervals
from lodestar.pipeline.estimation.intervals.replayed import replayed_interval, replayed_intervals
from lodestar.pipeline.estimation.resampling import resampled_means, resamples

Floats = NDArray[np.float64]


def replays(seeds: int, seed: int, runs: float = 0.5) -> Floats:
    """Requests of which each whole run has luck of its own; the truth is 0."""
    random = np.random.default_rng(seed)
    return random.normal(size=(1, 400)) + random.normal(size=(seeds, 400)) + runs * random.normal(size=(seeds, 1))


@pytest.mark.parametrize(("seeds", "plain_at_most", "at_least"), [(2, 0.75, 0.88), (3, 0.85, 0.90), (5, 0.91, 0.92)])
def test_intervals_of_a_few_seeds_hold_where_whole_runs_differ(
    seeds: int, plain_at_most: float, at_least: float
) -> None:
    plain = held = 0
    for repetition in range(400):
        drawn = resamples(seeds, 400, 20, 300, repetition)
        means = resampled_means(replays(seeds, repetition), drawn)
        (low, high), found = expanded_interval(means, 20), replayed_interval(means, drawn)
        assert found is not None
        plain, held = plain + (low <= 0 <= high), held + (found[0] <= 0 <= found[1])
    assert plain / 400 <= plain_at_most
    assert held / 400 >= at_least


@pytest.mark.parametrize(("policies", "seeds", "at_least"), [(4, 5, 0.91), (9, 3, 0.81), (9, 5, 0.89)])
def test_intervals_of_a_few_seeds_hold_for_several_policies_at_once(policies: int, seeds: int, at_least: float) -> None:
    """Widened as if each stood alone, they hold 0.90, 0.75 and 0.86 of the time."""
    held = 0
    for repetition in range(200):
        drawn = resamples(seeds, 400, 20, 300, repetition)
        random = np.random.default_rng(repetition)
        baseline, *others = random.normal(size=(policies + 1, seeds, 400)) + 0.5 * random.normal(
            size=(policies + 1, seeds, 1)
        )
        differences = [other - baseline for other in others]
        means = np.array([each.mean() for each in differences])
        found = replayed_intervals(means, np.stack([resampled_means(each, drawn) for each in differences]), drawn)
        held += all(each is not None and each[0] <= 0 <= each[1] for each in found)
    assert held / 200 >= at_least


def test_one_seed_has_no_interval() -> None:
    drawn = resamples(1, 400, 20)
    means = resampled_means(replays(1, 0), drawn)
    assert replayed_interval(means, drawn) is None
    assert replayed_intervals(np.zeros(2), np.stack([means, means]), drawn) == [None, None]


def test_intervals_of_ten_seeds_are_those_of_the_draws() -> None:
    drawn = resamples(10, 400, 20)
    means = resampled_means(replays(10, 0), drawn)
    assert replayed_interval(means, drawn) == pytest.approx(expanded_interval(means, 20))
    alone = simultaneous_intervals(np.zeros(1), means[None], 20)
    assert replayed_intervals(np.zeros(1), means[None], drawn) == [pytest.approx(alone[0])]


def test_intervals_are_hardly_wider_for_few_seeds_that_hardly_differ() -> None:
    drawn = resamples(2, 400, 20)
    values = np.tile(np.random.default_rng(0).normal(size=400), (2, 1))
    means = resampled_means(values, drawn)
    found, plain = replayed_interval(means, drawn), expanded_interval(means, 20)
    assert found is not None
    assert found == pytest.approx(plain, rel=0.02)


def test_draws_without_a_number_are_left_out() -> None:
    drawn = resamples(3, 400, 20)
    means = resampled_means(replays(3, 0), drawn)
    missing = np.where(np.arange(len(means)) % 50 == 0, np.nan, means)
    found = replayed_interval(missing, drawn)
    assert found is not None
    assert found == pytest.approx(replayed_interval(means, drawn), rel=0.2)


def test_a_latency_whose_interval_is_widened_for_few_seeds_is_never_below_0() -> None:
    drawn = resamples(2, 400, 20)
    means = resampled_means(5.0 + replays(2, 0, runs=3.0), drawn)
    free, of_latency = replayed_interval(means, drawn), replayed_interval(means, drawn, least=0.0)
    assert free is not None
    assert free[0] < 0
    assert of_latency == (0.0, free[1])
