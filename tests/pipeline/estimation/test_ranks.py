from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.pipeline.estimation.intervals.ranks import rank_probabilities
from lodestar.pipeline.estimation.resampling import resampled_means, resamples


def test_policies_far_apart_have_certain_ranks() -> None:
    random = np.random.default_rng(1)
    values = [random.normal(level, 1, (5, 400)) for level in (30.0, 10.0, 20.0)]
    drawn = resamples(5, 400, 20)
    found = rank_probabilities(np.stack([resampled_means(each, drawn) for each in values]))
    assert found.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_two_policies_that_differ_by_one_standard_error_win_as_a_normal_says() -> None:
    random = np.random.default_rng(2)
    first, second = random.normal(0, 1, 20_000), random.normal(2**0.5, 1, 20_000)
    assert rank_probabilities(np.stack([first, second]))[0, 0] == pytest.approx(0.841, abs=0.01)


def test_the_same_policy_under_two_names_shares_its_ranks() -> None:
    twice = np.tile(np.random.default_rng(3).normal(size=100), (2, 1))
    found = rank_probabilities(np.vstack([twice, np.full((1, 100), 99.0)]))
    assert found.tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]


def test_draws_in_which_a_policy_has_no_number_are_left_out() -> None:
    drawn = np.array([[1.0, 5.0, np.nan, 1.0], [2.0, 2.0, 2.0, 2.0]])
    assert rank_probabilities(drawn) == pytest.approx(np.array([[2, 1], [1, 2]]) / 3)


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 99))
def test_every_policy_has_one_rank_and_every_rank_one_policy(policies: int, draws: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 4, (policies, draws)).astype(float)
    found = rank_probabilities(drawn)
    assert found.sum(axis=0) == pytest.approx(np.ones(policies))
    assert found.sum(axis=1) == pytest.approx(np.ones(policies))
    np.testing.assert_array_equal(rank_probabilities(drawn[::-1]), found[::-1])
