"""Servers in processes of their own: answers, reload, refits, shadow mode, the decision log, the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.data.ingest import ingest
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.pipeline.serve.options import ServeOptions
from lodestar.pipeline.serve.server import serve
from serving import PODS, Server, finished_line, infer_line, serving

TOKEN = "a-token-of-24-characters"
EXPLORATION = 0.25


def candidate(name: str, prefill: int) -> dict[str, Any]:
    return {
        "instance": name, "kind": "A30", "hit_ratio": 0.0, "inflight_requests": prefill, "running_requests": 1,
        "waiting_requests": 0, "kv_usage_ratio": 0.1, "inflight_prefill_requests": prefill,
        "inflight_decode_requests": 0, "prefill_tokens": 1500 * prefill, "decode_tokens": 0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def place(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of this module's own, that its tests replace."""
    to = tmp_path_factory.mktemp("served") / "artifact"
    shutil.copytree(artifact, to)
    return to


@pytest.fixture(scope="module")
def log(place: Path) -> Path:
    return place.parent / "decisions.jsonl"


@pytest.fixture(scope="module")
def server(place: Path, log: Path) -> Iterator[Server]:
    options = [place, "--decision-log", log, "--policy", f"exploration={EXPLORATION}"]
    with serving(*options, "--reservation-ms", "0") as running:
        yield running


def replace(place: Path, by: Path) -> None:
    """Put another artifact there file by file, as a copy over it does."""
    for file in by.iterdir():
        shutil.copy(file, place / file.name)


def test_it_says_what_it_serves(server: Server, place: Path) -> None:
    assert server.document["url"].startswith("http://127.0.0.1:")
    assert server.document["artifact"] == str(place)
    assert server.document["version"] == json.loads((place / "manifest.json").read_text())["manifest_sha256"]
    assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200
    document = server.get("/openapi.json")[1]
    assert {"/infer", "/flush", "/v1/decide", "/v1/outcomes", "/metrics", "/predict/bulk/strict"} <= set(
        document["paths"]
    )
    page = server.get("/docs")[1]
    assert "/v1/decide" in page
    assert "http://" not in page
    assert "https://" not in page


def test_a_line_gets_the_emptiest_pod_with_its_probability(server: Server) -> None:
    busy = {"numPrefillTokensForAllPods": {pod: 9000 for pod in PODS[1:]}}
    busy["numInflightPrefillRequestsAllPods"] = {pod: 4 for pod in PODS[1:]}
    asked = [server.post("/infer", infer_line(f"seen-{k}", **busy))[1] for k in range(40)]
    best = [each for each in asked if each["selected_pod"] == PODS[0]]
    assert {each["ood_fallback"] for each in asked} <= {0, 1}
    assert best
    for each in asked:
        explored = each["selected_pod"] != PODS[0]
        assert each["exploration"] == explored
        assert each["exploration_enabled"] == 1
        share = EXPLORATION / 8 + (0 if explored else 1 - EXPLORATION)
        assert each["probability"] == pytest.approx(share)
        assert each["chosen_pod_predicted_reward"] == each["predicted_rewards"][each["selected_pod"]]
    assert best[0]["predicted_rewards"][PODS[0]] == max(best[0]["predicted_rewards"].values())


def test_the_log_is_ingested_with_exact_propensities(server: Server, log: Path, tmp_path: Path) -> None:
    asked = [server.post("/infer", infer_line(f"logged-{k}"))[1] for k in range(60)]
    lines = [
        finished_line(f"logged-{k}", each["selected_pod"] if k else PODS[0], 200 + k) for k, each in enumerate(asked)
    ]
    assert server.post("/flush", "\n".join(lines))[1]["accepted"] == 60
    server.until("lodestar_decision_log_records_total", 60)
    written = [json.loads(line) for line in log.read_text().splitlines()]
    kept = tmp_path / "kept.jsonl"
    kept.write_text("".join(json.dumps(each) + "\n" for each in written if "outcome" in each))
    workspace = Workspace.open(tmp_path / "home")
    report = ingest(workspace, [kept], "served")
    assert [(each.format, each.rows_stored, each.rows_rejected) for each in report.sources] == [("native", 60, 0)]
    with open_store(workspace) as con:
        found = load_log(con, "served")
    assert len(found) == 60
    by_name = {each["request_id"]: each for each in asked}
    followed = [i for i, name in enumerate(found.request_id) if by_name[name]["selected_pod"] == chosen(found, i)]
    assert len(followed) >= 59  # the first one says that it went elsewhere, unless it happened to be told so
    for i in followed:
        assert found.propensity[i] == pytest.approx(by_name[found.request_id[i]]["probability"])
        assert found.probability[i].sum() == pytest.approx(1.0)


def chosen(found: Any, i: int) -> str:
    return str(found.instances[found.chosen[i]])


def test_a_native_caller_gets_scores_and_gives_outcomes_back(server: Server) -> None:
    body = {"prompt_tokens": 2000, "session_id": "s", "candidates": [candidate("x", 6), candidate("y", 0)]}
    answers = [server.post("/v1/decide", body)[1] for _ in range(10)]
    for each in answers:
        assert each["source"] == "model"
        assert each["scores"][0] > each["scores"][1] > 0
        assert sum(each["probabilities"]) == pytest.approx(1.0)
        assert each["predicted"][0]["ttft_ms"] > each["predicted"][1]["ttft_ms"]
        assert each["artifact_version"] == server.document["version"]
    assert len({each["decision_id"] for each in answers}) == 10
    rows = [{"decision_id": each["decision_id"], "ttft_ms": 100, "e2e_ms": 300, "output_tokens": 4} for each in answers]
    rows += [{"decision_id": "never-made", "ttft_ms": 1}, {"decision_id": answers[0]["decision_id"], "ttft_ms": 1}]
    rows[1] = {"decision_id": answers[1]["decision_id"], "status": "timeout", "e2e_ms": 5000}
    rows[2] = {"decision_id": answers[2]["decision_id"], "status": "error"}
    told = server.post("/v1/outcomes", {"outcomes": rows})[1]
    assert (told["learned"], told["logged"]) == (9, 10)
    why = [each["why"] for each in told["refused"]]
    assert why == ["the request failed", *["no such decision waits for an outcome"] * 2]


def test_a_bad_artifact_leaves_the_old_one_serving(
    server: Server, place: Path, artifact: Path, other_artifact: Path
) -> None:
    before = server.post("/v1/reload")[1]
    assert (before["reloaded"], before["artifact_version"]) == (True, server.document["version"])
    golden = place / "golden.json"
    for break_it, said in (
        (lambda: golden.write_text(golden.read_text() + " "), "golden.json was changed"),
        (golden.unlink, "golden.json is missing"),
        (lambda: (place / "manifest.json").write_text("{}"), "manifest.json was changed"),
    ):
        replace(place, artifact)
        break_it()
        told = server.post("/v1/reload")[1]
        assert not told["reloaded"]
        assert said in told["why_not"]
        assert told["artifact_version"] == server.document["version"]
        assert not server.post("/reload")[1]["loaded"]
        assert server.post("/infer", infer_line("after"))[1]["artifact_version"] == server.document["version"]
    assert server.metric("lodestar_reload_failures_total") == 6
    ms = server.post("/infer", infer_line("slow"))[1]["predicted_rewards"][PODS[0]]
    replace(place, other_artifact)
    after = server.post("/reload")
    assert after[1]["loaded"], after
    new = server.post("/infer", infer_line("slow"))[1]
    assert new["artifact_version"] != server.document["version"]
    assert new["predicted_rewards"][PODS[0]] == pytest.approx(2 * ms, rel=0.2)


def test_no_upgrade_to_another_protocol(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
        raw.sendall(
            b"GET /v1/decide HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b" 405 " in raw.recv(100)


def test_half_a_request_and_no_http_do_no_harm(server: Server) -> None:
    for data in (b"", b"\x00" * 100, b"POST /infer HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc", b"GET / HTTP/9\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
            raw.sendall(data)
    assert server.get("/readyz")[0] == 200


@pytest.mark.slow
def test_refits_serve_and_the_end_of_the_one_that_learns_is_survived(artifact: Path, tmp_path: Path) -> None:
    """Instances that became twice as slow are learned; a killed learner is replaced, and gets the newest rows again."""
    options = ["--learn", "--refit-s", "1", "--state", tmp_path / "state", "--reservation-ms", "0"]
    with serving(artifact, *options, LODESTAR_REFIT_NICE="0") as server:
        prompts = [500 + 10 * k for k in range(300)]
        asked = [server.post("/infer", infer_line(k, tokens))[1] for k, tokens in enumerate(prompts)]
        lines = [
            finished_line(k, each["selected_pod"], 2 * (30 + 0.1 * tokens), tokens)
            for k, (each, tokens) in enumerate(zip(asked, prompts, strict=True))
        ]
        assert server.post("/flush", "\n".join(lines))[1]["learning"]
        server.until("lodestar_reloads_total", 1, 60)
        new = server.post("/infer", infer_line("x", 2000))[1]
        assert new["num_trains"] == 1
        assert new["chosen_pod_predicted_reward"] == pytest.approx(-0.46, rel=0.15)
        assert server.metric("lodestar_drift_log_residual") == pytest.approx(0.69, abs=0.2)
        for learner in children(server.process.pid):
            os.kill(learner, signal.SIGKILL)
        server.until("lodestar_refit_failures_total", 1, 60)
        again = server.post("/infer", infer_line("y", 2000))[1]
        assert again["artifact_version"] == new["artifact_version"]
        server.until("lodestar_refits_total", 2, 60)
        server.until("lodestar_rows_buffered", 300, 10)


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(") ")[2].split()[1] == str(pid):
                found.append(int(stat.parent.name))
    return found


def test_in_shadow_mode_the_gateway_chooses_and_the_log_says_so(artifact: Path, tmp_path: Path) -> None:
    log = tmp_path / "shadow.jsonl"
    with serving(artifact, "--shadow", "--decision-log", log, LODESTAR_TOKEN=TOKEN) as server:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert server.post("/infer", infer_line("1"))[0] == 401
        answer = server.post("/infer", infer_line("1"), bearer)[1]
        assert (answer["ood_fallback"], answer["fallback_reason"]) == (2, "shadow")
        body = {"request_id": "2", "prompt_tokens": 10, "candidates": [candidate("x", 0), candidate("y", 9)]}
        native = server.post("/v1/decide", body, bearer)[1]
        assert (native["instance"], native["would_choose"]) == (None, "x")
        theirs = next(pod for pod in PODS if pod != answer["selected_pod"])
        server.post("/flush", finished_line("1", theirs, 120), bearer)
        outcomes = {"outcomes": [{"decision_id": "2", "instance": "y", "ttft_ms": 9}]}
        assert server.post("/v1/outcomes", outcomes, bearer)[1]["logged"] == 1
        server.post("/infer", infer_line("3"), bearer)
    first, second, third = (json.loads(line) for line in log.read_text().splitlines())
    assert (first["chosen"], first["policy"], first["outcome"]["ttft_ms"]) == (theirs, None, 120)
    assert all("score" in each and "probability" not in each for each in first["candidates"])
    assert (second["chosen"], second["outcome"]["status"]) == ("y", "ok")
    assert (third["chosen"], third.get("outcome")) == (None, None)  # written at the end


def test_it_starts_without_a_model_and_ends_at_once(tmp_path: Path) -> None:
    with serving("--learn") as server:
        assert server.get("/readyz")[0] == 503
        assert server.get("/healthz")[0] == 200
        told = server.post("/infer", infer_line(1))[1]
        assert (told["ood_fallback"], told["fallback_reason"]) == (2, "cold start")
        assert told["predicted_rewards"][PODS[0]] == -99
        body = {"prompt_tokens": 10, "candidates": [candidate("x", 3), candidate("y", 0)]}
        native = server.post("/v1/decide", body)[1]
        assert (native["source"], native["instance"], native["predicted"][0]["ttft_ms"]) == ("cold start", "y", None)
        begun_s = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0
        assert time.monotonic() - begun_s < 5


def test_what_cannot_be_served_is_said_before_anything_is(tmp_path: Path, artifact: Path) -> None:
    shutil.copytree(artifact, tmp_path / "broken")
    (tmp_path / "broken" / "golden.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"golden\.json was changed"):
        serve(ServeOptions(str(tmp_path / "broken"), port=0), _never)
    with pytest.raises(ConfigError, match="jsonl"):
        serve(ServeOptions(str(artifact), port=0, decision_log=tmp_path / "log.parquet"), _never)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="expected a free address"):
        serve(ServeOptions(str(artifact), port=taken.getsockname()[1]), _never)
    for policy, said in (("random", "random"), ("exploration=2", "0 to 1"), ("explore=1", "did you mean")):
        with pytest.raises(ConfigError, match=said):
            serve(ServeOptions(str(artifact), port=0, policy=policy), _never)


def _never(*_: Any) -> None:
    raise AssertionError("it serves")
