"""Ratios with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from lodestar.pipeline.headline.ratios import interval_of, levels, log_ratio
from lodestar.pipeline.headline.runs import Runs


def runs(ttft_ms: np.ndarray) -> Runs:
    return Runs("policy", "default", "", "", ttft_ms, 0.0)


def test_of_two_policies_that_differ_by_a_factor_all_ratios_are_that_factor_without_error() -> None:
    one = np.random.default_rng(0).exponential(100.0, (3, 400))
    found = levels([runs(one), runs(one / 2)], draws=50)
    for reference, other in found.values():
        assert interval_of(log_ratio(reference, other)) == pytest.approx((2.0, 2.0, 2.0))


def test_values_are_those_of_the_part() -> None:
    one = np.random.default_rng(0).exponential(100.0, (2, 401))
    found = levels([runs(one)], draws=20)
    assert found["mean", "whole"][0].value == pytest.approx(one.mean())
    assert found["mean", "half"][0].value == pytest.approx(one[:, 200:].mean())
    assert found["p99", "half"][0].value == pytest.approx(np.quantile(one[:, 200:], 0.99))


def test_an_interval_holds_the_truth_and_grows_with_noise() -> None:
    rng = np.random.default_rng(2)
    width = []
    for spread in (5.0, 50.0):
        one, other = (rng.normal(mean, spread, (5, 1000)) for mean in (300.0, 200.0))
        reference, its = levels([runs(one), runs(other)], draws=200)["mean", "whole"]
        _, low, high = interval_of(log_ratio(reference, its))
        assert low < 1.5 < high
        width.append(high - low)
    assert width[1] > 3 * width[0]
