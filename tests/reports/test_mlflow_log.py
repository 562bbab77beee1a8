from __future__ import annotations

import logging
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from lodestar.data.workspace import Workspace
from lodestar.reports.html import write_report
from lodestar.reports.mlflow_log import EXPERIMENT, log_replay


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


def logged(workspace: Workspace, replay: Path) -> Run:
    run_id = log_replay(workspace, replay, write_report(replay, replay / "report.html"))
    return MlflowClient(workspace.tracking_uri).get_run(run_id)


def test_a_run_has_parameters_metrics_tags_and_the_report(workspace: Workspace, make_replay) -> None:
    run = logged(workspace, make_replay(verdict="untrusted"))
    assert run.info.status == "FINISHED"
    assert run.data.params["engine/step_ms"] == "6.1"
    assert run.data.params["verdict"] == run.data.tags["verdict"] == "untrusted"
    assert run.data.tags["estimand"] == "closed-loop, replayed"
    assert run.data.metrics["random/ttft_ms_mean"] > run.data.metrics["lodestar/ttft_ms_mean"]
    assert run.data.metrics["lodestar/ttft_ms_difference"] < 0
    assert "random/ttft_ms_difference" not in run.data.metrics
    names = {file.path for file in MlflowClient(workspace.tracking_uri).list_artifacts(run.info.run_id)}
    assert names == {"report.html", "result.json"}


def test_a_run_says_of_each_policy_what_must_be_known_first(workspace: Workspace, make_replay) -> None:
    run = logged(workspace, make_replay(verdict="untrusted", unstable="lodestar"))
    assert {run.data.tags[f"{name}/verdict"] for name in ("random", "lodestar")} == {"untrusted"}
    assert run.data.tags["lodestar/flags"].startswith("unstable: the queue grows by 31.4")
    assert run.data.tags["reasons"] == "forced_ttft_mean_error is 0.410, limit 0.1"
    assert "random/flags" not in run.data.tags
    assert run.data.metrics["lodestar/first_probability"] == 0.9
    assert run.data.metrics["lodestar/queue_growth_per_min"] == 31.4
    assert run.data.params["warmup_ratio"] == "0.05"


def test_a_policy_in_a_file_is_logged_by_its_path(workspace: Workspace, make_replay) -> None:
    replay = make_replay()
    file = replay / "result.json"
    file.write_text(file.read_text().replace('"lodestar"', '"/home/me/router.py:Mine"'))
    run = logged(workspace, replay)
    assert run.data.metrics["home/me/router.py:Mine/ttft_ms_mean"] > 0
    assert run.data.tags["home/me/router.py:Mine/verdict"] == "trusted"


def test_files_stay_in_the_workspace(workspace: Workspace, make_replay, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    logged(workspace, make_replay())
    assert list((workspace.mlflow_artifacts / EXPERIMENT).glob("*/artifacts/report.html"))
    assert not (tmp_path / "mlruns").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_two_replays_share_one_experiment(workspace: Workspace, make_replay) -> None:
    first, second = logged(workspace, make_replay("1-a")), logged(workspace, make_replay("2-b"))
    assert first.info.experiment_id == second.info.experiment_id
    assert [first.info.run_name, second.info.run_name] == ["1-a", "2-b"]


def test_making_the_store_says_nothing(workspace: Workspace, make_replay, capfd) -> None:
    before = logging.getLogger("mlflow").level
    logged(workspace, make_replay())
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("mlflow").level == before
