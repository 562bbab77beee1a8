"""`lodestar calibrate` takes the best that a dataset holds, keeps the cluster, and says how well it does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lodestar.data.formats.native import write_decision_log
from lodestar.data.ingest import ingest
from lodestar.data.store import load_log, open_store
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workloads.write import write_workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.calibrating import calibrate_dataset
from lodestar.pipeline.replay.calibration.files import calibrated_path, load_cluster
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log

TRUTH = EngineModel.preset("a100-llama-3.1-8b")
WORKLOAD = sharing_workload(240, rate_per_s=4.0, sharing_ratio=0.3, seed=5)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the log of two engines, and with the same requests without decisions."""
    folder = tmp_path_factory.mktemp("calibrating")
    workspace, cluster, policy = (
        Workspace.open(folder / "home"),
        Cluster.of([TRUTH] * 2, WORKLOAD),
        make_policy("random"),
    )
    write_decision_log(folder / "log.jsonl", recorded_log("mine", cluster, policy, cluster.replay(policy, record=True)))
    write_workload(folder / "bare.jsonl", WORKLOAD)
    for name, file in (("mine", "log.jsonl"), ("bare", "bare.jsonl")):
        ingest(workspace, [folder / file], name)
    return workspace


def test_latencies_come_first_and_the_cluster_is_kept_for_the_replay(logged: Workspace, tmp_path: Path) -> None:
    found = calibrate_dataset(logged, "mine", to=tmp_path / "cluster.json")
    assert found["source"] == "latencies of mine"
    assert abs(found["held_out"]["ttft_ms"]["mean_error"]) < 0.1
    assert found["files"] == [str(calibrated_path(logged, "mine")), str(tmp_path / "cluster.json")]
    kept = load_cluster(tmp_path / "cluster.json")
    assert kept.instances == ["instance-00", "instance-01"]
    assert len(kept.draws) >= 20
    json.dumps(found, allow_nan=False)


def test_without_latencies_a_preset_is_taken_and_every_better_source_is_said_to_lack(logged: Workspace) -> None:
    found = calibrate_dataset(logged, "bare", engine="a100-llama-3.1-8b")
    assert found["source"] == "the preset a100-llama-3.1-8b"
    assert found["engine"] == TRUTH.to_dict()
    for source in ("latencies", "statistics", "--profile"):
        assert any(source in note for note in found["notes"]), source


def profile(path: Path) -> Path:
    """Steps of an engine three times as slow as the preset, as a profiler would write them."""
    engine, rows = TRUTH.slowed(3.0), ["prefill_tokens,prefill_prefix,decode_seqs,decode_ctx,step_ms"]
    for prompt, before, decoding, context in (
        (p, b, d, c) for p in (0, 128, 512, 1024, 2048) for b in (0, 1024) for d in (1, 8, 32, 64) for c in (256, 2048)
    ):
        work = {"prompt_tokens": prompt, "attention": prompt * (before + prompt / 2)}
        step = engine.step_ms(decoding=decoding, context_tokens=decoding * context, **work)
        rows.append(f"{prompt},{before if prompt else 0},{decoding},{context},{step}")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_profile_stands_in_for_latencies(logged: Workspace, tmp_path: Path) -> None:
    found = calibrate_dataset(logged, "bare", profile=profile(tmp_path / "steps.csv"))
    assert found["source"] == "step-time profile steps.csv"
    assert found["engine"]["prompt_token_ms"] == pytest.approx(3 * TRUTH.prompt_token_ms, rel=0.02)


def test_latencies_have_the_last_word_over_a_profile(logged: Workspace, tmp_path: Path) -> None:
    found = calibrate_dataset(logged, "mine", profile=profile(tmp_path / "steps.csv"))
    assert found["source"] == "latencies of mine, near the profile"
    assert found["engine"]["prompt_token_ms"] == pytest.approx(TRUTH.prompt_token_ms, rel=0.15)


def test_phases_of_the_engine_come_with_the_log(tmp_path: Path) -> None:
    cluster, policy = Cluster.of([TRUTH], WORKLOAD), make_policy("random")
    log = recorded_log("made", cluster, policy, cluster.replay(policy, record=True))
    write_decision_log(tmp_path / "log.jsonl", log)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for line in lines[1:]:
        line["outcome"] |= {"queue_ms": 1.5, "prefill_ms": 20.0}
    (tmp_path / "phases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    workspace = Workspace.open(tmp_path / "home")
    ingest(workspace, [tmp_path / "phases.jsonl"], "phases")
    with open_store(workspace) as con:
        found = load_log(con, "phases")
    assert sorted(found.phases) == ["prefill_ms", "queue_ms"]
    assert (found.phases["prefill_ms"] == 20.0).sum() == len(lines) - 1
    assert replace(found, phases={}).phases == {}
