"""What every request passes first: token, bounds, queue, deadline; and the answers that are malformed input's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lodestar.data.errors import ConfigError
from lodestar.pipeline.serve.app import make_app
from lodestar.pipeline.serve.options import ServeOptions, read_token
from lodestar.pipeline.serve.serving import Serving
from serving import PODS, call, finished_line, infer_line, make_artifact

TOKEN = "a-token-of-24-characters"
DECIDE = {"prompt_tokens": 100, "candidates": [{"instance": "a", "inflight_requests": 2}, {"instance": "b"}]}
JSON = {"content-type": "application/json"}


@pytest.fixture
def served(artifact: Path) -> Callable[..., tuple[Serving, Any]]:
    def make(**options: Any) -> tuple[Serving, Any]:
        state = Serving(ServeOptions(artifact=str(artifact), **options))
        return state, make_app(state)

    return make


def post(app: Any, path: str, body: Any, **more: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    headers = {**JSON, **more.pop("headers", {})}
    status, text = asyncio.run(call(app, "POST", path, data, headers, **more))
    return status, json.loads(text)


def test_a_token_is_asked_of_all_but_those_who_watch(served: Any) -> None:
    _, app = served(token=TOKEN, host="0.0.0.0")
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/docs", 401), ("/status", 401)):
        assert asyncio.run(call(app, "GET", path))[0] == status, path
    assert post(app, "/infer", infer_line(1))[0] == 401
    assert post(app, "/infer", infer_line(1), headers={"authorization": f"Bearer {TOKEN}x"})[0] == 401
    assert post(app, "/infer", infer_line(1), headers={"authorization": f"Basic {TOKEN}"})[0] == 401
    assert post(app, "/infer", infer_line(1), headers={"authorization": f"Bearer {TOKEN}"})[0] == 200


def test_only_loopback_goes_without_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("0.0.0.0", "10.0.0.1", "router.example"):
        with pytest.raises(ConfigError, match="token"):
            ServeOptions(artifact="a", host=host)
    with pytest.raises(ConfigError, match="--learn"):
        ServeOptions()
    with pytest.raises(ConfigError, match="watched"):
        ServeOptions("s3://bucket/artifact.tar", watch_s=1.0)
    with pytest.raises(ConfigError, match="above 0"):
        ServeOptions("a", refit_s=0.0)
    monkeypatch.delenv("LODESTAR_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("LODESTAR_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}-of-a-file\n")
    assert read_token(file) == f"{TOKEN}-of-a-file"
    file.write_text("short")
    with pytest.raises(ConfigError, match="16"):
        read_token(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "none")


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("path", ["/infer", "/flush", "/v1/decide", "/predict/bulk/strict", "/nowhere"])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(served: Any, path: str, parts: int) -> None:
    _, app = served(max_body_mib=0.01)
    status, told = post(app, path, b"x" * 20_000, parts=parts)
    assert status == 413
    assert told["detail"][0]["loc"] == ["body", "body"]
    assert post(app, path, b"x", headers={"content-length": "9" * 30})[0] == 413


def test_of_many_at_once_the_queue_takes_so_many_and_answers_the_others_at_once(served: Any) -> None:
    state, app = served(max_queue=5)

    async def burst(path: str, bodies: list[bytes]) -> list[Any]:
        answers = await asyncio.gather(*(call(app, "POST", path, body, JSON) for body in bodies))
        assert {status for status, _ in answers} <= {200, 503}
        return [json.loads(text) for _, text in answers]

    lines = asyncio.run(burst("/infer", [infer_line(k).encode() for k in range(20)]))
    full = [each for each in lines if each.get("fallback_reason") == "queue full"]
    assert [each["ood_fallback"] for each in full] == [2] * 15
    assert sum(each["selected_pod"] in PODS for each in lines) == 5
    decided = asyncio.run(burst("/v1/decide", [json.dumps(DECIDE).encode()] * 20))
    assert [each["instance"] for each in decided if each["source"] == "queue full"] == ["b"] * 15
    rows = {"requests": [ROW]}
    answers = asyncio.run(burst("/predict/bulk/strict", [json.dumps(rows).encode()] * 20))
    assert sum(each.get("detail") == "queue full" for each in answers) == 15
    assert (
        state.metrics.registry.get_sample_value("lodestar_decisions_total", {"route": "/infer", "source": "queue full"})
        == 15
    )


ROW = {
    "kv_cache_percentage": 0.5, "input_token_length": 100, "num_request_waiting": 0, "num_request_running": 1,
    "num_tokens_generated": 1, "prefix_cache_score": 0.0,
}  # fmt: skip


def test_a_decision_that_is_late_falls_back(served: Any) -> None:
    _, app = served(deadline_ms=0.0)
    assert post(app, "/infer", infer_line(1))[1]["fallback_reason"] == "deadline"
    answer = post(app, "/v1/decide", DECIDE)[1]
    assert (answer["source"], answer["instance"]) == ("deadline", "b")


def test_a_body_may_come_in_parts_and_as_a_json_string(served: Any) -> None:
    _, app = served()
    line = infer_line("é-1")
    for body in (line.encode(), json.dumps(line).encode(), json.dumps(line, ensure_ascii=False).encode()):
        status, answer = post(app, "/infer", body, parts=3)
        assert (status, answer["request_id"]) == (200, "é-1")


def test_rewards_come_as_a_map_or_as_a_list(served: Any) -> None:
    _, app = served()
    _, as_map = post(app, "/infer", infer_line(1))
    _, as_list = post(app, "/infer", infer_line(1), query="rewards=list")
    assert as_list["predicted_rewards_pod_order"] == PODS
    assert as_map["predicted_rewards"].keys() == set(PODS)
    assert len(as_list["predicted_rewards"]) == len(PODS)
    assert all(reward < 0 for reward in as_list["predicted_rewards"])


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/infer", b"", "line"),
        ("/infer", b"\xff\xfe", "line"),
        ("/infer", b'"unfinished', "line"),
        ("/infer", f"{infer_line(1)}\n{infer_line(2)}".encode(), "line"),
        ("/flush", b"[1]", None),
        ("/flush", b'{"1": "**@latency_metrics@', "body"),
        ("/flush", b'{"1": 2, "3": "**@latency_metrics@"}', "body"),
        ("/v1/decide", b"", "body"),
        ("/v1/decide", b'{"prompt_tokens": NaN, "candidates": [{"instance": "a"}]}', "prompt_tokens"),
        ("/v1/decide", b'{"prompt_tokens": 1, "candidates": []}', "candidates"),
        ("/v1/decide", b'{"prompt_tokens": 1, "candidates": [{"instance": "a"}, {"instance": "a"}]}', "body"),
        ("/v1/decide", b'{"prompt_tokens": 1, "candidates": [{"instance": "a", "hit": 1}]}', "hit"),
        ("/v1/decide", b'{"prompt_tokens": 1, "candidates": [{"instance": "a", "hit_ratio": 2}]}', "hit_ratio"),
        ("/v1/decide", b'{"prompt_tokens": 1, "candidates": [{"instance": "\\ud800"}]}', "instance"),
        ("/v1/outcomes", b'{"outcomes": [{"decision_id": "a", "ttft_ms": -1}]}', "ttft_ms"),
        ("/v1/outcomes", b'{"outcomes": [{"decision_id": "a", "status": "fine"}]}', "status"),
    ],
)
def test_malformed_input_is_a_4xx_that_names_the_field(served: Any, path: str, body: bytes, named: str | None) -> None:
    _, app = served()
    status, told = post(app, path, body)
    assert 400 <= status < 500, told
    if named:
        assert any(named in each["loc"] for each in told["detail"]), told


def test_shadow_scores_what_would_be_decided(served: Any) -> None:
    """But for what a choice that is followed changes: what is held for it, and what it writes into caches."""
    told = {"policy": "count_uncached=false,churn=0", "reservation_ms": 0.0}
    live, shadow = served(**told)[1], served(**told, shadow=True)[1]
    for number in range(30):
        body = {"request_id": f"r{number}", "prompt_tokens": 500 + 40 * number, "candidates": [
            {"instance": "a", "hit_ratio": 0.2, "inflight_prefill_requests": 2, "prefill_tokens": 3000},
            {"instance": "b", "hit_ratio": 0.0, "inflight_prefill_requests": 0, "prefill_tokens": 0}]}  # fmt: skip
        found = [post(app, "/v1/decide", body)[1] for app in (live, shadow)]
        assert found[0]["instance"] == found[1]["would_choose"]
        assert found[0]["scores"] == pytest.approx(found[1]["scores"])


def test_settings_that_no_router_obeys_leave_what_serves(served: Any, tmp_path: Path) -> None:
    state, _ = served()
    for settings, said in (
        ({"outside": "guess"}, "outside"), ({"exploration": 5.0}, "exploration is 5.0"),
        ({"flush_s": 0.0}, "flush_s"), ({"imposed": "much"}, "imposed is 'much'"),
        ({"cold_start": "preble"}, "cold_start 'preble'"), ({"cold_start": "power-of-two"}, "draws among"),
    ):  # fmt: skip
        place = tmp_path / "-".join([*settings, str(*settings.values())])
        make_artifact(place, settings)
        before = state.version, state.policy_name
        assert said in (state.load(str(place), "request") or "")
        assert (state.version, state.policy_name) == before


def test_lines_that_count_otherwise_than_the_model_teach_nothing(served: Any) -> None:
    _, app = served(policy="count_uncached=true")
    told = post(app, "/flush", finished_line(0, PODS[0], 100))[1]
    assert told["accepted"] == 0
    assert "not asked for here" in next(iter(told["refused"]))


def test_finished_lines_are_taken_as_text_and_as_the_gateways_map(served: Any) -> None:
    state, app = served(policy="count_uncached=false")
    texts = [finished_line(k, PODS[k], 100 + k) for k in range(4)]
    broken = finished_line(9, PODS[0], 100).replace("@ttft@100", "@ttft@soon")
    unknown = finished_line(10, PODS[0], 100, ttft=-9999)
    status, told = post(app, "/flush", "\n".join([*texts, broken, unknown]))
    assert status == 200
    assert told["accepted"] == 4
    assert told["refused"] == {"not readable": 1, "no TTFT": 1}
    assert told["reasons"][0] == {"line": 5, "reason": "ttft is 'soon'; expected a number"}
    told = post(app, "/flush", {str(k): text for k, text in enumerate(texts)})[1]
    assert (told["accepted"], told["num_flush"], state.flushes) == (4, 2, 2)
    assert post(app, "/flush", json.dumps("\n".join(texts)))[1]["accepted"] == 4


def test_llm_d_flushes_with_its_own_body(served: Any) -> None:
    _, app = served()
    status, told = post(app, "/flush", {"reason": "a test"})
    assert status == 200
    assert told["success"]
