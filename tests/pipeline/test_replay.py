"""A replay end to end: its document, its files, its errors, and the real logs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.formats.native import write_decision_log
from lodestar.data.ingest import ingest
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.replay import Replay, Settings, replay
from lodestar.pipeline.trained import trained_models
from lodestar.reports.html import write_report
from lodestar.reports.result import read_result
from lodestar.reports.tables import replay_tables

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
    return replay(workspace, "random", Settings(HEURISTICS, seeds=4, measured=("least-request",)))


def test_a_recording_names_its_policy_with_the_settings_it_had(workspace: Workspace, tmp_path: Path) -> None:
    """Or nobody could ask it again for the probabilities that it gave."""
    text, to = "epsilon:least-request,epsilon=0.3", tmp_path / "log.jsonl"
    replay(workspace, "workload", Settings([text], seeds=1, record=str(to)))
    assert {json.loads(line)["policy"] for line in to.read_text().splitlines()} == {text}


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
        assert {"name", "value", "limit", "passed", "noise_floor", "why"} == set(gate)
    for row in document["policies"]:
        for latency in ("ttft_ms", "tpot_ms", "e2e_ms"):
            assert {"mean", "p50", "p90", "p99", "ci95"} == set(row[latency])
            low, high = row[latency]["ci95"]
            assert low <= row[latency]["mean"] <= high
            assert row[latency]["p50"] <= row[latency]["p90"] <= row[latency]["p99"]
        assert 0 <= row["hit_ratio"] <= row["router_hit_ratio"] + 1e-9 <= 1
        assert 0 <= row["slo_attainment"] <= 1
    for row in document["one_step"]:
        assert {"policy", "estimator", "value_ms", "se_ms", "ci95_ms"} <= set(row)
        assert row["estimand"] == "one-step, logged states"
    pairs = [(policy, estimator) for policy in HEURISTICS for estimator in estimators()]
    assert [(row["policy"], row["estimator"]) for row in document["one_step"]] == pairs
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
    again = replay(workspace, "random", Settings(HEURISTICS, seeds=4, measured=("least-request",)))
    assert again.document["policies"] == done.document["policies"]
    for part in ("one_step", "one_step_differences", "one_step_tails", "one_step_diagnostics", "derivatives", "gap"):
        assert again.document[part] == done.document[part]


def test_one_step_and_closed_loop_stand_beside_each_other_with_the_gap_split(done: Replay) -> None:
    closed = {row["policy"]: row["ttft_ms"]["mean"] for row in done.document["policies"]}
    dr = {row["policy"]: row["value_ms"] for row in done.document["one_step"] if row["estimator"] == "dr"}
    assert [row["policy"] for row in done.document["gap"]] == HEURISTICS
    for row in done.document["gap"]:
        assert (row["one_step_ms"], row["closed_loop_ms"]) == (dr[row["policy"]], closed[row["policy"]])
        parts = row["feedback_ms"] + row["log_replay_error_ms"] + row["simulator_ms"]
        assert row["gap_ms"] == pytest.approx(parts)
        assert row["made_by"] == "random"
        assert row["ratio_corrected_ms"] == pytest.approx(row["ratio"] * row["closed_loop_ms"], rel=0.02)
    assert done.document["gap_notes"][0].startswith("the log itself: ")
    assert done.document["test"] is None


def test_every_policy_has_a_verdict_tails_and_a_derivative(done: Replay) -> None:
    assert [row["policy"] for row in done.document["one_step_diagnostics"]] == HEURISTICS
    assert done.document["one_step_diagnostics"][0]["verdict"]["word"] == "usable"
    assert {row["measure"] for row in done.document["one_step_tails"]} == {
        "p50",
        "p90",
        "p99",
        "cvar90",
        "cvar99",
        "slo",
    }
    assert [row["policy"] for row in done.document["derivatives"]] == HEURISTICS
    assert done.document["derivatives"][0]["value"] == pytest.approx(0.0, abs=1e-9)  # towards the policy itself


def test_a_changed_cluster_has_no_gap(workspace: Workspace) -> None:
    document = replay(workspace, "random", Settings(["random"], seeds=1, instances=3)).document
    assert document["gap"] == []
    assert "not the logged one" in document["gap_notes"][0]


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
    assert document["one_step_notes"]
    (why,) = document["gap_notes"]
    assert "not calibrated: 0 requests have a decision and a TTFT among the first 70%; expected 50 or more. Log" in why


def test_a_named_preset_and_size_win_over_the_log(workspace: Workspace) -> None:
    document = replay(
        workspace, "random", Settings(["random"], seeds=1, engine="a100-llama-3.1-8b", instances=2)
    ).document
    assert document["engine"]["source"] == "preset a100-llama-3.1-8b"
    assert document["engine"]["instances"] == "named; the log has 4"
    assert document["instances"] == 2
    assert "the engines are preset a100-llama-3.1-8b, as named, and not calibrated" in document["gap_notes"][0]
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
    with pytest.raises(DataError, match="0 of the 800 requests of random have a TTFT in it"):
        replay(workspace, "random", Settings(["random"], seeds=1, measured=("workload",)))


def test_an_untrained_dataset_says_to_train(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="Run: lodestar train random"):
        trained_models(workspace, "random")


def records(n: int = 400) -> list[dict[str, Any]]:
    """A decision log of two instances with outcomes, as a gateway would write it."""
    rng = np.random.default_rng(6)
    now, made = 0.0, []
    for i in range(n):
        now += float(rng.exponential(0.2))
        chosen = int(rng.integers(2))
        made.append(
            {
                "request": {"request_id": f"r{i}", "arrived_at_s": now, "prompt_tokens": 1000, "output_tokens": 20},
                "candidates": [
                    {
                        "instance": f"i{j}",
                        "inflight_requests": int(rng.integers(4)),
                        "hit_ratio": 0.0,
                        "probability": 0.5,
                    }
                    for j in range(2)
                ],
                "chosen": f"i{chosen}",
                "outcome": {"ttft_ms": float(rng.uniform(80, 200)), "tpot_ms": 9.0, "e2e_ms": 400.0, "status": "ok"},
            }
        )
    return made


def replayed(tmp_path: Path, made: list[dict[str, Any]]) -> dict[str, Any]:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in made))
    workspace = Workspace.open(tmp_path / "home")
    assert ingest(workspace, [path], "d").rows_rejected == 0
    document = replay(workspace, "d", Settings(HEURISTICS, seeds=2)).document
    report = replay_tables(read_result(sorted(workspace.replays.iterdir())[-1]))
    Console(file=io.StringIO(), width=100).print(report)
    write_report(sorted(workspace.replays.iterdir())[-1], tmp_path / "report.html")
    return document


def test_requests_of_one_token_have_no_tpot(tmp_path: Path) -> None:
    made = records()
    for record in made:
        record["request"]["output_tokens"] = 1
        del record["outcome"]["tpot_ms"]
    row = replayed(tmp_path, made)["policies"][1]
    assert row["tpot_ms"] == {"mean": None, "p50": None, "p90": None, "p99": None, "ci95": None}
    assert row["difference"]["tpot_ms"] == {"mean": None, "ci95": None}
    assert row["slo_attainment"] > 0


def test_a_log_without_e2e_is_replayed_and_estimated(tmp_path: Path) -> None:
    made = records()
    for record in made:
        del record["outcome"]["e2e_ms"]
    assert len(replayed(tmp_path, made)["one_step"]) == 3 * len(estimators())


def test_decisions_without_candidates_are_left_out_of_the_estimates_and_counted(tmp_path: Path) -> None:
    made = records()
    for record in made[::50]:
        record["candidates"], record["chosen"] = [], None
    document = replayed(tmp_path, made)
    assert len(document["one_step"]) == 3 * len(estimators())
    assert "8 requests without a logged decision" in " ".join(document["engine"]["fit"]["notes"])


def test_outcomes_of_the_last_requests_alone_judge_nothing(tmp_path: Path) -> None:
    made = records()
    for record in made[:340]:
        del record["outcome"]
    document = replayed(tmp_path, made)
    assert document["trust"]["verdict"] == "not judged"
    assert document["engine"]["source"].startswith("preset")
    assert document["one_step"] == []
    assert document["one_step_notes"]


def test_a_log_without_hit_ratios_says_what_it_cannot_estimate(tmp_path: Path) -> None:
    made = records()
    for record in made:
        for candidate in record["candidates"]:
            del candidate["hit_ratio"]
    document = replayed(tmp_path, made)
    assert {row["policy"] for row in document["one_step"]} == {"random", "least-request"}
    assert "aibrix-prefix-cache: no estimate: the log lacks hit_ratio" in "; ".join(document["one_step_notes"])


def test_an_instance_that_comes_later_is_named(tmp_path: Path) -> None:
    made = records()
    for record in made[:100]:
        record["candidates"] = record["candidates"][:1]
        record["candidates"][0]["probability"] = 1.0
        record["chosen"] = "i0"
    assert "i1 in 75%" in replayed(tmp_path, made)["inferred"]["instances"]


def test_other_traffic_is_not_compared(tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records(60)))
    ingest(workspace, [path], "other")
    with pytest.raises(DataError, match="0 of the 800 requests of random have a TTFT in it; expected at least 50%"):
        replay(workspace, "random", Settings(["random"], seeds=1, measured=("other",)))


def test_a_cache_of_another_size_is_used_and_named(workspace: Workspace) -> None:
    settings = Settings(["random"], seeds=1, kv_capacity_tokens=30_000)
    document = replay(workspace, "random", settings).document
    assert document["engine"]["kv_capacity_tokens"] == 30_000
    assert "--kv-capacity-tokens 30000" in document["command"]


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["sharing09", "sharing47"])
def test_real_arms_are_predicted_from_the_random_one(traces: Path, tmp_path: Path, sharing: str) -> None:
    """Fitted to `random` alone, the replay predicts the other arms, in the right order."""
    workspace = Workspace.open(tmp_path)
    for arm in ("random", "prefix", "rl"):
        ingest(workspace, [traces / "lodestar" / sharing / f"{arm}.csv.gz"], arm)
    prefix = replay(workspace, "random", Settings(["random", "aibrix-prefix-cache"], measured=("prefix",))).document
    rl = replay(workspace, "random", Settings(["random"], measured=("rl",))).document
    found = {row["policy"]: row for row in prefix["measured"] + rl["measured"]}
    for policy in ("aibrix-prefix-cache", "choices of prefix", "choices of rl"):
        assert abs(found[policy]["error_mean"]) < 0.10, policy
        assert abs(found[policy]["error_p99"]) < 0.20, policy
    predicted = [found[name]["predicted_ttft_ms"]["mean"] for name in ("random", "choices of prefix", "choices of rl")]
    assert predicted == sorted(predicted, reverse=True)
    assert np.isfinite(predicted).all()


@pytest.mark.slow
def test_a_real_log_with_joined_arrivals_is_replayed_request_by_request(traces: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    ingest(workspace, [traces / "lodestar" / "sharing09" / "random.csv.gz"], "random")
    ingest(workspace, [traces / "lodestar" / "sharing09" / "rl.klog.gz"], "klog")
    document = replay(workspace, "random", Settings(["random"], seeds=2, arrivals_from="klog")).document
    gates = {gate["name"]: gate["value"] for gate in document["trust"]["gates"]}
    assert gates["forced_ttft_rank_correlation"] > 0.9
    assert "klog" in document["inferred"]["arrivals"]
