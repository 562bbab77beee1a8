"""A replay end to end: its document, its files, its errors, and the real logs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.formats.native import write_decision_log
from lodestar.data.generate import sharing_workload
from lodestar.data.ingest import ingest
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policies import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.replay import Replay, Settings, replay
from lodestar.pipeline.stages import trained_model

HEURISTICS = ["random", "least-request", "aibrix-prefix-cache"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the logs of one cluster under two policies, and a workload that nothing served."""
    folder = tmp_path_factory.mktemp("replay")
    made = Workspace.open(folder / "home")
    workload = sharing_workload(800, rate_per_s=7.0, sharing_ratio=0.4, seed=2)
    cluster = Cluster.of([EngineModel.preset("l40s-llama-3.1-8b")] * 4, workload)
    for name in ("random", "least-request"):
        policy = make_policy(name)
        path = folder / f"{name}.jsonl"
        write_decision_log(path, recorded_log(name, cluster, policy, cluster.replay(policy, seed=1, record=True)))
        ingest(made, [path], name)
    lines = [
        json.dumps({"timestamp": 500 * i, "input_length": 1024, "output_length": 20, "hash_ids": [i % 7, 7 + i]})
        for i in range(200)
    ]
    (folder / "mooncake.jsonl").write_text("\n".join(lines) + "\n")
    ingest(made, [folder / "mooncake.jsonl"], "workload")
    return made


@pytest.fixture(scope="module")
def done(workspace: Workspace) -> Replay:
    return replay(workspace, "random", Settings(HEURISTICS, seeds=4, measured="least-request"))


def test_the_document_has_the_keys_that_others_build_on(done: Replay) -> None:
    document = done.document
    assert {
        "dataset",
        "estimand",
        "engine",
        "trust",
        "seeds",
        "requests_per_s",
        "policies",
        "one_step",
        "measured",
    } <= set(document)
    assert document["estimand"] == "closed-loop, replayed"
    assert {"verdict", "gates"} <= set(document["trust"])
    for gate in document["trust"]["gates"]:
        assert {"name", "value", "limit", "passed"} == set(gate)
    for row in document["policies"]:
        for latency in ("ttft_ms", "tpot_ms", "e2e_ms"):
            assert {"mean", "p50", "p90", "p99", "ci95"} == set(row[latency])
            low, high = row[latency]["ci95"]
            assert low <= row[latency]["mean"] <= high
            assert row[latency]["p50"] <= row[latency]["p90"] <= row[latency]["p99"]
        assert 0 <= row["hit_ratio"] <= row["router_hit_ratio"] + 1e-9 <= 1
        assert 0 <= row["slo_attainment"] <= 1
    for row in document["one_step"]:
        assert {"policy", "estimator", "value_ms", "se_ms", "ess"} <= set(row)
        assert row["estimand"] == "one-step, logged states"
    assert {(row["policy"], row["estimator"]) for row in document["one_step"]} == {
        (policy, estimator) for policy in HEURISTICS for estimator in ("dm", "snips", "dr")
    }
    json.dumps(document, allow_nan=False)


def test_what_is_written_is_what_is_returned(done: Replay) -> None:
    assert json.loads((done.directory / "result.json").read_text()) == done.document
    requests = pl.read_parquet(done.directory / "requests.parquet")
    assert requests.group_by("policy").len()["len"].to_list() == [800, 800, 800]
    assert requests.null_count().sum_horizontal().item() == 0
    assert set(pl.read_parquet(done.directory / "queue.parquet")["instance_index"]) == {0, 1, 2, 3}
    assert len(pl.read_parquet(done.directory / "calibration.parquet")) == 800


def test_the_baseline_has_no_difference_and_the_others_have_theirs(done: Replay) -> None:
    random, least, _ = done.document["policies"]
    assert random["difference"] is None
    assert least["difference"]["baseline"] == "random"
    assert least["difference"]["ttft_ms"]["mean"] == pytest.approx(least["ttft_ms"]["mean"] - random["ttft_ms"]["mean"])


def test_the_measured_arm_is_predicted(done: Replay) -> None:
    errors = {row["policy"]: row["error_mean"] for row in done.document["measured"]}
    assert abs(errors["least-request"]) < 0.15
    assert abs(errors["choices of least-request"]) < 0.15
    assert done.document["trust"]["verdict"] == "trusted"


def test_the_same_seed_gives_the_same_numbers(workspace: Workspace, done: Replay) -> None:
    again = replay(workspace, "random", Settings(HEURISTICS, seeds=4, measured="least-request"))
    assert again.document["policies"] == done.document["policies"]
    assert again.document["one_step"] == done.document["one_step"]


def test_a_policy_is_replayed_the_same_whatever_is_replayed_beside_it(workspace: Workspace, done: Replay) -> None:
    alone = replay(workspace, "random", Settings(["least-request"], seeds=4))
    beside = done.document["policies"][1]
    assert alone.document["policies"][0]["ttft_ms"] == beside["ttft_ms"]


def test_a_workload_without_outcomes_is_replayed_on_a_preset_and_not_judged(workspace: Workspace) -> None:
    document = replay(workspace, "workload", Settings(HEURISTICS, seeds=2)).document
    assert document["trust"]["verdict"] == "not judged"
    assert document["engine"]["source"] == "preset h100-llama-3.1-8b"
    assert document["instances"] == 8
    assert document["one_step"] == []
    assert document["one_step_note"]


def test_a_named_preset_and_size_win_over_the_log(workspace: Workspace) -> None:
    document = replay(
        workspace, "random", Settings(["random"], seeds=1, engine="a100-llama-3.1-8b", instances=2)
    ).document
    assert document["engine"]["source"] == "preset a100-llama-3.1-8b"
    assert document["engine"]["instances"] == "named; the log has 4"
    assert document["instances"] == 2
    assert document["trust"]["verdict"] == "untrusted"


def test_a_larger_cluster_keeps_the_engine_that_the_log_fitted(workspace: Workspace, done: Replay) -> None:
    document = replay(workspace, "random", Settings(["least-request"], seeds=2, instances=8)).document
    assert document["engine"]["coefficients"] == done.document["engine"]["coefficients"]
    assert document["instances"] == 8
    assert document["policies"][0]["ttft_ms"]["mean"] < done.document["policies"][1]["ttft_ms"]["mean"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policies": []}, "no policy to replay"),
        ({"policies": ["random", "random"]}, "named twice"),
        ({"policies": ["random"], "baseline": "learned"}, "--baseline learned is not replayed"),
        ({"policies": ["random"], "seeds": 0}, "--seeds is 0"),
    ],
)
def test_settings_that_compare_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**settings)  # type: ignore[arg-type]


def test_measured_without_outcomes_is_refused(workspace: Workspace) -> None:
    with pytest.raises(DataError, match="no TTFT in it"):
        replay(workspace, "random", Settings(["random"], seeds=1, measured="workload"))


def test_an_untrained_dataset_says_to_train(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="Run lodestar train random first"):
        trained_model(workspace, "random")


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["sharing09", "sharing47"])
def test_real_arms_are_predicted_from_the_random_one(traces: Path, tmp_path: Path, sharing: str) -> None:
    """Fitted to `random` alone, the replay predicts the other arms, in the right order."""
    workspace = Workspace.open(tmp_path)
    for arm in ("random", "prefix", "rl"):
        ingest(workspace, [traces / "lodestar" / sharing / f"{arm}.csv.gz"], arm)
    prefix = replay(workspace, "random", Settings(["random", "aibrix-prefix-cache"], measured="prefix")).document
    error = {row["policy"]: row["error_mean"] for row in prefix["measured"]}
    assert abs(error["aibrix-prefix-cache"]) < 0.15
    assert abs(error["choices of prefix"]) < 0.15
    rl = replay(workspace, "random", Settings(["random"], measured="rl")).document
    predicted = {row["policy"]: row["predicted_ttft_ms"]["mean"] for row in prefix["measured"] + rl["measured"]}
    assert predicted["random"] > predicted["choices of prefix"] > predicted["choices of rl"]
    assert np.isfinite(list(predicted.values())).all()
