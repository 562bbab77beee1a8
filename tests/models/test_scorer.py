from __future__ import annotations

from collections.abc import Callable

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestar.data.errors import ArtifactError
from lodestar.features.definitions import FEATURE_NAMES, FEATURES
from lodestar.models.baseline import fit_baseline
from lodestar.models.latency import LatencyModel
from lodestar.models.rows import Rows
from lodestar.models.scorer import score, scorer_of

WIDTH = len(FEATURES)
VALUES = st.one_of(st.just(float("nan")), st.just(0.0), st.floats(-10.0, 10.0), st.floats(-1e-34, 1e-34))


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
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@given(rows=st.lists(st.lists(VALUES, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
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


def test_a_feature_that_this_version_does_not_make_is_named(make_rows: Callable[..., Rows]) -> None:
    model = model_of(9)
    strange = LatencyModel("ttft_ms", ("moon_phase", *FEATURE_NAMES[1:]), model.baseline, model.booster, 1.0, {})
    with pytest.raises(ArtifactError, match="'moon_phase'"):
        scorer_of(strange)
