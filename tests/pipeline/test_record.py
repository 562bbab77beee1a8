"""A replay recorded as a decision log, and used like a real one."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.formats.native import native_schema
from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog, Workload
from lodestar.data.store import load_log, open_store
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.models.registry.releases import promote
from lodestar.models.train import train
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.replay import record
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.events import Event
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import Names, record_replay, recorded_log
from lodestar.pipeline.replay.record_targets import record_targets
from lodestar.pipeline.replay.replay import Settings, replay
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.view import RouterView
from lodestar.pipeline.scoring import score_dataset
from lodestar.pipeline.trained import trained_models

ReadBack = Callable[[Path], RequestLog]
WORKLOAD = sharing_workload(800, rate_per_s=7.0, sharing_ratio=0.4, seed=2)
CLUSTER = Cluster.of([EngineModel.preset("l40s-llama-3.1-8b")] * 4, WORKLOAD)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.open(tmp_path_factory.mktemp("record") / "home")


@pytest.fixture
def read_back(workspace: Workspace) -> ReadBack:
    def ingested(path: Path) -> RequestLog:
        name = path.name.replace(".", "-")
        assert ingest(workspace, [path], name).rows_rejected == 0
        with open_store(workspace) as con:
            return load_log(con, name)

    return ingested


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.zst"])
def test_a_recorded_replay_is_ingested_as_what_the_cluster_did(
    suffix: str, read_back: ReadBack, tmp_path: Path
) -> None:
    policy = make_policy("least-request")
    outcome = CLUSTER.replay(policy, seed=3, record=True)
    record_replay(tmp_path / f"least{suffix}", CLUSTER, policy, 3)
    log = read_back(tmp_path / f"least{suffix}")
    assert log.policy == "least-request"
    assert np.array_equal(log.chosen, outcome.instance)
    assert np.array_equal(log.arrived_at_s, WORKLOAD.arrived_at_s)
    for name in schema.OUTCOMES_LATENCIES:
        assert np.array_equal(getattr(log, name), getattr(outcome, name), equal_nan=True), name
    for k, name in enumerate(schema.SNAPSHOT_FIELDS):
        assert np.array_equal(log.snapshot[name], outcome.snapshots[:, :, k], equal_nan=True), name


@pytest.mark.parametrize("policy", [make_policy(name) for name in ("random", "least-request")], ids=lambda p: p.name)
def test_propensities_are_exact(policy: Policy, read_back: ReadBack, tmp_path: Path) -> None:
    record_replay(tmp_path / f"{policy.name}-propensity.parquet", CLUSTER, policy, 0)
    log = read_back(tmp_path / f"{policy.name}-propensity.parquet")
    loads = log.snapshot[schema.INFLIGHT_REQUESTS]
    best = loads == loads.min(axis=1, keepdims=True) if policy.name == "least-request" else np.ones_like(loads)
    assert np.allclose(log.probability, best / best.sum(axis=1, keepdims=True), rtol=0, atol=1e-12)
    assert np.array_equal(log.propensity, log.probability[np.arange(len(log)), log.chosen])


def test_blocks_are_kept(read_back: ReadBack, tmp_path: Path) -> None:
    record_replay(tmp_path / "blocks.parquet", CLUSTER, make_policy("random"), 0)
    log = read_back(tmp_path / "blocks.parquet")
    assert log.block_tokens == WORKLOAD.block_tokens
    assert np.array_equal(log.block_offsets, WORKLOAD.block_offsets)
    # Ids are numbered anew: the same blocks have the same new id.
    pairs = set(zip(log.block_ids.tolist(), WORKLOAD.block_ids.tolist(), strict=True))
    assert len(pairs) == len(set(log.block_ids.tolist())) == len(set(WORKLOAD.block_ids.tolist()))


def test_a_recorded_log_trains_replays_as_trusted_and_is_estimated_from(workspace: Workspace, tmp_path: Path) -> None:
    record_replay(tmp_path / "made.parquet", CLUSTER, make_policy("random"), 1)
    ingest(workspace, [tmp_path / "made.parquet"], "made")
    train(workspace, "made")
    promote(workspace, "made", targets=[schema.TTFT_MS])  # on so few simulated requests the gate is not sure of it
    settings = Settings(["random", "learned"], seeds=2)
    document = replay(workspace, "made", settings, trained_models(workspace, "made")).document
    assert document["trust"]["verdict"] == "trusted"
    assert document["inferred"] == {}
    assert {row["estimator"] for row in document["one_step"]} == set(estimators())


def test_the_learned_policy_is_recorded_with_its_scores_which_say_whom_it_chose(
    workspace: Workspace, tmp_path: Path
) -> None:
    record_replay(tmp_path / "train.parquet", CLUSTER, make_policy("random"), 1)
    ingest(workspace, [tmp_path / "train.parquet"], "scored")
    train(workspace, "scored")
    promote(workspace, "scored", targets=[schema.TTFT_MS])
    policy = make_policy("learned", trained_models(workspace, "scored"))
    record_replay(tmp_path / "learned.parquet", CLUSTER, policy, 1)
    for row in pq.read_table(tmp_path / "learned.parquet").to_pylist()[::50]:
        scores = {each["instance"]: each["score"] for each in row["candidates"]}
        assert scores[row["chosen"]] == min(scores.values())


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".jsonl.gz"])
def test_a_log_written_in_parts_is_the_one_written_at_once(
    suffix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = make_policy("aibrix-prefix-cache")
    whole, parts = tmp_path / f"whole{suffix}", tmp_path / f"parts{suffix}"
    record_replay(whole, CLUSTER, policy, 0)
    monkeypatch.setattr(record, "SNAPSHOTS_AT_ONCE", 300 * 4 * len(schema.SNAPSHOT_FIELDS))
    monkeypatch.setattr(record, "CANDIDATES_AT_ONCE", 70 * 4)
    record_replay(parts, CLUSTER, policy, 0)
    if suffix == ".parquet":
        assert pq.read_table(parts).equals(pq.read_table(whole))
        assert pq.ParquetFile(parts).num_row_groups > 9
    elif suffix == ".jsonl":
        assert parts.read_bytes() == whole.read_bytes()


def test_every_record_satisfies_the_schema(tmp_path: Path) -> None:
    record_replay(tmp_path / "log.jsonl", CLUSTER, make_policy("random"), 0)
    validator = jsonschema.Draft202012Validator(native_schema())
    for line in itertools.islice((tmp_path / "log.jsonl").read_text().splitlines(), 0, None, 40):
        record = json.loads(line)
        validator.validate(record)
        assert record["snapshot_age_ms"] == 0.0
        assert record["outcome"]["status"] == "ok"
        assert record["outcome"]["cached_tokens"] >= 0
        assert len(record["candidates"]) == 4


def test_names_of_the_log_are_kept_where_they_fit() -> None:
    policy = make_policy("random")
    outcome = CLUSTER.replay(policy, record=True)
    names = [f"r-{i}" for i in range(len(WORKLOAD))]
    source = dataclasses.replace(
        recorded_log("made", CLUSTER, policy, outcome), request_id=names, instances=["a", "b", "c", "d"]
    )
    again = recorded_log("again", CLUSTER, policy, outcome, names=Names.of(source, 4))
    assert (again.request_id, again.instances) == ([f"replayed-{name}" for name in names], ["a", "b", "c", "d"])
    assert Names.of(source, 5).instances is None
    twice = dataclasses.replace(source, request_id=["same"] * len(WORKLOAD))
    assert Names.of(twice, 4).requests is None


def test_a_part_of_a_recorded_run_is_that_part_of_the_log() -> None:
    policy = make_policy("least-request")
    outcome = CLUSTER.replay(policy, record=True)
    whole = recorded_log("made", CLUSTER, policy, outcome)
    part = recorded_log("made", CLUSTER, policy, outcome, range(100, 130))
    assert np.array_equal(part.probability, whole.probability[100:130])
    assert part.request_id == whole.request_id[100:130]
    blocks = slice(whole.block_offsets[100], whole.block_offsets[130])
    assert np.array_equal(part.block_ids, whole.block_ids[blocks])
    assert part.block_offsets[0] == 0


@pytest.mark.parametrize(
    ("to", "files"),
    [
        ("logs", ["logs/random.parquet", "logs/mine.py-Mine.parquet"]),
        ("logs/", ["logs/random.parquet", "logs/mine.py-Mine.parquet"]),
        ("{policy}.jsonl.gz", ["random.jsonl.gz", "mine.py-Mine.jsonl.gz"]),
        (
            "{policy}/{seed}.jsonl",
            ["random/5.jsonl", "random/6.jsonl", "mine.py-Mine/5.jsonl", "mine.py-Mine/6.jsonl"],
        ),
    ],
)
def test_what_is_named_says_which_files_are_written(to: str, files: list[str]) -> None:
    targets = record_targets(to, ["random", "of/mine.py:Mine"], range(5, 7))
    assert [str(target.path) for target in targets] == files
    assert targets[0].policy == "random"
    assert targets[0].seed == 5


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("one.parquet", "one.parquet is one file for 2 policies; expected one file each"),
        ("{policy}.csv", "suffix is not known; expected one of .jsonl,"),
        ("{polcy}.jsonl", "{polcy} is not known; expected {policy} or {seed}"),
    ],
)
def test_a_place_that_does_not_fit_is_refused_before_anything_runs(to: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        record_targets(to, ["random", "least-request"], range(2))
    assert said in str(caught.value)


def test_two_policies_never_share_a_file() -> None:
    with pytest.raises(ConfigError, match="two policies have files of one name"):
        record_targets("logs", ["one/mine.py:Mine", "two/mine.py:Mine"], range(2))


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="expected a place that can be written"):
        record_replay(tmp_path / "file" / "log.jsonl", CLUSTER, make_policy("random"), 0)


def test_requests_that_were_lost_and_instances_that_were_gone_are_recorded_as_such(
    busy: Workload, slow: EngineModel, tmp_path: Path
) -> None:
    view = RouterView(scrape_interval_ms=100.0)
    cluster = Cluster.of([slow] * 3, busy, view, [Event(20.0, "fail", 1)], "lose")
    record_replay(tmp_path / "log.jsonl", cluster, make_policy("random"), 0)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    lost = [row for row in rows if row["outcome"]["status"] == "error"]
    assert 0 < len(lost) < len(rows) / 4
    assert {row["chosen"] for row in lost} == {"instance-01"}
    assert all(row["outcome"]["e2e_ms"] is None for row in lost)
    after = [row for row in rows if row["request"]["arrived_at_s"] > 20.0]
    assert {len(row["candidates"]) for row in after} == {2}
    assert all(0 <= row["snapshot_age_ms"] < 100.0 for row in rows)
    assert len({row["snapshot_age_ms"] for row in rows}) > 100


def test_policies_that_hash_names_hash_those_of_the_log(workspace: Workspace, tmp_path: Path) -> None:
    names = tuple(f"pod-{j}" for j in "xyz")
    cluster = Cluster.of(CLUSTER.engines[:3], CLUSTER.workload, names=names)
    record_replay(tmp_path / "hashed.parquet", cluster, make_policy("kubeai-chwbl"), 1)
    ingest(workspace, [tmp_path / "hashed.parquet"], "hashed")
    (scored,) = score_dataset(workspace, "hashed", ["kubeai-chwbl"])["policies"]
    assert scored["mean_probability"] > 0.99
    document = replay(workspace, "hashed", Settings(["kubeai-chwbl", "session-affinity"], seeds=1)).document
    assert document["inferred"]["conversations"] == "none named: session-affinity does as without them"
