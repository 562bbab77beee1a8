from __future__ import annotations

import math
from collections.abc import Callable

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestar.data.errors import ArtifactError
from lodestar.features.definitions import FEATURE_NAMES, FEATURES
from lodestar.models.baseline import Baseline, fit_baseline
from lodestar.models.latency import LatencyModel
from lodestar.models.rows import Rows
from lodestar.models.scorer import flatten, score, scorer_of
from lodestar.models.textmodel import parse_trees, trees_of

WIDTH = len(FEATURES)
VALUES = st.one_of(
    st.sampled_from([float("nan"), 0.0, -0.0, float("inf"), -float("inf"), 1e300, -1e300]),
    st.floats(-10.0, 10.0),
    st.floats(-1e-34, 1e-34),
)


def model_of(seed: int, names: tuple[str, ...] = FEATURE_NAMES, **extra: object) -> LatencyModel:
    """A model of random data with zeros and missing values, grown as `extra` says."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(-5.0, 5.0, (400, WIDTH))
    features[rng.random(features.shape) < 0.15] = np.nan
    features[rng.random(features.shape) < 0.15] = 0.0
    latency_ms = np.exp(rng.normal(3.0, 1.0, 400) + np.nan_to_num(features[:, 1]) + (features[:, 3] > 0))
    columns = [FEATURE_NAMES.index(name) for name in names]
    parameters = {"objective": "l2", "num_leaves": 15, "min_data_in_leaf": 3, "num_threads": 1, "verbose": -1}
    data = lgb.Dataset(features[:, columns], np.log(latency_ms), feature_name=list(names))
    booster = lgb.train(parameters | extra, data, 12)
    return LatencyModel("ttft_ms", names, fit_baseline(np.abs(features), latency_ms), booster, 1.1, {})


MODELS = {
    "usual": model_of(0),
    "zero as missing": model_of(1, zero_as_missing=True),
    "missing not used": model_of(2, use_missing=False),
    "64 leaves": model_of(3, num_leaves=64, min_data_in_leaf=1),
    "stumps that never split": model_of(4, min_data_in_leaf=399),
    "features in another order": model_of(5, FEATURE_NAMES[::-1]),
    "some of the features": model_of(6, FEATURE_NAMES[2:7]),
    "many nodes of two features": model_of(10, FEATURE_NAMES[2:4], num_leaves=64, min_data_in_leaf=1),
    "zero as missing, many nodes": model_of(11, FEATURE_NAMES[2:4], num_leaves=64, zero_as_missing=True),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@given(rows=st.lists(st.lists(VALUES, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=64))
@settings(max_examples=30, deadline=None)
def test_the_compiled_scorer_equals_lightgbm_with_any_mix_of_missing_and_zero(
    model: LatencyModel, rows: list[list[float]]
) -> None:
    features, scored_ms = np.array(rows), np.empty(len(rows))
    score(features, scorer_of(model), scored_ms)
    np.testing.assert_allclose(scored_ms, model.predict(features), rtol=1e-9)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_rows_exactly_on_a_threshold_go_the_same_way(model: LatencyModel) -> None:
    scorer = scorer_of(model)
    features = np.zeros((len(scorer.threshold), WIDTH))
    for row, (column, threshold) in enumerate(
        zip(np.repeat(np.arange(WIDTH), np.diff(scorer.node_start)), scorer.threshold, strict=True)
    ):
        features[row, column] = threshold
    scored_ms = np.empty(len(features))
    score(features, scorer, scored_ms)
    np.testing.assert_allclose(scored_ms, model.predict(features) if len(features) else [], rtol=1e-9)


def test_more_leaves_than_bits_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"65 leaves|leaves; expected at most 64"):
        scorer_of(model_of(7, num_leaves=80, min_data_in_leaf=1))


@pytest.mark.parametrize("extra", [{"linear_tree": True}, {"categorical_feature": [1]}], ids=["linear", "categorical"])
def test_trees_that_the_scorer_cannot_walk_are_refused(extra: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="linear or categorical"):
        scorer_of(model_of(8, **extra))


@pytest.mark.parametrize(
    "extra", [{"reg_sqrt": True}, {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}], ids=["sqrt", "rf"]
)
def test_a_model_that_does_more_than_add_its_leaves_is_refused(extra: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="expected a sum of leaves"):
        scorer_of(model_of(12, **extra))


def test_an_objective_that_transforms_the_sum_is_refused_by_name() -> None:
    text = model_of(12).text()
    assert "\nobjective=regression\n" in text
    with pytest.raises(ArtifactError, match="objective 'poisson'"):
        trees_of(text.replace("\nobjective=regression\n", "\nobjective=poisson\n"))


@pytest.mark.parametrize("objective", ["l1", "huber", "fair", "quantile", "mape"])
def test_every_objective_whose_leaves_are_added_scores_as_lightgbm_does(objective: str) -> None:
    model = model_of(13, objective=objective)
    features, scored_ms = np.random.default_rng(0).uniform(-5.0, 5.0, (64, WIDTH)), np.empty(64)
    score(features, scorer_of(model), scored_ms)
    np.testing.assert_allclose(scored_ms, model.predict(features), rtol=1e-9)


def test_the_sum_of_the_leaves_is_lightgbms_to_the_last_bit() -> None:
    model = model_of(14, num_leaves=31)
    plain = flatten(parse_trees(model.booster), model.features, Baseline({}, 1.0))
    features, found = np.random.default_rng(1).uniform(-5.0, 5.0, (64, WIDTH)), np.empty(64)
    score(features, plain, found)
    assert found.tolist() == [math.exp(raw) for raw in model.booster.predict(features).tolist()]


def test_half_a_text_is_refused() -> None:
    text = model_of(15).text()
    with pytest.raises(ArtifactError, match="no trees from start to end"):
        trees_of(text[: len(text) // 4])


def test_a_feature_that_this_version_does_not_make_is_named(make_rows: Callable[..., Rows]) -> None:
    model = model_of(9)
    strange = LatencyModel("ttft_ms", ("moon_phase", *FEATURE_NAMES[1:]), model.baseline, model.booster, 1.0, {})
    with pytest.raises(ArtifactError, match="'moon_phase'"):
        scorer_of(strange)
