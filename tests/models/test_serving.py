from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightgbm_c_api import CModel
from lodestar.data.errors import ArtifactError, ConfigError, DataError
from lodestar.data.schema import SNAPSHOT_FIELDS
from lodestar.features.definitions import FEATURE_NAMES, FEATURES, candidate_features
from lodestar.models.baseline import fit_baseline
from lodestar.models.latency import LatencyModel
from lodestar.models.seal import SCHEMA_VERSION, write_manifest
from lodestar.models.serving import Decider, TargetScorer, all_paths
from lodestar.models.slices import SLICES
from lodestar.models.uncertainty.conformal import QUANTILES, Conformal

WIDTH = len(FEATURES)
VALUES = st.one_of(
    st.sampled_from([np.nan, 0.0, -0.0, 1e-36, 1e300, -1e300, np.inf, -np.inf, 1.0, 2.0, 3.0, 6.0]),
    st.floats(-10.0, 10.0),
)
BOOSTING = {"num_leaves": 15, "min_data_in_leaf": 3, "num_threads": 1, "verbose": -1}


def conformal_of(seed: int) -> Conformal:
    """Offsets that differ by slice and cross between quantiles."""
    rng = np.random.default_rng(seed)
    slices, at_s = rng.integers(0, len(SLICES), 400), np.arange(400.0)
    return Conformal.fresh().follow(slices, rng.normal(0.0, 0.5, (400, len(QUANTILES))), at_s, at_s)[1]


def model_of(seed: int, names: tuple[str, ...] = FEATURE_NAMES, **extra: object) -> LatencyModel:
    rng = np.random.default_rng(seed)
    features = rng.uniform(-5.0, 5.0, (400, WIDTH))
    features[rng.random(features.shape) < 0.15] = np.nan
    features[rng.random(features.shape) < 0.15] = 0.0
    latency_ms = np.exp(rng.normal(3.0, 1.0, 400) + np.nan_to_num(features[:, 1]) + (features[:, 3] > 0))
    baseline = fit_baseline(np.abs(features), latency_ms)
    inputs = features[:, [FEATURE_NAMES.index(name) for name in names]]
    target = np.log(latency_ms / baseline.predict(features))

    def trees(objective: str, alpha: float = 0.9) -> lgb.Booster:
        parameters = BOOSTING | {"objective": objective, "alpha": alpha} | extra
        return lgb.train(parameters, lgb.Dataset(inputs, target, feature_name=list(names)), 12)

    heads = {name: trees("quantile", share) for name, share in QUANTILES.items()}
    return LatencyModel("ttft_ms", names, baseline, trees("l2"), 1.1, heads, conformal_of(seed))


MODELS = {
    "all features": model_of(0),
    "some features, zero as missing": model_of(1, FEATURE_NAMES[3:12], zero_as_missing=True),
    "trees that never split": model_of(2, min_data_in_leaf=399),
}


def write_artifact(directory: Path, models: dict[str, LatencyModel], version: int = SCHEMA_VERSION) -> Path:
    """The part of an artifact that serving reads."""
    directory.mkdir()
    for target, model in models.items():
        model.save_trees(directory, target)
    targets = {target: {"model": model.to_dict()} for target, model in models.items()}
    write_manifest(directory, {"schema_version": version, "targets": targets})
    return directory


def in_ms(model: LatencyModel, raw: np.ndarray, features: np.ndarray, head: str | None) -> np.ndarray:
    ratio = np.exp(raw) if head else model.mean_ratio * np.exp(raw)
    return model.baseline.predict(features) * ratio


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@given(rows=st.lists(st.lists(VALUES, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=64))
@settings(max_examples=25, deadline=None)
def test_every_path_gives_the_same_mean_and_quantiles(model: LatencyModel, rows: list[list[float]]) -> None:
    features = np.array(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        paths = all_paths(model, features)
    expected = paths["LightGBM"]
    assert list(expected) == ["mean", *QUANTILES]
    for path in ("the replay", "serving"):
        for name, found_ms in paths[path].items():
            np.testing.assert_allclose(found_ms, expected[name], rtol=1e-9, err_msg=f"{path}, {name}")
    assert list(paths["serving"]) == list(expected)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("head", [None, "p90"])
def test_the_c_api_gives_the_same_row_by_row_and_all_at_once(model: LatencyModel, head: str | None) -> None:
    rng = np.random.default_rng(5)
    features = rng.uniform(-6.0, 6.0, (64, WIDTH))
    features[rng.random(features.shape) < 0.2] = np.nan
    features[rng.random(features.shape) < 0.2] = 0.0
    scorer = TargetScorer.of(model.to_dict(), model.texts())
    with CModel(model.texts()[head or ""], len(model.features), 64) as c:
        c.rows[:] = features[:, [FEATURE_NAMES.index(name) for name in model.features]]
        found = [in_ms(model, c.all_rows().copy(), features, head), in_ms(model, c.row_by_row(), features, head)]
    served = replace(scorer, mean=scorer.heads[head] if head else scorer.mean).mean_ms(features)
    for ms in found:
        np.testing.assert_allclose(ms, served, rtol=1e-9)


def test_an_artifact_is_served_without_lightgbm_as_the_trained_model_predicts(tmp_path: Path) -> None:
    models = {"ttft_ms": MODELS["all features"], "e2e_ms": MODELS["some features, zero as missing"]}
    folder = write_artifact(tmp_path / "artifact", models)
    code = (
        "import json, sys; from pathlib import Path; import numpy as np; from lodestar.models.serving import Decider; "
        "snapshot = np.arange(80.0).reshape(8, 10) / 9; "
        "told = Decider.load(Path(sys.argv[1])).predict(700, snapshot, quantiles=True); "
        "slow = [name for name in ('lightgbm', 'mlflow', 'pandas', 'sklearn') if name in sys.modules]; "
        "print(json.dumps([slow, {t: [p.mean_ms.tolist(), p.quantiles_ms.tolist()] for t, p in told.items()}]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    slow, told = json.loads(done.stdout)
    assert slow == []
    features = np.empty((8, WIDTH))
    candidate_features(700.0, np.arange(80.0).reshape(8, 10) / 9, features)
    assert list(told) == list(models)
    for target, (mean_ms, quantiles_ms) in told.items():
        np.testing.assert_allclose(mean_ms, models[target].predict(features), rtol=1e-9)
        np.testing.assert_allclose(quantiles_ms, models[target].predict_quantiles(features), rtol=1e-9)


def test_a_candidate_alone_is_predicted_as_models_in_this_process_do() -> None:
    model = MODELS["all features"]
    decider, snapshot = Decider.of({"ttft_ms": model}), np.full((1, len(SNAPSHOT_FIELDS)), np.nan)
    features = np.empty((1, WIDTH))
    candidate_features(np.nan, snapshot, features)
    told = decider.predict(0, snapshot, ["ttft_ms"])["ttft_ms"]  # a prompt of 0 tokens is one of unknown length
    np.testing.assert_allclose(told.mean_ms, model.predict(features), rtol=1e-9)
    assert told.quantiles_ms is None


def test_what_a_decision_cannot_be_made_of_is_named(tmp_path: Path) -> None:
    model = MODELS["all features"]
    no_heads = LatencyModel(model.target, model.features, model.baseline, model.booster, 1.0)
    decider = Decider.of({"ttft_ms": no_heads})
    snapshot = np.zeros((3, len(SNAPSHOT_FIELDS)))
    with pytest.raises(DataError, match=r"shape \(3, 4\); expected \(candidates, 10\)"):
        decider.predict(10, snapshot[:, :4])
    with pytest.raises(ConfigError, match="'tpot_ms'"):
        decider.predict(10, snapshot, ["tpot_ms"])
    with pytest.raises(ArtifactError, match="schema version 2; expected 3"):
        Decider.load(write_artifact(tmp_path / "old", {"ttft_ms": no_heads}, version=2))
    changed = write_artifact(tmp_path / "changed", {"ttft_ms": no_heads})
    with (changed / "ttft_ms.txt").open("a") as file:
        file.write(" ")
    with pytest.raises(ArtifactError, match=r"ttft_ms\.txt was changed"):
        Decider.load(changed)
