from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import mlflow
import pytest
from mlflow import MlflowClient

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.log import RequestLog
from lodestar.data.workspace import Workspace
from lodestar.models.parameters import Parameters
from lodestar.models.tune import TuneReport, tune
from lodestar.models.tuning.task import prepared

TWICE = """
import json, sys
from pathlib import Path
from lodestar.data.workspace import Workspace
from lodestar.models.tune import tune
print(json.dumps(tune(Workspace.open(Path(sys.argv[1])), "made", int(sys.argv[2])).to_dict()))
"""


@pytest.fixture
def ready(
    workspace: Workspace, make_log: Callable[..., RequestLog], add_log: Callable[[Workspace, RequestLog], None]
) -> Workspace:
    add_log(workspace, make_log(300))
    return workspace


def test_a_search_interrupted_at_any_time_goes_on_to_the_total_asked_for(ready: Workspace) -> None:
    def interrupt_after_two(finished: int) -> None:
        told.append(finished)
        if sum(told) == 2:
            raise KeyboardInterrupt

    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        tune(ready, "made", 4, progress=interrupt_after_two)
    told.clear()
    report = tune(ready, "made", 4, progress=told.append)
    assert (report.trials_before, report.trials, report.interrupted) == (2, 4, 0)
    assert (told[0], sum(told)) == (2, 4)
    assert TuneReport.from_dict(json.loads(json.dumps(report.to_dict()))).to_dict() == json.loads(
        json.dumps(report.to_dict())
    )
    _is_in_mlflow(ready, report)


def _is_in_mlflow(workspace: Workspace, report: TuneReport) -> None:
    """The training is a child of the search, which has its trials, figures and reasons."""
    client = MlflowClient(workspace.tracking_uri)
    child = client.get_run(report.training.targets["ttft_ms"]["run_id"])
    parent = client.get_run(child.data.tags["mlflow.parentRunId"])
    assert parent.info.run_name == "tune made ttft_ms"
    assert parent.data.tags["reason"] == report.reason
    assert parent.data.metrics["best_value"] == report.best_value
    defaults = next(finalist for finalist in report.finalists if finalist["is_default"])
    assert parent.data.metrics["again.defaults"] == pytest.approx(defaults["mean"])
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {"study.html", "trials.json"}
    trials = mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/trials.json")
    assert [trial["number"] for trial in trials] == list(range(report.trials))
    page = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/study.html")
    assert page.count("plotly-graph-div") >= 3
    assert 'src="http' not in page


def test_what_won_is_trained_and_the_defaults_stand_beside_it(ready: Workspace) -> None:
    report = tune(ready, "made", 3, target="tpot_ms", metric="log")
    assert report.default_value is not None
    assert report.best_value <= report.default_value
    trained = report.training.targets["tpot_ms"]
    assert 0 < trained["trees"] <= report.best_parameters["rounds"]
    assert report.newest["trial"] == next(f["number"] for f in report.finalists if not f["is_default"])
    assert report.newest["low"] <= report.newest["best"] - report.newest["defaults"] <= report.newest["high"]
    if report.is_default:
        assert report.best_parameters == Parameters().to_dict()
    assert report.decision["measured_us"] < report.decision["limit_us"]


@pytest.mark.slow
def test_two_processes_share_a_study_and_agree_on_its_end(ready: Workspace) -> None:
    command = [sys.executable, "-c", TWICE, str(ready.home), "6"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    first, second = (json.loads(process.communicate(timeout=300)[0]) for process in pair)
    assert [process.returncode for process in pair] == [0, 0]
    assert first["trials"] == second["trials"] == 6
    assert first["best_parameters"] == second["best_parameters"]
    # One of them trained; the other waited and tells the same.
    assert first["training"]["targets"]["ttft_ms"]["run_id"] == second["training"]["targets"]["ttft_ms"]["run_id"]


def test_each_search_has_a_study_of_its_own(
    ready: Workspace, make_log: Callable[..., RequestLog], add_log: Callable[[Workspace, RequestLog], None]
) -> None:
    def study(target: str = "ttft_ms", metric: str = "mae", seed: int = 0, limit_us: float = 100.0) -> str:
        return prepared(ready, "made", target, metric, seed, limit_us).study.study_name

    names = [study(), study(target="e2e_ms"), study(metric="log"), study(seed=1), study(limit_us=50.0)]
    assert study() == names[0]
    add_log(ready, make_log(200, first=300))
    assert len({*names, study()}) == 6


def test_a_limit_that_no_trial_keeps_to_is_an_error_that_names_the_fastest(ready: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"--max-decision-us 0.01: the fastest of 2 trials takes [\d.]+ µs; expected"):
        tune(ready, "made", 2, max_decision_us=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trials": 0}, "--trials 0: nothing to search"),
        ({"metric": "mse"}, "metric 'mse'"),
        ({"target": "ttft"}, "target 'ttft'"),
        ({"max_decision_us": 0.0}, "--max-decision-us 0: expected more than 0"),
    ],
)
def test_options_that_can_not_be_are_refused(workspace: Workspace, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tune(workspace, "made", **({"trials": 1} | options))  # type: ignore[arg-type]


def test_too_few_rows_for_the_first_fold_are_refused_with_the_reason(
    workspace: Workspace, make_log: Callable[..., RequestLog], add_log: Callable[[Workspace, RequestLog], None]
) -> None:
    add_log(workspace, make_log(100))
    words = r"^\d\d of 100 requests are left to train ttft_ms after holding out the newest 30%.* before the first"
    with pytest.raises(DataError, match=words):
        tune(workspace, "made", 2)
