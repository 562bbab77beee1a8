"""Serve with exploration → decision log → ingest → one-step estimates → train → ship → hot reload."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway_loop import GatewayLoop
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.estimates.one_step import one_step
from lodestar.pipeline.replay.logged_traffic import LoggedTraffic
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.routing.contract import Fleet
from serving import serving

REQUESTS, RATE = 1500, 250.0
TARGETS = ("random", "least-request", "least-uncached-tokens")


def lodestar(*arguments: str | Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "lodestar", *map(str, arguments), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_what_is_served_is_logged_learned_from_and_served_again(artifact: Path, tmp_path: Path) -> None:
    home, place, log = tmp_path / "home", tmp_path / "artifact", tmp_path / "decisions.jsonl"
    shutil.copytree(artifact, place)
    options = [place, "--decision-log", log, "--policy", "exploration=0.3", "--watch-s", "0.2"]
    with serving(*options) as server:
        gateway = GatewayLoop()
        answers = gateway.run(server, REQUESTS, RATE)
        explored = np.mean([each["exploration"] for each in answers])
        assert 0.1 < explored < 0.3  # a uniform draw among equals explores nothing
        server.until("lodestar_decision_log_records_total", REQUESTS)

        report = lodestar("ingest", log, "--dataset", "served", "--home", home)
        assert (report["rows_stored"], report["rows_rejected"]) == (REQUESTS, 0)
        weights_are_one(home)

        trained = lodestar("train", "served", "--home", home)
        assert "ttft_ms" in json.dumps(trained)
        shipped = lodestar("ship", "served", "--to", place, "--home", home)
        wait_for(lambda: server.metric("lodestar_reloads_total") == 1)
        again = gateway.run(server, 200, RATE)
        assert {each["artifact_version"] for each in again} == {shipped["version"]}
        assert server.document["version"] != shipped["version"]
        assert abs(server.metric("lodestar_failures_total")) == 0
    assert len(log.read_text().splitlines()) == REQUESTS + 200


def weights_are_one(home: Path) -> None:
    """The weight of a decision, target over logged probability, has mean 1 whatever the target, if the log is right."""
    with open_store(Workspace.open(home)) as con:
        log = load_log(con, "served")
    traffic = LoggedTraffic.of(log, warmup_ratio=0.0)
    assert np.isfinite(traffic.propensity).all()
    found = one_step(traffic, {name: make_policy(name) for name in TARGETS}, Fleet(log.instances), TARGETS[0])
    assert [row["policy"] for row in found.diagnostics] == list(TARGETS)
    for row in found.diagnostics:
        told = row["weights"]
        spread = np.sqrt((REQUESTS / told["ess"] - 1.0) / REQUESTS)
        assert told["mean"] == pytest.approx(1.0, abs=4 * spread), row
        assert row["verdict"]["word"] != "not usable", row["verdict"]
    assert all(row["value_ms"] > 0 for row in found.rows)


def wait_for(true: Any, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
