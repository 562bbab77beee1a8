"""Measured arms of real clusters, foretold from the log of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import record_replay
from lodestar.pipeline.replay.replay import replay
from lodestar.pipeline.validation.measured_arms import CLUSTERS, OWN_CHOICES, ArmsOf, measured_arms, traces_folder
from lodestar.reports.numbers import MISSING
from lodestar.reports.validation_grids import arms_grid


def test_what_is_not_there_is_skipped_with_a_reason(tmp_path: Path) -> None:
    found = measured_arms(tmp_path)
    assert found["rows"] == []
    assert list(found["skipped"]) == list(CLUSTERS)
    assert found["skipped"]["sharing09"] == (
        f"{tmp_path / 'lodestar/sharing09/random.csv.gz'} is not there; "
        "name the folder of real logs by --traces or LODESTAR_TRACES"
    )


def test_the_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LODESTAR_TRACES", str(tmp_path))
    assert traces_folder() == tmp_path


def test_the_policies_of_arms_are_ours() -> None:
    for policy in {policy for cluster in CLUSTERS.values() for policy in cluster.arms.values() if policy}:
        assert make_policy(policy).name == policy


def test_every_cluster_lies_in_the_folder_of_logs(traces: Path) -> None:
    for cluster in CLUSTERS.values():
        for arm in ("random", *cluster.arms):
            assert (traces / cluster.files.format(arm=arm)).exists()


def without_blocks(path: Path) -> None:
    """Leave of a native log what a gateway logs that knows hits alone."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for record in records:
        for told in (record, record["request"]):
            for key in ("block_ids", "block_tokens"):
                told.pop(key, None)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


def test_the_verdict_knows_nothing_of_the_arms_that_are_foretold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = Cluster.of([EngineModel.preset("l40s-llama-3.1-8b")] * 3, sharing_workload(300, 6.0, 0.4, seed=2))
    for name in ("random", "least-request"):
        record_replay(tmp_path / f"{name}.jsonl", cluster, make_policy(name), 1)
        without_blocks(tmp_path / f"{name}.jsonl")
    made = {"made": ArmsOf("{arm}.jsonl", {"least-request": "least-request"})}
    monkeypatch.setattr("lodestar.pipeline.validation.measured_arms.CLUSTERS", made)
    judged = []

    def told(*given: Any) -> Any:
        judged.append(replay(*given))
        return judged[-1]

    monkeypatch.setattr("lodestar.pipeline.validation.measured_arms.replay", told)
    found = measured_arms(tmp_path, ["made"], seeds=1)
    (summary,) = found["summary"]
    beforehand, beside = (done.document["trust"] for done in judged)
    assert any(gate["name"].startswith("arm_") for gate in beside["gates"])
    assert not any(gate["name"].startswith("arm_") for gate in beforehand["gates"])
    assert (summary["verdict"], summary["reasons"]) == (beforehand["verdict"], beforehand["reasons"])
    known = {row["replayed"]: row["error_mean_hits_known"] for row in found["rows"]}
    assert known["least-request"] is None
    assert isinstance(known[OWN_CHOICES], float)
    shown = next(column for column in arms_grid(found).columns if column.title == "its hits known")
    assert sorted(cell.text == MISSING for cell in shown.cells) == [False, True]


@pytest.mark.slow
def test_the_random_arm_foretells_the_others(traces: Path) -> None:
    found = measured_arms(traces, ("sharing09",), seeds=5)
    (summary,) = found["summary"]
    assert summary["order"]["measured"] == ["sharing09-random", "sharing09-prefix", "sharing09-rl"]
    assert summary["kendall_tau"] == pytest.approx(1.0)
    assert [(row["arm"], row["replayed"]) for row in found["rows"]] == [
        ("prefix", "aibrix-prefix-cache"),
        ("prefix", OWN_CHOICES),
        ("rl", OWN_CHOICES),
    ]
    assert all(abs(row["error_mean_hits_known"]) < 0.05 for row in found["rows"][1:])
    policy = found["rows"][0]
    assert policy["measured_mean_ms"] == pytest.approx(2080.1, abs=0.1)
    assert abs(policy["error_mean"]) < 0.1
    # As a performance, one-step estimates miss it by a quarter.
    assert policy["one_step_error"]["snipw"] < -0.2
    assert policy["one_step_error"]["dr"] < -0.2
