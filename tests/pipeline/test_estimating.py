"""`lodestar estimate`: from a stored dataset to the document it prints, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lodestar.data.errors import ConfigError
from lodestar.data.formats.native import write_decision_log
from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.workspace import Workspace
from lodestar.pipeline.cli import app
from lodestar.pipeline.estimating import estimate_dataset
from lodestar.pipeline.replay.settings import Settings
from routed_logs import mixed, recorded


def workspace_of(log: RequestLog, folder: Path) -> Workspace:
    write_decision_log(folder / "log.jsonl", log)
    workspace = Workspace.open(folder / "home")
    ingest(workspace, [folder / "log.jsonl"], "made")
    return workspace


def test_the_command_says_that_no_closed_loop_was_asked_for(tmp_path: Path) -> None:
    workspace = workspace_of(recorded("random"), tmp_path)
    command = ["estimate", "made", "--policy", "random", "--policy", "least-request", "--one-step-only", "--json"]
    done = CliRunner().invoke(app, [*command, "--home", str(workspace.home)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["gap"] == found["policies"] == []
    assert found["gap_notes"] == ["no closed loop was asked for: these are no policy's performance"]
    assert {row["policy"] for row in found["one_step"]} == {"random", "least-request"}
    assert all(row["estimand"] == "one-step, logged states" for row in found["one_step"])
    assert found["command"].startswith("lodestar estimate made --policy random --policy least-request")
    assert found["command"].endswith("--one-step-only")


@pytest.mark.parametrize("blocks", [7, 101])
def test_blocks_that_are_too_few_or_too_many_are_refused(tmp_path: Path, blocks: int) -> None:
    command = ["estimate", "made", "--policy", "random", "--blocks", str(blocks), "--home", str(tmp_path)]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, ConfigError)
    assert f"--blocks is {blocks}; expected 8 to 100: fewer tell no spread" in str(done.exception)


def test_blocks_that_were_asked_for_stand_in_the_command(tmp_path: Path) -> None:
    workspace = workspace_of(recorded("random"), tmp_path)
    command = ["estimate", "made", "--policy", "random", "--one-step-only", "--blocks", "8", "--json"]
    found = json.loads(CliRunner().invoke(app, [*command, "--home", str(workspace.home)]).stdout)
    assert found["one_step_blocks"] == 8
    assert "--blocks 8" in found["command"]
    assert all("8 blocks of" in row["interval"] for row in found["one_step"])


def test_one_step_alone_takes_arrival_times_from_elsewhere_too(tmp_path: Path) -> None:
    workspace = workspace_of(recorded("random"), tmp_path)
    settings = Settings(["random"], arrivals_from="elsewhere")
    with pytest.raises(ConfigError, match="dataset 'elsewhere' is not known"):
        estimate_dataset(workspace, "made", settings, closed_loop=False)


def test_two_routers_without_propensities_are_a_test_all_the_same(tmp_path: Path) -> None:
    log = mixed(np.arange(600) // 50 % 2 == 1)
    none = np.full(log.candidate.shape, np.nan)
    workspace = workspace_of(replace(log, probability=none, propensity=none[:, 0]), tmp_path)
    found = estimate_dataset(workspace, "made", Settings(["random"]), closed_loop=False)
    assert [row["estimator"] for row in found["one_step"]] == ["dm"]
    assert found["test"]["design"] == "switchback"


def test_a_log_that_allows_no_estimate_says_why_in_one_line(tmp_path: Path) -> None:
    log = recorded("random")
    none = np.full(log.candidate.shape, np.nan)
    workspace = workspace_of(replace(log, probability=none, propensity=none[:, 1], ttft_ms=none[:, 0]), tmp_path)
    command = ["estimate", "made", "--policy", "random", "--one-step-only", "--home", str(workspace.home)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code != 0
    assert "no one-step estimates: 0 requests have a decision and a TTFT; expected 200" in str(done.exception)


def test_the_same_requests_are_another_estimand_of_every_value(tmp_path: Path) -> None:
    log = mixed(np.random.default_rng(0).random(600) < 0.5)
    workspace = workspace_of(log, tmp_path)
    command = ["estimate", "made", "--policy", "least-request", "--one-step-only", "--json", "--home"]
    like, same = (
        json.loads(CliRunner().invoke(app, [*command, str(workspace.home), *more]).stdout)
        for more in ([], ["--same-requests"])
    )
    assert same["command"].endswith("--same-requests --one-step-only")
    pairs = list(zip(like["one_step"], same["one_step"], strict=True))
    assert {row["estimator"] for row, _ in pairs} >= {"dm", "dr", "snipw", "balanced-dr", "weighted-dr"}
    for one, other in pairs:
        assert other["value_ms"] == one["value_ms"]
        assert other["interval"].startswith("value of the same requests under other luck: ")
        assert "less what prompt lengths make" in other["interval"]
        assert other["se_ms"] != one["se_ms"]
