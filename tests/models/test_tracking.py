from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import lightgbm as lgb
import mlflow
import numpy as np
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


def test_the_champion_in_the_registry_is_the_current_model(trained: tuple[Workspace, str]) -> None:
    workspace, _ = trained
    client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
    assert client.get_model_version_by_alias("made-ttft_ms", "champion").version in (1, "1")
    mlflow.set_tracking_uri(workspace.tracking_uri)
    loaded = mlflow.lightgbm.load_model("models:/made-ttft_ms@champion")
    assert isinstance(loaded, lgb.Booster)
    rows = np.random.default_rng(0).uniform(0, 9, (20, len(FEATURE_NAMES)))
    ours = load_current(workspace, "made")["ttft_ms"].model.booster
    np.testing.assert_array_equal(loaded.predict(rows), ours.predict(rows))
    info = mlflow.models.get_model_info("models:/made-ttft_ms@champion")
    assert info.signature.inputs.input_names() == list(FEATURE_NAMES)


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
