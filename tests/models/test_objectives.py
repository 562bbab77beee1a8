from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lodestar.data.errors import ConfigError, DataError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.objectives import OBJECTIVES, row_weights, usable_objectives
from lodestar.models.rows import Rows
from lodestar.models.slices import load_slice

MakeRows = Callable[..., Rows]


@pytest.fixture
def rows(make_rows: MakeRows) -> Rows:
    made = make_rows(400)
    return replace(made, propensity=np.where(np.arange(400) % 2, 0.8, 0.2))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_weights_are_positive_and_one_in_the_mean(rows: Rows, objective: str) -> None:
    physical_ms = np.random.default_rng(0).lognormal(5, 1, len(rows))
    weights = row_weights(objective, rows, physical_ms)
    assert weights.shape == (len(rows),)
    assert weights.min() > 0
    assert weights.mean() == pytest.approx(1.0)


def test_ms_weighs_by_the_baseline_to_the_last_bit(rows: Rows) -> None:
    physical_ms = np.random.default_rng(0).lognormal(5, 1, len(rows))
    assert np.array_equal(row_weights("ms", rows, physical_ms), physical_ms / physical_ms.mean())


def test_by_propensity_every_candidate_weighs_as_a_uniform_logger_would_have_chosen_it(rows: Rows) -> None:
    weights = row_weights("propensity", rows, np.ones(len(rows)))
    rng = np.random.default_rng(0)
    latency_ms = np.array([100.0, 300.0])  # of two candidates; one is logged four times as often
    logged = (rng.random(20_000) < 0.8).astype(np.int64)
    many = replace(rows, propensity=np.where(logged, 0.8, 0.2), latency_ms=latency_ms[logged])
    weights = row_weights("propensity", many, np.ones(20_000))
    assert np.average(many.latency_ms, weights=weights) == pytest.approx(latency_ms.mean(), rel=0.01)


@pytest.mark.parametrize("unfit", [np.nan, 0.0, 1.5])
def test_without_propensities_it_says_so_and_names_a_way_out(rows: Rows, unfit: float) -> None:
    rows.propensity[7] = unfit
    with pytest.raises(DataError, match=r"1 of 400 rows have no propensity.*Ingest a log that has them"):
        row_weights("propensity", rows, np.ones(len(rows)))
    assert usable_objectives(rows) == [name for name in OBJECTIVES if name != "propensity"]


def test_every_slice_with_rows_weighs_the_same(rows: Rows) -> None:
    rows.features[:, FEATURE_NAMES.index("waiting_requests")] = np.where(np.arange(400) < 390, 0.0, 8.0)
    weights, of_slice = row_weights("balanced", rows, np.ones(400)), load_slice(rows.features)
    totals = np.bincount(of_slice, weights)
    assert totals[totals > 0] == pytest.approx([200.0, 200.0])


def test_short_baselines_weigh_more_and_the_longest_at_least_half(rows: Rows) -> None:
    weights = row_weights("choice", rows, np.geomspace(10, 1e5, 400))
    assert (np.diff(weights) < 0).all()
    assert weights.min() > 0.5
    assert row_weights("choice", rows, np.full(400, 70.0)) == pytest.approx(np.ones(400))


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "ms"])
def test_but_for_ms_the_unit_of_the_baseline_does_not_matter(rows: Rows, objective: str) -> None:
    physical_ms = np.geomspace(10, 1e5, 400)
    assert row_weights(objective, rows, physical_ms) == pytest.approx(row_weights(objective, rows, physical_ms / 1e3))


def test_an_unknown_objective_is_refused_with_the_closest_name(rows: Rows) -> None:
    with pytest.raises(ConfigError, match=r"objective 'ration' is not known; did you mean 'ratio'"):
        row_weights("ration", rows, np.ones(400))
