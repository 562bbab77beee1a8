"""Coverage of what SLOPE tuned, of bootstrapped ratios and of several policies at once: small; validate measures."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from lodestar.pipeline.estimation.estimators.ipw import ipw
from lodestar.pipeline.validation.compared_coverage import compared_coverage
from lodestar.pipeline.validation.coverage import Coverage
from lodestar.pipeline.validation.ranked_logs import CANDIDATES, ranked_log, true_cost
from lodestar.pipeline.validation.tuned_coverage import ALONE, MODELS, tuned_coverage


@cache
def table() -> dict[tuple[str, str], Coverage]:
    return {(row.setting, row.interval): row for row in tuned_coverage(40, seed=1)}


@pytest.mark.parametrize("rank", [None, 1, 4, CANDIDATES])
def test_the_truth_is_true_and_the_propensities_are_right(rank: int | None) -> None:
    logs = [ranked_log(seed, 1.0) for seed in range(40)]
    expected = [float(np.sum(made.rows(rank).target * made.expected)) / made.log.decisions for made in logs]
    assert np.mean(expected) == pytest.approx(true_cost(rank), rel=0.01)
    assert np.mean([ipw(made.rows(rank)).value for made in logs]) == pytest.approx(true_cost(rank), rel=0.02)


def test_tuned_intervals_hold_where_those_of_the_chosen_hyper_parameter_alone_do_not() -> None:
    shown = {key: row for key, row in table().items() if not key[0].endswith(ALONE)}
    assert {model for model, _ in shown} == set(MODELS)
    for (model, name), row in shown.items():
        alone = table()[model + ALONE, name]
        assert row.coverage >= 0.87, (model, name)  # 35 of 40; fewer by luck once in seventy
        assert alone.coverage <= row.coverage
        assert alone.mean_width < row.mean_width
    for name in ("sg-dr", "dr-os", "switch-dr"):
        assert table()["model 10 % high" + ALONE, name].coverage < 0.65
    assert table()["no model" + ALONE, "sg-ipw"].coverage < 0.65


def test_bootstrapped_ratios_and_all_differences_at_once_hold() -> None:
    rows = {(row.setting, row.interval): row for row in compared_coverage(40, seed=1)}
    assert {kind for _, kind in rows} == {"snipw, bootstrap", "sndr, bootstrap", "dr, all differences"}
    for key, row in rows.items():
        assert row.coverage >= 0.82, key
        apart = np.mean([true_cost(rank) - true_cost(None) for rank in (1, 2, 4, 7)])
        assert row.truth == pytest.approx(true_cost(1) if "bootstrap" in row.interval else apart)


def test_a_seed_repeats_the_tables() -> None:
    assert compared_coverage(2, seed=5) == compared_coverage(2, seed=5)
    assert tuned_coverage(2, seed=5) == tuned_coverage(2, seed=5) != tuned_coverage(2, seed=6)
