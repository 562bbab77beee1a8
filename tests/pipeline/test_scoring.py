"""`lodestar policies` and `lodestar policies score`, on a small recorded log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.ingest import ingest
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.policies_cli import policies_app
from lodestar.pipeline.replay.calibration.files import CalibratedCluster, calibrated_path, save_cluster
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import record_replay
from lodestar.pipeline.scoring import score_dataset

ENGINE = EngineModel.preset("l40s-llama-3.1-8b")
CLUSTER = Cluster.of([ENGINE] * 3, sharing_workload(120, rate_per_s=6.0, sharing_ratio=0.5, seed=4))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the dataset 'made': 120 requests on three instances, routed by least-request."""
    folder = tmp_path_factory.mktemp("scoring")
    record_replay(folder / "made.jsonl", CLUSTER, make_policy("least-request"), 1)
    workspace = Workspace.open(folder / "home")
    ingest(workspace, [folder / "made.jsonl"], "made")
    return workspace


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command in this process and return its stdout."""
    policies_app(args=arguments, standalone_mode=False)
    return capsys.readouterr().out


def test_without_a_verb_the_policies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.loads(run("--json", capsys=capsys))
    assert {policy.name for policy in POLICIES} <= {row["policy"] for row in shown}
    assert "least-request" in run(capsys=capsys)


def test_the_policy_that_made_the_log_agrees_with_it_and_others_less(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("least-request", "random", "epsilon:least-request,epsilon=0.3")
    words = [word for name in names for word in ("--policy", name)]
    home = ("--home", str(workspace.home))
    found = json.loads(run("score", "made", *words, *home, "--json", capsys=capsys))
    assert (found["requests"], found["decisions"], found["to"]) == (120, 120, None)
    least, uniform, mixed = found["policies"]
    assert [row["policy"] for row in found["policies"]] == list(names)
    assert least["possible_ratio"] == 1.0
    assert uniform["mean_probability"] == pytest.approx(1 / 3)
    assert mixed["mean_probability"] == pytest.approx(0.7 * least["mean_probability"] + 0.1)
    assert all((row["scored"], row["not_scored"], row["notes"]) == (120, {}, []) for row in found["policies"])
    assert "120 logged decisions of made" in run("score", "made", *words, *home, capsys=capsys)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_every_candidates_probability_is_written(suffix: str, workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / f"scores{suffix}"
    found = score_dataset(workspace, "made", ["least-request", "random"], path)
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": pl.read_parquet,
        ".jsonl": pl.read_ndjson,
        ".csv": pl.read_csv,
    }
    rows = readers[suffix](path).filter(pl.col("policy") == "least-request")
    assert len(rows) == 120 * 3
    assert rows.columns == ["policy", "request_index", "request_id", "instance", "chosen", "probability"]
    assert rows["chosen"].sum() == 120
    assert rows.filter("chosen")["probability"].mean() == pytest.approx(found["policies"][0]["mean_probability"])
    assert rows.group_by("request_index").agg(pl.col("probability").sum())["probability"].is_between(0.999, 1.001).all()
    assert rows["instance"].unique().sort().to_list() == [f"instance-0{j}" for j in range(3)]


def test_what_cannot_be_scored_is_said(workspace: Workspace, tmp_path: Path) -> None:
    (row,) = score_dataset(workspace, "made", ["oracle-ttft"], tmp_path / "none.parquet")["policies"]
    assert (row["scored"], row["mean_probability"], row["possible_ratio"]) == (0, None, None)
    assert row["not_scored"] == {"it looks into the engines, which only a replay can": 120}
    assert len(pl.read_parquet(tmp_path / "none.parquet")) == 0


def test_engines_that_a_policy_must_know_are_the_calibrated_ones(workspace: Workspace) -> None:
    (row,) = score_dataset(workspace, "made", ["greedy-engine-ttft"])["policies"]
    assert row["not_scored"] == {"it must know the engines: run lodestar calibrate made first": 120}
    names = [f"instance-0{j}" for j in range(3)]
    save_cluster(calibrated_path(workspace, "made"), CalibratedCluster("made", "", names, ENGINE, [ENGINE] * 3, [], {}))
    (row,) = score_dataset(workspace, "made", ["greedy-engine-ttft"])["policies"]
    assert row["scored"] == 120


def test_what_makes_no_sense_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="suffix is not known; expected one of"):
        score_dataset(workspace, "made", ["random"], tmp_path / "scores.txt")
    with pytest.raises(ConfigError, match="a policy is named twice"):
        score_dataset(workspace, "made", ["random", "random"])
    with pytest.raises(ConfigError, match="needs a latency model and this dataset has none"):
        score_dataset(workspace, "made", ["learned"])
    with pytest.raises(ConfigError, match="No such file or directory"):
        score_dataset(workspace, "made", ["random"], tmp_path / "nowhere" / "scores.csv")
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"request": {"request_id": "a", "arrived_at_s": 0, "prompt_tokens": 5, "output_tokens": 2}}\n')
    ingest(workspace, [bare], "bare")
    with pytest.raises(DataError, match="has no decisions to score"):
        score_dataset(workspace, "bare", ["random"])
