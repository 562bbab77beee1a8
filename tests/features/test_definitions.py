from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lodestar.data.schema import SNAPSHOT_FIELDS
from lodestar.features.definitions import FEATURE_NAMES, FEATURES, HIT_HALF_LIFE_S, Feature, candidate_features

Floats = np.ndarray

known_or_missing = st.one_of(st.just(float("nan")), st.floats(0.0, 1e5))
snapshots = st.integers(1, 9).flatmap(
    lambda m: arrays(np.float64, (m, len(SNAPSHOT_FIELDS)), elements=known_or_missing)
)


def features_of(prompt_tokens: float, snapshot: Floats) -> dict[str, Floats]:
    out = np.empty((len(snapshot), len(FEATURES)))
    candidate_features(prompt_tokens, snapshot, out)
    return {name: out[:, column] for column, name in enumerate(FEATURE_NAMES)}


def oracle(prompt_tokens: float, snapshot: Floats) -> dict[str, Floats]:
    """Each formula once more, in NumPy and by hand."""
    field = dict(zip(SNAPSHOT_FIELDS, snapshot.T, strict=True))
    uncached = (1 - field["hit_ratio"]) * prompt_tokens
    to_first = field["prefill_tokens"] + uncached
    own = {
        "prompt_tokens": np.full(len(snapshot), prompt_tokens),
        "fresh_hit_ratio": field["hit_ratio"] * 0.5 ** (field["last_access_age_s"] / HIT_HALF_LIFE_S),
        "uncached_prompt_tokens": uncached,
        "tokens_to_first_token": to_first,
        "queued_requests": np.maximum(field["inflight_requests"] - field["running_requests"], 0),
    }
    compared = {"inflight": field["inflight_requests"], "tokens": to_first, "hit": field["hit_ratio"]}
    for name, values in compared.items():
        missing = np.isnan(values).all()
        best = np.nan if missing else np.nanmax(values) if name == "hit" else np.nanmin(values)
        own[f"{name}_above_best"] = values - best
        own[f"{name}_above_mean"] = values - (np.nan if missing else np.nanmean(values))
    return {name: own[name] if name in own else field[name] for name in FEATURE_NAMES}


@given(st.floats(1.0, 1e5), snapshots)
def test_every_feature_follows_its_formula(prompt_tokens: float, snapshot: Floats) -> None:
    found, expected = features_of(prompt_tokens, snapshot), oracle(prompt_tokens, snapshot)
    for name in FEATURE_NAMES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-6, err_msg=name)


@given(snapshots, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_has_no_influence(snapshot: Floats, random: Random) -> None:
    order = np.random.default_rng(random.randint(0, 2**31)).permutation(len(snapshot))
    straight, permuted = features_of(1000.0, snapshot), features_of(1000.0, snapshot[order])
    for name in FEATURE_NAMES:
        np.testing.assert_allclose(permuted[name], straight[name][order], rtol=1e-9, atol=1e-6, err_msg=name)


@given(st.integers(0, len(SNAPSHOT_FIELDS) - 1))
def test_a_missing_field_makes_exactly_the_features_that_need_it_missing(column: int) -> None:
    snapshot = np.random.default_rng(0).uniform(1.0, 9.0, (3, len(SNAPSHOT_FIELDS)))
    snapshot[:, column] = np.nan
    found = features_of(1000.0, snapshot)
    for feature in FEATURES:
        needs_it = SNAPSHOT_FIELDS[column] in feature.fields
        assert np.isnan(found[feature.name]).all() == needs_it, feature.name


def test_an_instance_that_is_no_candidate_is_not_compared_with() -> None:
    snapshot = np.random.default_rng(0).uniform(1.0, 9.0, (4, len(SNAPSHOT_FIELDS)))
    with_gap = np.insert(snapshot, 2, np.nan, axis=0)
    alone, beside = features_of(500.0, snapshot), features_of(500.0, with_gap)
    for name in FEATURE_NAMES:
        np.testing.assert_array_equal(np.delete(beside[name], 2), alone[name], err_msg=name)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_feature_names_its_unit_and_known_fields(feature: Feature) -> None:
    assert feature.unit in {"requests", "tokens", "ratio"}
    assert set(feature.fields) <= set(SNAPSHOT_FIELDS)
    assert "instance" not in feature.name
    assert feature.name.endswith(("_ratio", "_tokens", "_requests", "_above_best", "_above_mean", "first_token"))
