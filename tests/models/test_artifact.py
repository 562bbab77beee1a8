from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.artifact import check, load_artifact
from lodestar.models.candidate import full_fit
from lodestar.models.dataset import TrainingData
from lodestar.models.parameters import Parameters
from lodestar.models.registry.current import Trained, load_current, save_current
from lodestar.models.rows import Rows
from lodestar.models.seal import write_manifest
from lodestar.models.shipping.place import put_in_place, scratch_for
from lodestar.models.shipping.ship import ship
from lodestar.models.uncertainty.heads import HEADS

TREES = [f"{target}_ms{head}.txt" for target in ("tpot", "ttft") for head in ("", *(f".{name}" for name in HEADS))]
FILES = ("golden.json", "manifest.json", *TREES)
SMALL = Parameters(rounds=10, min_data_in_leaf=20)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, make_rows: Callable[..., Rows]) -> tuple[Workspace, Path]:
    """An artifact of both targets and the workspace behind it."""
    workspace = Workspace.open(tmp_path_factory.mktemp("home"))
    trained: dict[str, Trained] = {}
    for seed, target in enumerate(("ttft_ms", "tpot_ms")):
        rows = make_rows(300, seed=seed)
        data = TrainingData("made", "f" * 64, [str(i) for i in range(300)], {target: rows}, {}, {})
        outcome = full_fit(data, target, SMALL, 0, None, "")
        assert outcome.trained is not None
        trained[target] = outcome.trained
    save_current(workspace, "made", trained)
    ship(workspace, "made", workspace.home / "artifact", ungated=True)
    return workspace, workspace.home / "artifact"


@pytest.fixture
def artifact(shipped: tuple[Workspace, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(shipped[1], tmp_path / "artifact")
    return tmp_path / "artifact"


def test_an_artifact_holds_what_a_router_needs_to_know(artifact: Path) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert sorted(path.name for path in artifact.iterdir()) == sorted(FILES)
    assert manifest["objective"] == "ttft_ms"
    assert [feature["name"] for feature in manifest["features"]] == list(FEATURE_NAMES)
    entry = manifest["targets"]["ttft_ms"]
    assert entry["model"]["heads"] == list(HEADS)
    assert entry["model"]["conformal"]["slices"] == ["0", "1-2", "3-5", "6+", "unknown"]
    assert set(entry["feature_ranges"]) == set(FEATURE_NAMES)
    assert entry["data_fingerprint"] == "f" * 64
    assert set(manifest["sha256"]) == set(FILES) - {"manifest.json"}


def test_a_sound_artifact_passes_and_loads_the_same_model(shipped: tuple[Workspace, Path], artifact: Path) -> None:
    report = check(artifact)
    assert (report["golden_rows"], report["targets"]) == (64, {"ttft_ms": 10, "tpot_ms": 10})
    rows = np.random.default_rng(0).uniform(0, 5, (30, len(FEATURE_NAMES)))
    for target, entry in load_current(shipped[0], "made").items():
        np.testing.assert_array_equal(load_artifact(artifact)[target].predict(rows), entry.model.predict(rows))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.37, 0.999])
def test_one_flipped_bit_anywhere_is_refused_with_the_name_of_the_file(artifact: Path, name: str, place: float) -> None:
    content = bytearray((artifact / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (artifact / name).write_bytes(bytes(content))
    for verify in (check, load_artifact):
        with pytest.raises(ArtifactError, match=name):
            verify(artifact)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        check(artifact)


def test_a_file_too_many_is_named(artifact: Path) -> None:
    (artifact / "notes.txt").write_text("hello")
    with pytest.raises(ArtifactError, match=r"notes\.txt is not in the manifest"):
        check(artifact)


def test_a_model_that_answers_differently_is_refused_though_its_hashes_fit(artifact: Path) -> None:
    golden = json.loads((artifact / "golden.json").read_text())
    golden["expected_ms"]["ttft_ms"]["mean"][5] *= 1 + 1e-8
    (artifact / "golden.json").write_text(json.dumps(golden))
    manifest = json.loads((artifact / "manifest.json").read_text())
    (artifact / "manifest.json").unlink()
    write_manifest(artifact, {k: v for k, v in manifest.items() if k not in ("sha256", "manifest_sha256")})
    with pytest.raises(ArtifactError, match="ttft_ms of row 5"):
        check(artifact)


def test_shipping_again_replaces_an_artifact_with_the_same_bytes(shipped: tuple[Workspace, Path]) -> None:
    workspace, directory = shipped
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    ship(workspace, "made", directory, ungated=True)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert [path.name for path in directory.parent.iterdir() if "artifact" in path.name] == ["artifact"]


def test_an_artifact_that_cannot_be_replaced_stays(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in artifact.iterdir()}
    rename = Path.rename

    def fails_on_the_new_one(path: Path, target: Path) -> Path:
        if target == artifact and path.name.startswith(".artifact-") and "old" not in path.parent.name:
            raise OSError("the disk is gone")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_on_the_new_one)
    with scratch_for(artifact) as scratch, pytest.raises(OSError, match="the disk is gone"):
        put_in_place(scratch, artifact)
    assert {path.name: path.read_bytes() for path in artifact.iterdir()} == before
    assert [path.name for path in artifact.parent.iterdir() if "artifact" in path.name] == ["artifact"]


def test_a_directory_with_other_files_is_not_overwritten(shipped: tuple[Workspace, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="no artifact"):
        ship(shipped[0], "made", tmp_path, ungated=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_shipping_needs_a_trained_model_and_a_known_objective(shipped: tuple[Workspace, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lodestar train other"):
        ship(shipped[0], "other", tmp_path / "a")
    with pytest.raises(ConfigError, match="objective 'ttft' is not known; did you mean 'ttft_ms'"):
        ship(shipped[0], "made", tmp_path / "a", objective="ttft")
