from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from typer.testing import CliRunner

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.native_write import write_decision_log
from lodestar.data.workspace import Workspace
from lodestar.models.dataset import load_new_data, load_training_data
from lodestar.models.parameters import Parameters
from lodestar.models.refresh import catch_up, chain, recent
from lodestar.models.refresh.chain import State, load_state, only_one
from lodestar.models.refresh.log_batches import PARENT_TAG
from lodestar.models.refresh.losses import losses_of
from lodestar.models.registry.current import load_challenger, load_current, promote
from lodestar.models.rows import Rows
from lodestar.models.train import TrainReport, train
from lodestar.pipeline.cli import app

TARGET, OTHER = "tpot_ms", "e2e_ms"
SMALL = Parameters(rounds=20, min_data_in_leaf=20)
MakeLog, AddLog = Callable[..., RequestLog], Callable[[Workspace, RequestLog], None]


def fitted(workspace: Workspace) -> TrainReport:
    return train(workspace, "made", parameters=SMALL, targets=(TARGET,))


def caught_up(workspace: Workspace, every: int = 250) -> TrainReport:
    return train(workspace, "made", incremental=True, strategy="continue", every=every, targets=(TARGET,))


def state_of(workspace: Workspace) -> State:
    state = load_state(workspace, "made")
    assert state is not None
    return state


def files_of(workspace: Workspace) -> dict[str, bytes]:
    """All that training writes, MLflow's too."""
    return {
        path.relative_to(workspace.home).as_posix(): path.read_bytes()
        for path in workspace.home.rglob("*")
        if path.is_file() and path.name != "lodestar.duckdb"
    }


def test_training_every_minute_follows_a_growing_dataset(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400))
    fitted(workspace)
    runs = []
    for first, slower in ((400, 1.0), (440, 2.0), (740, 2.0)):
        add_log(workspace, make_log(40 if first == 400 else 300, first=first, slower=slower))
        runs.append(caught_up(workspace).targets[TARGET])
        before = files_of(workspace)
        again = caught_up(workspace)
        assert again.targets[TARGET]["mode"] == "unchanged"
        assert files_of(workspace) == before
    assert [run["mode"] for run in runs] == ["scored", "windowed", "extended"]  # a change of speed is a drift
    assert [run["batch"]["number"] for run in runs] == [1, 2, 3]
    assert runs[1]["batch"]["after"]["mae_ms"] < runs[1]["batch"]["before"]["mae_ms"]
    assert load_challenger(workspace, "made")[TARGET].record["requests_seen"] == 1040
    client = mlflow.MlflowClient(workspace.tracking_uri)
    experiment = [found.experiment_id for found in client.search_experiments()]
    (parent,) = client.search_runs(experiment, f"tags.`{PARENT_TAG}` = 'made'")
    children = client.search_runs(experiment, f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert {run["run_id"] for run in runs[1:]} == {child.info.run_id for child in children}
    for name, steps in (("challenger.mae_ms", [1, 2, 3]), ("champion.mae_ms", [1, 2, 3]), ("after.mae_ms", [2, 3])):
        points = client.get_metric_history(parent.info.run_id, f"{TARGET}.{name}")
        assert [point.step for point in points] == steps


def test_what_the_gate_refused_is_not_learned_again(workspace: Workspace, make_log: MakeLog, add_log: AddLog) -> None:
    add_log(workspace, make_log(400))
    champion = fitted(workspace).version
    add_log(workspace, make_log(300, first=400))
    refused = caught_up(workspace)
    assert (refused.targets[TARGET]["mode"], refused.targets[TARGET]["promoted"]) == ("extended", False)
    assert refused.version != champion
    assert load_current(workspace, "made")[TARGET].model.trees == 20
    before = files_of(workspace)
    assert caught_up(workspace).targets[TARGET]["reason"] == "nothing new since request 700: nothing done"
    assert files_of(workspace) == before


@pytest.mark.parametrize("steps", [0, 1, 2], ids=["the version", "the index", "the state"])
def test_a_kill_before_a_file_is_put_in_place_is_made_good_by_the_next_run(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    add_log(workspace, make_log(400))
    fitted(workspace)
    add_log(workspace, make_log(300, first=400, slower=2.0))
    done, put = [], os.replace

    def killed(*paths: Path) -> None:
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(put(*paths))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)  # each step that makes something visible
        with pytest.raises(KeyboardInterrupt):
            caught_up(workspace)
    assert len(done) == steps
    caught_up(workspace)
    state, current = state_of(workspace), load_current(workspace, "made")[TARGET]
    assert state.seen[TARGET].requests == 700
    assert not len(state.chains[TARGET].recent.pending)
    assert state.chains[TARGET].trained.model.text() == current.model.text()
    assert current.model.trees == 40
    assert caught_up(workspace).targets[TARGET]["mode"] == "unchanged"


def test_two_at_once_do_not_get_in_each_others_way(workspace: Workspace, make_log: MakeLog, add_log: AddLog) -> None:
    add_log(workspace, make_log(400))
    with only_one(workspace, "made") as alone:
        assert alone
        told = caught_up(workspace).targets[TARGET]
    assert told["reason"] == "another training of this dataset is at work: nothing done"


def test_a_state_that_cannot_be_read_is_named(workspace: Workspace, make_log: MakeLog, add_log: AddLog) -> None:
    add_log(workspace, make_log(400))
    (workspace.home / "refresh").mkdir()
    (workspace.home / "refresh" / "made.zip").write_bytes(b"half of it")
    with pytest.raises(ArtifactError, match=r"made.zip cannot be read .*; expected what --incremental wrote"):
        caught_up(workspace)


def test_an_older_log_leads_to_a_full_fit_with_its_reason(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400, first=4000))
    fitted(workspace)
    add_log(workspace, make_log(200))
    found = caught_up(workspace)
    assert found.targets[TARGET]["mode"] == "fitted"
    assert "new requests came before the seen ones" in found.targets[TARGET]["reason"]
    assert "600 requests, all there are" in found.notes["read"]
    assert state_of(workspace).seen[TARGET].requests == 600


@pytest.mark.parametrize("field", [None, "inflight_requests", "decode_tokens"], ids=["logged", "in flight", "tokens"])
def test_new_rows_are_what_they_would_be_if_all_were_read(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog, field: str | None
) -> None:
    logs = [make_log(3000), make_log(50, first=3000)]
    for log in logs:
        if field is not None:
            log.snapshot[field][:] = np.nan  # it has to be counted, from what was in flight
    add_log(workspace, logs[0])
    before = load_training_data(workspace, "made", (TARGET,))
    assert before.seen is not None
    add_log(workspace, logs[1])
    new = load_new_data(workspace, "made", before.seen, before.nature, (TARGET,))
    whole = load_training_data(workspace, "made", (TARGET,)).rows[TARGET].newer_than(3000)
    assert new.read < 2500
    for name in ("request_index", "features", "latency_ms", "arrived_at_s", "finished_at_s", "propensity"):
        assert np.array_equal(getattr(new.rows[TARGET], name), getattr(whole, name), equal_nan=True), name
    assert (new.rows[TARGET].requests, new.seen.requests) == (3050, 3050)


def test_without_arrivals_all_is_read_and_that_is_said(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    logs = [replace(make_log(n, first=first), arrived_at_s=np.full(n, np.nan)) for n, first in ((400, 0), (300, 400))]
    add_log(workspace, logs[0])
    before = load_training_data(workspace, "made", (TARGET,))
    assert before.seen is not None
    add_log(workspace, logs[1])
    new = load_new_data(workspace, "made", before.seen, before.nature, (TARGET,))
    assert new.read == 700
    assert len(new.rows[TARGET]) == 300
    assert "no arrivals are logged" in new.notes["read in full"]


def add_timeouts(workspace: Workspace, log: RequestLog) -> None:
    """Append a log whose requests all timed out after a minute."""
    path = workspace.home / f"{log.request_id[0]}.jsonl"
    write_decision_log(path, log)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cut_off = [line | {"outcome": {"status": "timeout", "e2e_ms": 60_000.0}} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in cut_off), encoding="utf-8")
    ingest(workspace, [path], "made")


@pytest.mark.filterwarnings("error:overflow")
def test_an_outage_is_scored_and_what_follows_is_learned(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=SMALL, targets=("ttft_ms",))
    add_timeouts(workspace, make_log(300, first=400))
    words = ["train", "made", "--incremental", "--strategy", "continue", "--home", str(workspace.home)]
    said = CliRunner().invoke(app, [*words, "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)["targets"]["ttft_ms"]
    assert (found["mode"], found["batch"]["challenger"]["rows"]) == ("scored", 0)
    assert found["batch"]["challenger"]["mae_ms"] is None
    assert "too few" in found["reason"]
    add_log(workspace, make_log(300, first=700))
    said = CliRunner().invoke(app, [*words, "--json"])
    assert said.exit_code == 0, (said.output, said.exception)
    assert json.loads(said.stdout)["targets"]["ttft_ms"]["mode"] == "extended"
    chain = state_of(workspace).chains["ttft_ms"]
    assert "seen_sha256" not in chain.trained.record  # there would be nothing to hash
    assert not len(chain.recent.pending)


def test_a_full_fit_whose_newest_requests_were_cut_off_says_that_no_error_is_known(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400))
    add_timeouts(workspace, make_log(300, first=400))
    said = CliRunner().invoke(app, ["train", "made", "--home", str(workspace.home)])
    assert said.exit_code == 0, said.output
    assert "newest requests were cut off: no error of TTFT is known" in " ".join(said.stdout.split())


def test_a_target_that_cannot_learn_holds_up_no_other(workspace: Workspace, make_log: MakeLog, add_log: AddLog) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=replace(SMALL, objective="propensity"), targets=(TARGET,))
    train(workspace, "made", parameters=SMALL, targets=(OTHER,))
    log = make_log(300, first=400)
    add_log(
        workspace, replace(log, policy="unknown", propensity=np.full(300, np.nan), probability=log.probability * np.nan)
    )
    found = train(workspace, "made", incremental=True, strategy="continue", targets=(TARGET, OTHER)).targets
    assert (found[TARGET]["mode"], found[OTHER]["mode"]) == ("scored", "extended")
    assert "propensit" in found[TARGET]["reason"]
    assert len(state_of(workspace).chains[TARGET].recent.pending) == 300
    assert found[TARGET]["batch"]["challenger"]["rows"] == 300


def test_all_chains_go_on_whatever_is_asked_for_and_a_full_fit_of_one_keeps_the_others(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=SMALL, targets=(TARGET, OTHER))
    add_log(workspace, make_log(40, first=400))
    assert set(caught_up(workspace).targets) == {TARGET, OTHER}
    add_log(workspace, make_log(40, first=440))
    fitted(workspace)
    state = state_of(workspace)
    assert {target: seen.requests for target, seen in state.seen.items()} == {TARGET: 480, OTHER: 440}
    assert len(state.chains[OTHER].recent.pending) == 40
    found = caught_up(workspace).targets
    assert found[TARGET]["mode"] == "unchanged"
    assert (found[OTHER]["batch"]["number"], found[OTHER]["batch"]["challenger"]["rows"]) == (2, 40)
    assert len(state_of(workspace).chains[OTHER].recent.pending) == 80
    assert state_of(workspace).seen[OTHER].requests == 480


def test_a_target_that_is_asked_for_later_begins_and_disturbs_no_other(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400))
    fitted(workspace)
    both = {"incremental": True, "strategy": "continue", "targets": (TARGET, OTHER)}
    assert "begins with the next new requests" in train(workspace, "made", **both).skipped[OTHER]  # type: ignore[arg-type]
    add_log(workspace, make_log(40, first=400))
    found = train(workspace, "made", **both).targets  # type: ignore[arg-type]
    assert (found[TARGET]["mode"], found[OTHER]["mode"]) == ("scored", "fitted")
    assert len(state_of(workspace).chains[TARGET].recent.pending) == 40


def test_parameters_are_refused_where_a_model_goes_on(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="for an incremental training"):
        train(workspace, "made", incremental=True, parameters=SMALL)


def test_a_full_fit_that_was_killed_before_it_was_remembered_goes_on_once_it_is_in_use(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=SMALL, targets=(TARGET, OTHER))
    add_log(workspace, make_log(40, first=400))
    caught_up(workspace)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lodestar.models.train.save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            train(workspace, "made", parameters=replace(SMALL, rounds=30), targets=(TARGET,))
    if load_current(workspace, "made")[TARGET].model.trees != 30:
        promote(workspace, "made", targets=(TARGET,))
    add_log(workspace, make_log(300, first=440))
    found = caught_up(workspace, every=1000)
    assert "740 requests, all there are: another model has come into use since" in found.notes["read"]
    chains = state_of(workspace).chains
    assert chains[TARGET].trained.record["parameters"]["rounds"] == 30
    assert chains[TARGET].trained.model.text() == load_current(workspace, "made")[TARGET].model.text()
    assert len(chains[TARGET].recent.pending) == 300
    assert len(chains[OTHER].recent.pending) == 340  # the chain of the other went on


def test_a_full_fit_waits_for_a_training_that_is_at_work(
    workspace: Workspace,
    make_log: MakeLog,
    add_log: AddLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_log(workspace, make_log(400))
    monkeypatch.setattr(chain, "TELL_AFTER_S", 0.1)
    said = threading.Event()
    monkeypatch.setattr(chain._LOGGER, "warning", lambda *words: said.set())
    with only_one(workspace, "made"):
        thread = threading.Thread(target=fitted, args=(workspace,))
        thread.start()
        assert said.wait(20.0)
        assert load_state(workspace, "made") is None
    thread.join(60.0)
    assert state_of(workspace).seen[TARGET].requests == 400


def test_a_window_that_holds_less_than_the_fit_before_says_so(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (catch_up, recent):
        monkeypatch.setattr(module, "RECENT_ROWS", 300)
    add_log(workspace, make_log(400))
    fitted(workspace)
    add_log(workspace, make_log(300, first=400))
    found = train(workspace, "made", incremental=True, strategy="window", targets=(TARGET,)).targets[TARGET]
    assert "of 400 rows the newest 300: --incremental keeps 300" in found["reason"]


def test_the_loss_of_a_quantile_without_bound_is_left_out(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(50)
    quantiles_ms = np.repeat(rows.latency_ms[:, None], 3, axis=1)
    quantiles_ms[0] = np.inf
    losses = losses_of(rows, rows.latency_ms, quantiles_ms)
    assert (losses.rows, losses.mae_ms, losses.coverage, losses.pinball_ms) == (50, 0.0, 1.0, None)
    cut_off = losses_of(replace(rows, censored=np.ones(50, dtype=np.bool_)), rows.latency_ms, quantiles_ms)
    assert (cut_off.rows, cut_off.mae_ms, cut_off.coverage) == (0, None, None)


def test_a_target_that_has_too_few_rows_to_begin_with_holds_up_no_other(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    log = make_log(400)
    log.tpot_ms[:], log.output_tokens[:] = np.nan, 1  # with more, E2E would tell it
    add_log(workspace, log)
    train(workspace, "made", parameters=SMALL, targets=("ttft_ms",))
    add_log(workspace, make_log(40, first=400))
    found = train(workspace, "made", incremental=True, targets=("ttft_ms", TARGET))
    assert found.targets["ttft_ms"]["mode"] == "scored"
    assert f"are left to train {TARGET}" in found.skipped[TARGET]
    assert {target: seen.requests for target, seen in state_of(workspace).seen.items()} == {"ttft_ms": 440}


def test_where_arrivals_are_inferred_nothing_is_learned_piece_by_piece(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    """Each new request moves the arrivals of all: it is all fitted anew, once enough is new."""

    def add(first: int, count: int) -> None:
        log = make_log(count, first=first)
        log.arrived_at_s[:] = np.nan
        add_log(workspace, log)

    add(0, 400)
    train(workspace, "made", parameters=SMALL, targets=(TARGET,))
    add(400, 100)
    waits = train(workspace, "made", incremental=True, every=250).targets[TARGET]
    assert (waits["mode"], "100 new requests wait until they are 250: arrivals are inferred" in waits["reason"]) == (
        "unchanged",
        True,
    )
    add(500, 150)
    fitted = train(workspace, "made", incremental=True, every=250).targets[TARGET]
    assert fitted["mode"] == "fitted"
    assert "arrivals are inferred" in fitted["reason"]
