"""What a router that learns online writes: no dataset, no MLflow, models of one kind of instance beside the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.latency import LatencyModel
from lodestar.models.seal import write_manifest
from lodestar.models.serving import Decider
from lodestar.models.shipping.check import check, load_artifact
from lodestar.models.shipping.write import write_artifact

KIND = "ttft_ms@A100/40.5 GB"
Written = tuple[dict[str, LatencyModel], dict[str, dict[str, object]]]


def test_every_model_is_read_again_by_its_name_whatever_the_kind_is_called(sound: Path, written: Written) -> None:
    models, _ = written
    rows = np.random.default_rng(0).uniform(0.0, 5.0, (40, len(FEATURE_NAMES)))
    decider = Decider.load(sound)
    assert list(decider.targets) == list(models) == list(load_artifact(sound))
    for key, model in models.items():
        np.testing.assert_allclose(decider.targets[key].mean_ms(rows), model.predict(rows), rtol=1e-12)
    assert "ttft_ms@A100%2F40%2E5%20GB.txt" in {path.name for path in sound.iterdir()}


def test_the_manifest_says_what_each_model_has_seen_and_what_the_router_is_to_run(sound: Path) -> None:
    manifest = json.loads((sound / "manifest.json").read_text())
    entry = manifest["targets"][KIND]
    assert (entry["target"], entry["kind"], entry["rows"]) == ("ttft_ms", "A100/40.5 GB", 300)
    assert entry["feature_ranges"]["prefill_tokens"][1] <= 9000.0
    assert (manifest["dataset"], manifest["trained_at_s"], manifest["gate"]) == ("online", 1.7e9, {})
    assert manifest["policy"] == {"name": "lodestar-online", "settings": {}}


def test_a_sound_artifact_passes_and_golden_rows_cover_every_model(sound: Path, written: Written) -> None:
    report = check(sound)
    assert report["targets"] == dict.fromkeys(written[0], 5)
    assert set(json.loads((sound / "golden.json").read_text())["expected_ms"]) == set(written[0])
    assert report["exports"] == {}


def test_the_same_models_make_the_same_bytes(sound: Path, written: Written, tmp_path: Path) -> None:
    models, records = written
    version = write_artifact(tmp_path, models, records=records, dataset="online", trained_at_s=1.7e9)
    assert version == check(sound)["version"]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in sound.iterdir()}


def test_an_objective_without_a_model_is_refused(written: Written, tmp_path: Path) -> None:
    models, records = written
    with pytest.raises(ConfigError, match="objective 'e2e_ms' has no model; expected one of ttft_ms"):
        write_artifact(tmp_path, models, records=records, dataset="online", objective="e2e_ms")


def test_a_model_that_answers_differently_is_refused_by_the_name_of_its_kind(artifact: Path) -> None:
    golden = json.loads((artifact / "golden.json").read_text())
    golden["expected_ms"][KIND]["p99"][7] *= 1 + 1e-8
    (artifact / "golden.json").write_text(json.dumps(golden))
    reseal(artifact)
    with pytest.raises(ArtifactError, match=r"p99 ttft_ms@A100/40\.5 GB of row 7"):
        check(artifact)


@pytest.mark.parametrize("field", ["policy", "gate", "exports"])
def test_a_manifest_without_a_field_is_refused_by_the_name_of_it(artifact: Path, field: str) -> None:
    reseal(artifact, without=field)
    with pytest.raises(ArtifactError, match=f"manifest.json has no '{field}'"):
        check(artifact)


def test_a_model_of_no_target_is_refused(artifact: Path) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    reseal(artifact, targets={"speed@V100": manifest["targets"]["ttft_ms"]})
    for load in (check, Decider.load):
        with pytest.raises(ArtifactError, match="model 'speed@V100' is of no target"):
            load(artifact)


def reseal(directory: Path, without: str = "", **changed: object) -> None:
    """Write the manifest again, so that all hashes fit what is there."""
    manifest = json.loads((directory / "manifest.json").read_text()) | changed
    (directory / "manifest.json").unlink()
    dropped = {"sha256", "manifest_sha256", without}
    write_manifest(directory, {name: value for name, value in manifest.items() if name not in dropped})
