"""`lodestar calibrate` takes the best that a dataset holds, keeps the cluster, and says how well it does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lodestar.data.errors import DataError
from lodestar.data.formats.native import write_decision_log
from lodestar.data.ingest import ingest
from lodestar.data.store import load_log, open_store
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workloads.write import write_workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.calibrating import calibrate_dataset
from lodestar.pipeline.calibration_advice import next_step
from lodestar.pipeline.replay.calibration.files import calibrated_path, load_cluster
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.gates import Gate
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.replay import replay
from lodestar.pipeline.replay.settings import Settings
from lodestar.pipeline.replay.trust import Trust

TRUTH = EngineModel.preset("a100-llama-3.1-8b")
WORKLOAD = sharing_workload(240, rate_per_s=4.0, sharing_ratio=0.3, seed=5)


def changed(lines: list[str]) -> list[str]:
    """The same log, with a path to the engines that takes 3 s more in the last 30 % of it."""
    records = [json.loads(line) for line in lines]
    for record in records[int(0.7 * len(records)) :]:
        record["outcome"]["ttft_ms"] += 3000.0
        record["outcome"]["e2e_ms"] += 3000.0
    return [json.dumps(record) + "\n" for record in records]


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
    lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    (folder / "few.jsonl").write_text("".join(lines[:60]))
    (folder / "changed.jsonl").write_text("".join(changed(lines)))
    for name in ("log", "bare", "few", "changed"):
        ingest(workspace, [folder / f"{name}.jsonl"], "mine" if name == "log" else name)
    return workspace


def test_latencies_come_first_and_the_cluster_is_kept_for_the_replay(logged: Workspace, tmp_path: Path) -> None:
    found = calibrate_dataset(logged, "mine", to=tmp_path / "cluster.json")
    assert found["source"] == "latencies of mine"
    assert abs(found["held_out"]["ttft_ms"]["mean_error"]) < 0.1
    assert found["files"] == [str(calibrated_path(logged, "mine")), str(tmp_path / "cluster.json")]
    kept = load_cluster(tmp_path / "cluster.json")
    assert kept.instances == ["instance-00", "instance-01"]
    assert len(kept.draws) >= 20
    assert kept.fit["verdict"] == found["trust"]["verdict"] == "trusted"
    assert found["next"].startswith("lodestar replay mine --engine-from mine --policy")
    json.dumps(found, allow_nan=False)


def test_the_verdict_is_that_of_a_replay_of_the_same_log(logged: Workspace) -> None:
    found = calibrate_dataset(logged, "changed")["trust"]
    theirs = replay(logged, "changed", Settings(policies=["random"], seeds=1)).document["trust"]
    assert found["verdict"] == theirs["verdict"] == "untrusted"
    assert [gate["name"] for gate in found["gates"]] == [gate["name"] for gate in theirs["gates"]]
    for ours, gate in zip(found["gates"], theirs["gates"], strict=True):
        assert ours["value"] == pytest.approx(gate["value"]), gate["name"]


def test_a_log_that_changed_after_what_fitted_the_engines_is_untrusted_and_said_to_have_changed(
    logged: Workspace,
) -> None:
    found = calibrate_dataset(logged, "changed")
    assert abs(found["fitted_part"]["ttft_ms"]["mean_error"]) < 0.1
    assert found["held_out"]["ttft_ms"]["mean_error"] < -0.5
    assert found["trust"]["verdict"] == "untrusted"
    assert "Find out what changed" in found["next"]


def test_who_takes_engines_that_were_calibrated_before_is_told_how_they_were_judged(logged: Workspace) -> None:
    calibrate_dataset(logged, "changed")
    done = replay(logged, "bare", Settings(policies=["random"], seeds=1, engine_from="changed"))
    assert done.document["engine"]["source"] == "latencies of changed, calibrated before and untrusted there"


def test_too_few_requests_for_a_fit_are_an_error_that_says_what_to_do(logged: Workspace) -> None:
    few = (
        "too little to calibrate from .latencies: 42 requests with a TTFT and a known instance in the first 70%, "
        "expected 50; .*--profile"
    )
    with pytest.raises(DataError, match=few):
        calibrate_dataset(logged, "few")
    with pytest.raises(DataError, match="'bare': too little to calibrate from"):
        calibrate_dataset(logged, "bare")
    assert not calibrated_path(logged, "few").exists()


def test_a_preset_taken_by_name_is_not_judged_by_a_few_requests(logged: Workspace) -> None:
    found = calibrate_dataset(logged, "few", engine="h100-llama-3.1-8b")
    assert found["trust"]["verdict"] == "not judged"
    assert found["trust"]["reasons"][0].startswith("42 requests have a decision and a TTFT")
    assert found["held_out"]["ttft_ms"]["mean_error"] < -0.5
    assert found["next"].startswith("log more")


def test_engines_that_are_wrong_even_where_they_were_fitted_want_more_to_be_told() -> None:
    gate = Gate("forced_ttft_mean_error", 0.4, 0.1, False)
    errors = {"fitted_part": {"ttft_ms": {"mean_error": -0.3}}, "held_out": {"ttft_ms": {"mean_error": 0.4}}}
    said = next_step("mine", Trust("untrusted", ["off"], [gate]), errors)
    assert "off by −30.0 % on the first 70%, which fitted the engines, and by +40.0 % on the rest" in said
    assert "--profile FILE" in said


def test_errors_that_hardly_differ_from_those_of_the_fit_are_not_those_of_a_log_that_changed() -> None:
    gate = Gate("forced_ttft_mean_error", 0.11, 0.1, False)
    errors = {"fitted_part": {"ttft_ms": {"mean_error": 0.05}}, "held_out": {"ttft_ms": {"mean_error": 0.11}}}
    assert "changed" not in next_step("mine", Trust("untrusted", ["off"], [gate]), errors)
    errors["fitted_part"]["ttft_ms"]["mean_error"] = -0.05
    assert "Find out what changed" in next_step("mine", Trust("untrusted", ["off"], [gate]), errors)
    errors["fitted_part"]["tpot_ms"] = {"mean_error": 0.3}
    assert "changed" not in next_step("mine", Trust("untrusted", ["off"], [gate]), errors)


def test_nothing_is_said_of_a_mean_that_passed_where_another_gate_failed() -> None:
    gates = [Gate("forced_ttft_mean_error", 0.08, 0.1, True), Gate("forced_ttft_ks", 0.4, 0.1, False)]
    errors = {"fitted_part": {"ttft_ms": {"mean_error": 0.0}}, "held_out": {"ttft_ms": {"mean_error": 0.08}}}
    said = next_step("mine", Trust("untrusted", ["off"], gates), errors)
    assert said.startswith("lodestar inspect mine says")
    assert "--profile FILE" in said
    assert "--profile" not in next_step("mine", Trust("untrusted", ["off"], gates), errors, profiled=True)


def test_the_replay_that_is_named_next_runs_on_the_engines_that_were_judged(logged: Workspace) -> None:
    found = calibrate_dataset(logged, "mine", engine="h100-llama-3.1-8b")
    assert "--engine-from mine" in found["next"]
    done = replay(logged, "mine", Settings(policies=["random"], seeds=1, engine_from="mine")).document
    assert done["engine"]["source"].endswith("calibrated before and trusted there")
    forced = [
        {gate["name"]: gate["value"] for gate in trust["gates"] if gate["name"].startswith("forced")}
        for trust in (found["trust"], done["trust"])
    ]
    assert forced[0] == pytest.approx(forced[1])


def test_without_latencies_a_preset_is_taken_and_every_better_source_is_said_to_lack(logged: Workspace) -> None:
    found = calibrate_dataset(logged, "bare", engine="a100-llama-3.1-8b")
    assert found["source"] == "the preset a100-llama-3.1-8b"
    assert found["engine"] == TRUTH.to_dict()
    for source in ("latencies", "statistics", "a profile"):
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
