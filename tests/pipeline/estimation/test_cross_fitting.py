from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.cross_fitting import cross_fitted, time_folds
from lodestar.pipeline.estimation.least_squares import linear_costs, weighted_least_squares
from one_step_world import changed, world

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@pytest.mark.parametrize(("decisions", "folds"), [(8, 4), (10, 4), (5, 5), (1001, 7)])
def test_folds_are_blocks_of_time_of_like_length(decisions: int, folds: int) -> None:
    fold = time_folds(decisions, folds)
    assert (np.diff(fold) >= 0).all()
    sizes = np.bincount(fold)
    assert len(sizes) == folds
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("folds", [1, 4])
def test_folds_that_do_not_fit_are_refused(folds: int) -> None:
    with pytest.raises(ConfigError, match=f"{folds} folds do not fit 3 decisions"):
        time_folds(3, folds)


def test_a_block_is_predicted_by_all_others_and_never_by_itself() -> None:
    rows, _ = world(0, n=100)
    seen: list[Bools] = []

    def fit(training: Bools) -> Callable[[slice], Floats]:
        seen.append(training)
        return lambda candidates: np.full(candidates.stop - candidates.start, float(len(seen)))

    predicted = cross_fitted(fit, rows.log, folds=4)
    assert predicted.tolist() == np.repeat([1.0, 2.0, 3.0, 4.0], 125).tolist()
    for block, training in enumerate(seen):
        assert np.flatnonzero(~training).tolist() == list(range(25 * block, 25 * block + 25))


def test_a_gap_leaves_out_what_was_in_flight_on_either_side() -> None:
    rows, _ = world(0, n=100)
    seen: list[Bools] = []

    def fit(training: Bools) -> Callable[[slice], Floats]:
        seen.append(training)
        return lambda candidates: np.zeros(candidates.stop - candidates.start)

    cross_fitted(fit, rows.log, folds=4, gap=5)
    left_out = [np.flatnonzero(~training) for training in seen]
    assert [(each[0], each[-1]) for each in left_out] == [(0, 29), (20, 54), (45, 79), (70, 99)]


@pytest.mark.parametrize(("gap", "message"), [(-1, "gap -1 does not fit"), (75, "gap 75 leaves nothing to learn from")])
def test_a_gap_that_does_not_fit_is_refused(gap: int, message: str) -> None:
    rows, _ = world(0, n=100)
    with pytest.raises(ConfigError, match=message):
        cross_fitted(lambda _: lambda candidates: np.zeros(candidates.stop - candidates.start), rows.log, 4, gap)


def test_costs_of_a_block_leave_its_own_predictions_alone() -> None:
    rows, _ = world(0, n=100)
    assert rows.features is not None
    before = linear_costs(rows.log, rows.features)
    cost = rows.log.cost.copy()
    cost[25:50] += 1e6
    after = linear_costs(changed(rows, cost=cost).log, rows.features)
    own = slice(25 * 5, 50 * 5)
    assert (before[own] == after[own]).all()
    assert (np.delete(before, np.r_[own]) != np.delete(after, np.r_[own])).all()


def test_a_linear_cost_is_foretold_exactly() -> None:
    rows, _ = world(0, n=100)
    assert rows.features is not None
    linear = 7.0 + rows.features @ np.array([3.0, -2.0])
    log = changed(rows, cost=linear[rows.log.chosen]).log
    constant = np.column_stack([rows.features, np.full(len(linear), 1e5), 2 * rows.features[:, 0]])
    assert linear_costs(log, constant) == pytest.approx(linear)


@pytest.mark.parametrize("constant", [0.1, 1e5 / 3])
def test_a_feature_that_is_the_same_in_all_rows_but_for_rounding_counts_for_nothing(constant: float) -> None:
    random = np.random.default_rng(0)
    features = np.column_stack([random.normal(size=50), np.full(50, constant)])
    model = weighted_least_squares(features, random.normal(size=50), random.gamma(1.0, 1.0, 50))
    assert model.coefficients[1] == 0.0
    moved = features + np.array([0.0, 1.0])
    assert np.array_equal(model.predict(moved), model.predict(features))


def test_weights_say_how_much_a_row_counts() -> None:
    features, cost = np.array([[0.0], [1.0], [1.0]]), np.array([0.0, 1.0, 4.0])
    model = weighted_least_squares(features, cost, np.array([1.0, 2.0, 1.0]))
    assert (model.intercept, model.coefficients[0]) == (pytest.approx(0.0), pytest.approx(2.0))


def test_the_penalty_of_the_ridge_by_hand() -> None:
    model = weighted_least_squares(np.array([[-1.0], [1.0]]), np.array([1.0, 5.0]), np.ones(2), ridge=2.0)
    assert (model.intercept, model.coefficients[0]) == (pytest.approx(3.0), pytest.approx(4.0 / (2 + 2)))


def test_what_cannot_be_fitted_is_named() -> None:
    features, cost = np.array([[0.0], [np.nan]]), np.array([1.0, 2.0])
    with pytest.raises(DataError, match="a feature of a chosen candidate is not finite"):
        weighted_least_squares(features, cost, np.ones(2))
    with pytest.raises(DataError, match="no row has weight"):
        weighted_least_squares(features, cost, np.zeros(2))
    with pytest.raises(ConfigError, match="ridge -1 does not fit"):
        weighted_least_squares(features, cost, np.ones(2), ridge=-1.0)
