from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.log import RequestLog
from lodestar.data.workspace import Workspace
from lodestar.models.rows import Rows
from lodestar.models.tune import folds, tune


@pytest.fixture
def ready(
    workspace: Workspace, make_log: Callable[..., RequestLog], add_log: Callable[[Workspace, RequestLog], None]
) -> Workspace:
    add_log(workspace, make_log(400))
    return workspace


def study_of(workspace: Workspace, name: str) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(workspace.studies)))
    return optuna.load_study(study_name=name, storage=storage)


def test_a_search_interrupted_at_any_time_goes_on_to_the_total_asked_for(ready: Workspace) -> None:
    def interrupt_after_three(finished: int) -> None:
        told.append(finished)
        if sum(told) == 3:
            raise KeyboardInterrupt

    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        tune(ready, "made", 6, progress=interrupt_after_three)
    report = tune(ready, "made", 6)
    assert (report.trials_before, report.trials) == (3, 6)
    again = tune(ready, "made", 6)
    assert (again.trials_before, again.trials) == (6, 6)
    assert again.best_parameters == report.best_parameters


def test_the_best_found_is_no_worse_than_the_defaults_and_becomes_the_model(ready: Workspace) -> None:
    report = tune(ready, "made", 4)
    assert report.default_value is not None
    assert report.best_value <= report.default_value
    trained = report.training.targets["ttft_ms"]
    assert trained["promoted"]
    assert trained["trees"] == report.best_parameters["rounds"]


def test_a_trial_of_a_killed_process_does_not_block_the_next_call(ready: Workspace) -> None:
    report = tune(ready, "made", 2)
    study_of(ready, report.study).ask()  # a process that dies here leaves a running trial
    after = tune(ready, "made", 3)
    assert (after.interrupted, after.trials_before, after.trials) == (1, 2, 3)
    assert not study_of(ready, report.study).get_trials(states=(TrialState.RUNNING,))


def test_the_training_is_a_child_of_the_search_in_mlflow(ready: Workspace) -> None:
    report = tune(ready, "made", 2)
    client = MlflowClient(ready.tracking_uri)
    child = client.get_run(report.training.targets["ttft_ms"]["run_id"])
    parent = client.get_run(child.data.tags["mlflow.parentRunId"])
    assert parent.info.run_name == "tune made ttft_ms"
    assert parent.data.metrics["best_value"] == report.best_value
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {"trials.json"}


def test_appended_data_starts_a_search_of_its_own(
    ready: Workspace, make_log: Callable[..., RequestLog], add_log: Callable[[Workspace, RequestLog], None]
) -> None:
    first = tune(ready, "made", 2)
    add_log(ready, make_log(200, first=400))
    second = tune(ready, "made", 2)
    assert first.study != second.study
    assert second.trials_before == 0


def test_every_fold_learns_only_from_what_finished_before_it(make_rows: Callable[..., Rows]) -> None:
    parts = folds(make_rows(400))
    assert len(parts) == 4
    for earlier, later in parts:
        assert earlier.finished_at_s.max() <= later.arrived_at_s.min()
    measured = [index for _, later in parts for index in later.request_index.tolist()]
    assert measured == list(range(240, 400))


def test_no_trials_are_refused(ready: Workspace) -> None:
    with pytest.raises(ConfigError, match="--trials 0"):
        tune(ready, "made", 0)


def test_too_few_rows_for_the_first_fold_are_refused_with_the_reason(
    workspace: Workspace, make_log: Callable[..., RequestLog], add_log: Callable[[Workspace, RequestLog], None]
) -> None:
    add_log(workspace, make_log(100))
    words = r"^\d\d of 100 requests are left to train ttft_ms after holding out the newest 30%.* before the first"
    with pytest.raises(DataError, match=words):
        tune(workspace, "made", 2)
