"""Ten thousand broken requests over every route: each is answered, none with a 5xx but for what is not there yet."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from lodestar.pipeline.serve.app import make_app
from lodestar.pipeline.serve.options import ServeOptions
from lodestar.pipeline.serve.serving import Serving
from mutations import FRAGMENTS, TOKEN
from serving import PODS, call, finished_line, infer_line, serving

ROW = {
    "kv_cache_percentage": 0.5, "input_token_length": 100, "num_request_waiting": 0, "num_request_running": 1,
    "num_tokens_generated": 1, "prefix_cache_score": 0.0, "prefill_tokens_in_flight": 5, "pod_type": "",
}  # fmt: skip
ENTRY = {**ROW, "actual_ttft_ms": 100.0, "actual_tpot_ms": 5.0, "timestamp": "2026-01-01T00:00:00Z"}
CANDIDATE = {"instance": "a", "kind": "A30", "hit_ratio": 0.5, "inflight_requests": 1, "prefill_tokens": 100}
DECIDE = {"prompt_tokens": 10, "request_id": "r", "session_id": "s", "prefix_group": 5, "candidates": [CANDIDATE]}
OUTCOMES = {"outcomes": [{"decision_id": "r", "instance": "a", "ttft_ms": 1.0, "status": "ok", "output_tokens": 3}]}
LINES = {"1": finished_line(1, PODS[0], 100), "2": finished_line(2, PODS[1], 100)}

#: Route → a good body for it.
BODIES: Final[dict[str, Any]] = {
    "/infer": infer_line(1), "/flush": LINES, "/v1/decide": DECIDE, "/v1/outcomes": OUTCOMES,
    "/predict": ROW, "/predict/bulk": {"requests": [ROW, ROW]}, "/predict/bulk/strict": {"requests": [ROW, ROW]},
    "/add_training_data_bulk": {"entries": [ENTRY]},
}  # fmt: skip
PAGES: Final = (
    "/healthz", "/readyz", "/status", "/data/status", "/debug/prefix_distribution", "/models/list", "/model/export",
    "/model/download/info", "/model/ttft/info", "/model/ttft/download", "/model/tpot/lgb/txt", "/model/x/xgb/json",
    "/model/ttft/lgb/importances", "/metrics", "/docs", "/openapi.json", "/", "/model/../../etc", "/nowhere",
)  # fmt: skip
ODD: Final = (
    None, True, -1, 0, 1e308, -1e308, 2**63, 2**70, 0.5, "", "x", "nan", [], {}, [[]], [None], {"a": 1}, "\u0000", "𝕏",
    "x" * 2000,
)  # fmt: skip
METHODS: Final = ("POST", "POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")


def changed(value: Any, rng: random.Random) -> Any:
    """Return the value with one part of it odd, missing, or there once more."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        what = rng.random()
        if what < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed(value[key], rng)} | ({rng.choice("abc"): 1} if what > 0.9 else {})
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], changed(value[at], rng), *value[at + rng.randint(0, 1) :]]
    return rng.choice(ODD)


def odd_line(rng: random.Random) -> str:
    """Return a line of the gateway with a few of its fields odd."""
    make: Callable[..., str] = rng.choice([lambda **m: infer_line(1, **m), lambda **m: finished_line(1, "a", 9, **m)])
    keys = [part.split("@")[0] for part in infer_line(1).partition("metrics@")[2].split("@")[::2]]
    maps = ({}, {"a": 1}, {"a": -1, "b": 2}, {PODS[0]: 50}, {"a": None}, {"a": "1"}, {"a": {"b": 1}}, {"a": 1e400})
    return make(**{rng.choice(keys): rng.choice([*ODD, *maps]) for _ in range(rng.randint(1, 3))})


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return the bytes with a piece replaced, put in, flipped or cut off."""
    at, what = rng.randint(0, len(content)), rng.randrange(4)
    tokens = list(TOKEN.finditer(content)) if what == 0 else []
    if tokens:
        token = rng.choice(tokens)
        return content[: token.start()] + rng.choice(FRAGMENTS) + content[token.end() :]
    if what == 1:
        return content[:at] + rng.choice(FRAGMENTS) + content[at:]
    return content[:at] + (rng.randbytes(1) + content[at + 1 :] if what == 2 else b"")


def body_for(path: str, rng: random.Random) -> bytes:
    good = BODIES.get(path, {"a": 1})
    what = rng.random()
    if path in ("/infer", "/flush") and what < 0.5:
        text = odd_line(rng)
        lines = "\n".join(odd_line(rng) for _ in range(2))
        return rng.choice([text, json.dumps(text), json.dumps({"1": text}), lines]).encode(errors="surrogatepass")
    if what < 0.75 and not isinstance(good, str):
        found = good
        for _ in range(rng.randint(1, 3)):
            found = changed(found, rng)
        return json.dumps(found).encode()
    whole = (good if isinstance(good, str) else json.dumps(good)).encode()
    return damaged(whole, rng) if what < 0.97 else rng.randbytes(rng.randint(0, 300))


def requests(n: int, seed: int) -> Iterator[tuple[str, str, bytes, dict[str, str], str]]:
    rng = random.Random(seed)
    paths = [*BODIES] * 6 + [*PAGES]
    for k in range(n):
        path = rng.choice(["/reload", "/v1/reload"]) if k % 500 == 499 else rng.choice(paths)
        method = "GET" if path in PAGES and rng.random() < 0.8 else rng.choice(METHODS)
        kind = rng.choice(["application/json"] * 8 + ["text/plain", "", "a/b", "application/json; charset=utf-16"])
        headers = {"content-type": kind} if kind else {}
        if rng.random() < 0.02:
            headers["content-length"] = rng.choice(["-1", "x", "0", "9" * 40])
        query = rng.choice(["", "", "rewards=list", "rewards=&&=%ff", "%", "a=1;b=2"])
        yield method, path, b"" if method in ("GET", "HEAD") else body_for(path, rng), headers, query


def test_no_request_makes_a_server_fail(artifact: Path, tmp_path: Path) -> None:
    options = ServeOptions(str(artifact), learn=True, decision_log=tmp_path / "log.jsonl", max_body_mib=0.05)
    state = Serving(options)
    app, statuses = make_app(state), Counter[int]()

    async def run() -> None:
        for method, path, body, headers, query in requests(10_000, 0):
            status, answer = await call(app, method, path, body, headers, query)
            assert status < 500, (method, path, headers, query, body, answer)
            statuses[status] += 1

    asyncio.run(run())
    asyncio.run(state.tidy(0.0))
    state.close()
    assert statuses[200] > 500
    assert statuses[422] > 1000
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        assert json.loads(line)["request"]["request_id"]


def test_no_bytes_on_a_socket_make_it_fail(artifact: Path) -> None:
    """The same over the wire, and what is no HTTP at all."""
    rng, statuses = random.Random(1), Counter[int]()
    with serving(artifact, "--max-body-mib", "0.05") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for method, path, body, headers, query in requests(250, 2):
            connection.request(method, path + (f"?{query}" if query else ""), body, _sendable(headers))
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
            if answer.headers.get("connection") == "close":
                connection.close()
        connection.close()
        for _ in range(100):
            head = f"POST {rng.choice(list(BODIES))} HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n".encode()
            with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
                raw.sendall(damaged(head + rng.randbytes(rng.randint(0, 40)), rng))
        assert server.get("/readyz")[0] == 200
        assert server.metric("lodestar_failures_total") == 0
    assert not [status for status in statuses if status >= 500]
    assert statuses[200] > 10


def _sendable(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "content-length"}
