from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from lodestar.data.log import RequestLog
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.current import load_current
from lodestar.models.parameters import Parameters
from lodestar.models.train import train

SMALL = Parameters(rounds=20, min_data_in_leaf=20)


@pytest.fixture
def trained(
    workspace: Workspace, make_log: Callable[..., RequestLog], add_log: Callable[[Workspace, RequestLog], None]
) -> tuple[Workspace, str]:
    """A workspace with a trained TTFT model, and the id of its run."""
    add_log(workspace, make_log(300))
    report = train(workspace, "made", parameters=SMALL, seed=7, targets=("ttft_ms",))
    return workspace, report.targets["ttft_ms"]["run_id"]


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
    files = [path for path in copy.rglob("*") if path.is_file()]
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


def test_a_refused_model_is_logged_but_not_made_champion(trained: tuple[Workspace, str]) -> None:
    workspace, _ = trained
    refused = train(workspace, "made", parameters=Parameters(rounds=1, window_requests=50), targets=("ttft_ms",))
    client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
    run = client.get_run(refused.targets["ttft_ms"]["run_id"])
    assert run.data.tags["promoted"] == "false"
    assert run.data.metrics["promotion.mae_ms"] > run.data.metrics["promotion.current_mae_ms"]
    assert int(client.get_model_version_by_alias("made-ttft_ms", "champion").version) == 1


def test_training_says_nothing_on_either_stream(
    workspace: Workspace,
    make_log: Callable[..., RequestLog],
    add_log: Callable[[Workspace, RequestLog], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    add_log(workspace, make_log(300))
    train(workspace, "made", parameters=SMALL, targets=("ttft_ms",))
    assert capfd.readouterr() == ("", "")
