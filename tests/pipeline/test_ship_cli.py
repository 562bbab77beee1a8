"""`lodestar ship` and `ship --check` as a user and an init container run them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
import typer

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import Baseline
from lodestar.models.latency import LatencyModel
from lodestar.models.shipping.tarball import pack
from lodestar.models.shipping.write import ranges_of, write_artifact
from lodestar.pipeline.online.settings import OnlineSettings
from lodestar.pipeline.ship_cli import ship
from lodestar.pipeline.shipping import policy_of

HEAVY = ("mlflow", "optuna", "duckdb", "polars", "plotly", "fsspec", "fastapi")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of a TTFT model of three trees that was promoted by hand."""
    features = np.random.default_rng(0).uniform(0.0, 9.0, (200, len(FEATURE_NAMES)))
    booster = lgb.train(
        {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 9}, lgb.Dataset(features, features[:, 0] / 9), 3
    )
    model = LatencyModel("ttft_ms", FEATURE_NAMES, Baseline({("prompt_tokens",): 2.0}, 5.0), booster, 1.0)
    record = {"rows": 200, "feature_ranges": ranges_of(features.min(axis=0), features.max(axis=0))}
    gate = {"ttft_ms": {"passed": False, "said": "worse", "checks": [{"name": "linear", "passed": False}]}}
    directory = tmp_path_factory.mktemp("shipped")
    (directory / "files").mkdir()
    write_artifact(
        directory / "files", {"ttft_ms": model}, records={"ttft_ms": record}, dataset="mine", gate=gate,
        trained_at_s=1.7e9, policy=policy_of("lodestar-online,exploration=0.02"),
    )  # fmt: skip
    pack(directory / "files", directory / "x.tar")
    return directory / "x.tar"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command in this process and return its stdout."""
    app = typer.Typer(rich_markup_mode=None)
    app.command()(ship)

    def call(*arguments: str) -> str:
        app(args=[*arguments, "--home", str(tmp_path / "home")], standalone_mode=False)
        return capsys.readouterr().out

    return call


def test_a_check_says_version_policy_and_verdict(run: Callable[..., str], artifact: Path) -> None:
    report = json.loads(run("--check", str(artifact), "--json"))
    assert (report["golden_rows"], report["dataset"]) == (64, "mine")
    shown = " ".join(run("--check", f"file://{artifact}").split())
    for said in (
        "policy lodestar-online",
        "exploration=0.02",
        "ttft_ms did not pass: it failed at linear",
        "golden rows 64",
        "trained at 2023-11-14T22:13:20+00:00",
    ):
        assert said in shown
    assert report["version"] in shown.replace(" ", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["made", "--check", "x"], "expected no DATASET with it"),
        (["--check", "x", "--ungated"], "expected no --ungated with it"),
        (["--check", "x", "--with", "onnx"], "expected no --with with it"),
        (["made"], "ship needs DATASET and --to PLACE"),
        (["made", "--to", "x", "--policy", "random"], "'random' is not what serves; expected lodestar-online"),
        (["made", "--to", "x", "--policy", "lodestar-online,explore=1"], "setting 'explore' is not known"),
        (["made", "--to", "x"], "dataset 'made' has no trained model; expected one. Run: lodestar train made"),
    ],
)
def test_a_mistake_is_told_before_anything_is_done(run: Callable[..., str], arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(*arguments)


def test_what_is_no_artifact_is_refused(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("hello")
    for place in ("nowhere", str(tmp_path), str(tmp_path / "x.tar")):
        with pytest.raises(ArtifactError, match="expected"):
            run("--check", place)


def test_an_artifact_carries_every_setting_of_its_policy() -> None:
    """Models of a log were trained on what its gateway counted, and decide by it unless told otherwise."""
    found = policy_of("lodestar-online,exploration=0.02")
    expected = OnlineSettings(exploration=0.02, count_uncached=False)
    assert found == {"name": "lodestar-online", "settings": expected.to_dict()}
    assert policy_of("lodestar-online,count_uncached=true")["settings"] == OnlineSettings().to_dict()


def test_an_init_container_imports_no_tracking_search_or_database(artifact: Path) -> None:
    code = (
        f"import sys; sys.argv = ['lodestar', 'ship', '--check', {str(artifact)!r}, '--json']\n"
        "from lodestar.pipeline.cli import main\ntry: main()\nexcept SystemExit as done: assert not done.code, done\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
