from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from lodestar.data.log import RequestLog
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.candidate import full_fit
from lodestar.models.dataset import TrainingData
from lodestar.models.parameters import Parameters
from lodestar.models.registry.current import champions, load_current, read_index
from lodestar.models.registry.promotion import Verdict
from lodestar.models.registry.releases import align, keep, promote, roll_back
from lodestar.models.registry.tracking import log_outcome, tracked_run
from lodestar.models.rows import Rows
from lodestar.models.train import train

TARGET = "ttft_ms"
MODEL = "made-ttft_ms"
SMALL = Parameters(rounds=20, min_data_in_leaf=20)


def fit_and_log(workspace: Workspace, rows: Rows, parameters: Parameters, seed: int = 0) -> str:
    """Do for one target what training does once it has read the log, and return the run's id."""
    ids = [str(i) for i in range(rows.requests)]
    data = TrainingData(
        dataset="made", fingerprint="f" * 64, request_ids=ids, rows={TARGET: rows}, skipped={}, notes={}
    )
    outcome = full_fit(data, TARGET, parameters, seed, load_current(workspace, "made").get(TARGET), "")
    with tracked_run(workspace, "fitted", {}) as run_id:
        logged = {"run_id": run_id} | log_outcome("made", TARGET, outcome, "a log")
    keep(workspace, "made", {TARGET: outcome}, {TARGET: logged})
    return run_id


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, store_with_tables: Path, make_rows: Callable[..., Rows]
) -> tuple[Workspace, str]:
    """A workspace with a TTFT model in use, and the id of its run; for tests that change nothing in it."""
    home = tmp_path_factory.mktemp("trained")
    shutil.copy(store_with_tables, home / "mlflow.db")
    workspace = Workspace.open(home)
    run_id = fit_and_log(workspace, make_rows(900), SMALL, seed=7)
    if not champions(workspace, "made"):
        promote(workspace, "made")
    return workspace, run_id


@pytest.fixture
def changing(trained: tuple[Workspace, str], make_rows: Callable[..., Rows], tmp_path: Path) -> Workspace:
    """A copy of it in which a second model was fitted, and refused."""
    shutil.copytree(trained[0].home, tmp_path / "home")
    workspace = Workspace.open(tmp_path / "home")
    fit_and_log(workspace, make_rows(900), Parameters(rounds=1, window_requests=50))
    return workspace


def test_a_run_tells_what_was_trained_on_what_and_how_well(trained: tuple[Workspace, str], tmp_path: Path) -> None:
    workspace, run_id = trained
    client = MlflowClient(workspace.tracking_uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["rounds"] == "20"
    assert run.data.params["seed"] == "7"
    assert {"model.mae_ms", "linear.mae_ms", "constant.mae_ms", "p99.coverage"} <= set(run.data.metrics)
    assert [point.step for point in client.get_metric_history(run_id, "rmse_log.held_out")] == list(range(1, 21))
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "made"
    assert "prefill_tokens" in used.dataset.schema
    assert {file.path for file in client.list_artifacts(run_id)} >= {
        "by-load.json",
        "feature-importance.svg",
        "ttft_ms.json",
    }
    table = json.loads(Path(client.download_artifacts(run_id, "by-load.json", str(tmp_path))).read_text())
    assert "waiting_requests" in table["columns"]


def test_the_champion_in_the_registry_predicts_the_milliseconds_of_the_current_model(
    trained: tuple[Workspace, str], tmp_path: Path
) -> None:
    workspace, _ = trained
    uri = "models:/made-ttft_ms@champion"
    mlflow.set_tracking_uri(workspace.tracking_uri)
    loaded = mlflow.pyfunc.load_model(uri)
    rows = np.random.default_rng(0).uniform(0, 9, (20, len(FEATURE_NAMES)))
    rows[3, :5] = np.nan
    frame = pd.DataFrame(rows, columns=list(FEATURE_NAMES))
    predicted = loaded.predict(frame[reversed(FEATURE_NAMES)])  # found by name, not by place
    assert list(predicted.columns) == ["ttft_ms"]
    expected_ms = load_current(workspace, "made")["ttft_ms"].model.predict(rows)
    np.testing.assert_allclose(predicted["ttft_ms"], expected_ms, rtol=1e-9)
    assert loaded.metadata.signature.inputs.input_names() == list(FEATURE_NAMES)
    assert loaded.metadata.signature.outputs.input_names() == ["ttft_ms"]
    with pytest.raises(mlflow.MlflowException, match="prompt_tokens"):
        loaded.predict(frame.drop(columns="prompt_tokens"))


def test_the_registry_holds_text_and_code_but_no_pickle(trained: tuple[Workspace, str], tmp_path: Path) -> None:
    mlflow.set_tracking_uri(trained[0].tracking_uri)
    copy = tmp_path / "copy"
    copy.mkdir()
    mlflow.artifacts.download_artifacts("models:/made-ttft_ms@champion", dst_path=str(copy))
    # A model that was loaded from there leaves compiled code beside its own.
    files = [path for path in copy.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    assert {"model.txt", "model.json", "registered.py"} <= {path.name for path in files}
    assert {path.suffix for path in files} <= {"", ".json", ".py", ".txt", ".yaml", ".yml"}
    assert not any(path.read_bytes().startswith(b"\x80") for path in files)  # how a pickle begins


def test_a_run_says_whose_metrics_it_holds(trained: tuple[Workspace, str]) -> None:
    run = MlflowClient(trained[0].tracking_uri).get_run(trained[1])
    assert run.data.tags["metrics_of"].startswith("the same recipe fitted without the newest 30% of the requests")


def test_all_files_of_a_run_lie_in_the_workspace(trained: tuple[Workspace, str]) -> None:
    workspace, run_id = trained
    run = MlflowClient(workspace.tracking_uri).get_run(run_id)
    assert run.info.artifact_uri.startswith(workspace.mlflow_artifacts.as_uri())


def test_a_refused_model_is_logged_and_registered_but_not_made_champion(changing: Workspace) -> None:
    client = MlflowClient(changing.tracking_uri, changing.tracking_uri)
    alias = {name: client.get_model_version_by_alias(MODEL, name) for name in ("champion", "challenger")}
    assert {name: int(found.version) for name, found in alias.items()} == {"champion": 1, "challenger": 2}
    refused = alias["challenger"]
    run = client.get_run(refused.run_id)
    assert (run.data.tags["promoted"], refused.tags["promoted"]) == ("false", "false")
    assert run.data.metrics["gate.mae_ms.challenger"] > run.data.metrics["gate.mae_ms.champion"]
    assert run.data.metrics["gate.champion.passed"] == 0.0
    assert run.data.metrics["gate.champion.low"] <= run.data.metrics["gate.champion.mean"] < 0.0
    assert "than the champion" in refused.tags["verdict"]
    assert refused.tags["check.golden"].startswith("golden rows: all ways of scoring agree")


def test_the_whole_verdict_is_an_artifact_of_the_run(trained: tuple[Workspace, str], tmp_path: Path) -> None:
    workspace, run_id = trained
    client = MlflowClient(workspace.tracking_uri)
    verdict = json.loads(Path(client.download_artifacts(run_id, "verdict.json", str(tmp_path))).read_text())
    metrics = client.get_run(run_id).data.metrics
    for check in verdict["checks"]:
        if check["value"] is not None:
            assert metrics[f"gate.{check['name']}.mean"] == pytest.approx(check["value"])
    assert {"constant", "linear", "coverage", "saturation", "golden"} <= {each["name"] for each in verdict["checks"]}


def test_aliases_follow_a_promotion_by_hand_and_a_rollback(changing: Workspace) -> None:
    client = MlflowClient(changing.tracking_uri, changing.tracking_uri)

    def champion() -> int:
        return int(client.get_model_version_by_alias(MODEL, "champion").version)

    promote(changing, "made")
    assert champion() == 2
    assert client.get_model_version(MODEL, "2").tags["champion"].startswith("promoted by hand at 2")
    roll_back(changing, "made")
    assert champion() == 1


def test_aliases_that_a_killed_process_left_behind_are_set_right(changing: Workspace) -> None:
    client = MlflowClient(changing.tracking_uri, changing.tracking_uri)
    client.set_registered_model_alias(MODEL, "champion", "2")
    client.delete_registered_model_alias(MODEL, "challenger")
    align(changing, "made")
    aliases = client.get_registered_model(MODEL).aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 1, "challenger": 2}


def test_all_is_put_in_use_where_that_is_asked_for(
    workspace: Workspace, make_rows: Callable[..., Rows], data_of: Callable[[Rows], TrainingData]
) -> None:
    fitted = full_fit(data_of(make_rows(200)), TARGET, Parameters(rounds=1), 0, None, "")
    outcome = replace(fitted, verdict=Verdict(False, "refused"))
    assert keep(workspace, "made", {TARGET: outcome}) is not None
    assert read_index(workspace, "made").champions == {}
    version = keep(workspace, "made", {TARGET: outcome}, always=True)
    index = read_index(workspace, "made")
    assert index.champions == {TARGET: version}
    assert index.reigns[-1].why == "promoted by hand"


def test_training_says_nothing_on_either_stream(
    workspace: Workspace,
    make_log: Callable[..., RequestLog],
    add_log: Callable[[Workspace, RequestLog], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    add_log(workspace, make_log(300))
    train(workspace, "made", parameters=SMALL, targets=("ttft_ms",))
    assert capfd.readouterr() == ("", "")
