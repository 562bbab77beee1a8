"""Exports against LightGBM itself, which is no part of them; skipped where their packages are not installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.features.definitions import FEATURE_NAMES, FEATURES
from lodestar.models.baseline import Baseline, fit_baseline
from lodestar.models.exports import formats
from lodestar.models.exports.formats import FORMATS, ExportFormat, check_export, write_export
from lodestar.models.latency import LatencyModel
from lodestar.models.seal import write_manifest
from lodestar.models.shipping.check import check
from lodestar.models.shipping.write import ranges_of, write_artifact
from lodestar.models.slices import SLICES
from lodestar.models.uncertainty.conformal import QUANTILES, Conformal

Floats = NDArray[np.float64]
WIDTH = len(FEATURES)
ROUNDING = {"treelite": 1e-12, "onnx": 5e-7}  # ONNX rounds the sum of the leaves to 32 bits
COUNTS = [FEATURE_NAMES.index(name) for name in ("waiting_requests", "queued_requests", "running_requests")]


@pytest.fixture(params=list(FORMATS))
def form(request: pytest.FixtureRequest) -> str:
    for package in (*FORMATS[request.param].writes, *FORMATS[request.param].runs):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'lodestar-router[export]'")
    return str(request.param)


def features_of(rows: int, seed: int) -> Floats:
    """Rows with missing values, zeros, and whole numbers that lie on thresholds."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(-5.0, 5.0, (rows, WIDTH))
    features[:, COUNTS] = rng.integers(0, 9, (rows, len(COUNTS)))
    features[rng.random(features.shape) < 0.15] = np.nan
    features[rng.random(features.shape) < 0.1] = 0.0
    return features


def model_of(seed: int, names: tuple[str, ...] = FEATURE_NAMES, gaps: bool = True, **extra: object) -> LatencyModel:
    rng = np.random.default_rng(seed)
    features = features_of(500, seed) if gaps else np.nan_to_num(features_of(500, seed))
    latency_ms = np.exp(rng.normal(3.0, 1.0, 500) + np.nan_to_num(features[:, 1]) + (features[:, 3] > 0))
    baseline = fit_baseline(np.abs(features), latency_ms)
    inputs = features[:, [FEATURE_NAMES.index(name) for name in names]]
    target = np.log(latency_ms / baseline.predict(features))

    def trees(**objective: object) -> lgb.Booster:
        common = {"num_leaves": 15, "min_data_in_leaf": 3, "num_threads": 1, "verbose": -1}
        return lgb.train(common | objective | extra, lgb.Dataset(inputs, target, feature_name=list(names)), 12)

    slices, at_s = rng.integers(0, len(SLICES), 400), np.arange(400.0)
    scores = rng.normal(0.0, 0.5, (400, len(QUANTILES)))
    conformal = Conformal.fresh().follow(slices, scores, at_s, at_s)[1]
    heads = {"p90": trees(objective="quantile", alpha=0.9)}
    return LatencyModel("ttft_ms", names, baseline, trees(objective="l2"), 1.1, heads, conformal)


def full_steps(model: LatencyModel) -> LatencyModel:
    """The same model with a baseline that has a ceiling, which half of the rows reach."""
    ceiling_ms = float(np.median(model.baseline.predict(features_of(500, 9))))
    return replace(model, baseline=Baseline(model.baseline.coefficients_ms, model.baseline.floor_ms, ceiling_ms))


MODELS = {
    "all features": model_of(0),
    "some features": model_of(1, FEATURE_NAMES[3:12]),
    "nothing was missing in training": model_of(2, gaps=False),
    "trees that never split": model_of(3, min_data_in_leaf=499),
    "no head": replace(model_of(4), heads={}),
    "a ceiling": full_steps(model_of(5)),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_an_export_gives_what_lightgbm_gives_to_rounding(form: str, model: LatencyModel, tmp_path: Path) -> None:
    export = FORMATS[form]
    files = export.write(tmp_path, "ttft_ms", model)
    assert sorted(files) == sorted(path.name for path in tmp_path.iterdir())
    rows = features_of(2000, 7)
    found = export.answers(tmp_path, "ttft_ms", json.loads(json.dumps(model.to_dict())), rows)
    columns = model.predict_quantiles(rows).T
    expected = {"mean": model.predict(rows)} | dict(zip(QUANTILES, columns, strict=True))
    assert list(found) == list(expected)
    for name, ms in expected.items():
        np.testing.assert_allclose(found[name], ms, rtol=ROUNDING[form], err_msg=name)


def test_thresholds_are_met_in_64_bits(form: str, tmp_path: Path) -> None:
    """Values beside a threshold, closer to it than 32-bit floats can tell, fall on the side that LightGBM says."""
    model = MODELS["some features"]
    column = FEATURE_NAMES.index(model.features[0])
    dumped = model.booster.dump_model()["tree_info"]
    (threshold, *_) = [
        node["threshold"] for tree in dumped for node in splits(tree["tree_structure"]) if node["split_feature"] == 0
    ]
    rows = np.repeat(features_of(50, 3), 2, axis=0)
    rows[::2, column], rows[1::2, column] = threshold, np.nextafter(threshold, np.inf)
    FORMATS[form].write(tmp_path, "ttft_ms", model)
    expected = model.predict(rows)
    assert np.float32(rows[0, column]) == np.float32(rows[1, column])
    assert (expected[::2] != expected[1::2]).any()
    found = FORMATS[form].answers(tmp_path, "ttft_ms", model.to_dict(), rows)["mean"]
    np.testing.assert_allclose(found, expected, rtol=ROUNDING[form])


def splits(node: dict) -> list[dict]:
    children = [node[side] for side in ("left_child", "right_child") if side in node]
    return ([node] if children else []) + [each for child in children for each in splits(child)]


def test_a_split_that_takes_zero_as_missing_is_refused(form: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="a split of ttft_ms takes zero as missing"):
        write_export(form, tmp_path, {"ttft_ms": model_of(6, zero_as_missing=True)})
    assert not any(tmp_path.iterdir())


@pytest.fixture
def exported(form: str, tmp_path: Path, make_rows: Callable) -> Path:
    models = {"ttft_ms": MODELS["all features"], "ttft_ms@V100": MODELS["some features"]}
    features = features_of(500, 0)
    record = {"rows": 500, "feature_ranges": ranges_of(np.nanmin(features, axis=0), np.nanmax(features, axis=0))}
    (tmp_path / "artifact").mkdir()
    write_artifact(
        tmp_path / "artifact", models, records=dict.fromkeys(models, record), dataset="online", exports=[form]
    )
    return tmp_path / "artifact"


def test_an_artifact_says_how_its_exports_are_to_be_read_and_how_far_they_agree(form: str, exported: Path) -> None:
    stated = json.loads((exported / "manifest.json").read_text())["exports"][form]
    assert stated["tolerance"] == {"treelite": 1e-9, "onnx": 1e-6}[form]
    assert set(stated["files"]) == {"ttft_ms", "ttft_ms@V100"}
    assert set(stated["libraries"]) == {*FORMATS[form].writes, *FORMATS[form].runs}
    found = check(exported)["exports"][form]
    assert found["checked"]
    assert 0.0 <= found["worst_difference"] < ROUNDING[form]


def test_an_export_of_another_model_is_refused_though_all_hashes_fit(form: str, exported: Path, tmp_path: Path) -> None:
    other = model_of(8)
    (tmp_path / "other").mkdir()
    FORMATS[form].write(tmp_path / "other", "ttft_ms", other)
    shutil.copytree(tmp_path / "other", exported, dirs_exist_ok=True)
    reseal(exported)
    with pytest.raises(ArtifactError, match=f"the {form} export gives .* of golden row .*, expected .* to 1e-0[69]"):
        check(exported)


def test_a_file_that_cannot_be_run_is_refused(form: str, exported: Path) -> None:
    for name in json.loads((exported / "manifest.json").read_text())["exports"][form]["files"]["ttft_ms"]:
        (exported / name).write_bytes(b"no model")
    reseal(exported)
    with pytest.raises(ArtifactError, match=f"the {form} export of ttft_ms cannot be run"):
        check(exported)


def test_an_export_whose_packages_are_missing_is_said_not_to_be_checked(
    form: str, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, form, replace(FORMATS[form], runs=("no_such_package",)))
    report = check(exported)
    assert report["exports"][form]["said"] == "not checked: no_such_package is not installed"
    assert (report["exports"][form]["checked"], report["golden_rows"]) == (False, 64)


def test_a_missing_package_is_one_line_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ExportFormat(("no_such_package",), (), 1e-9, "", FORMATS["onnx"].write, FORMATS["onnx"].answers)
    monkeypatch.setitem(formats.FORMATS, "absent", absent)
    with pytest.raises(
        ConfigError, match=r"--with absent needs the package no_such_package.*lodestar-router\[export\]"
    ):
        write_export("absent", Path(), {})


def test_a_format_of_a_later_version_is_refused() -> None:
    with pytest.raises(ArtifactError, match="export 'coreml' is not known; expected some of treelite, onnx"):
        check_export("coreml", Path("x"), {"exports": {"coreml": {}}}, np.empty((0, WIDTH)), {})


def reseal(directory: Path) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").unlink()
    write_manifest(directory, {k: v for k, v in manifest.items() if k not in ("sha256", "manifest_sha256")})
