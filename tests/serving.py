"""Real servers in processes of their own, the lines that Lodestar's gateway would send them, and artifacts to serve."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from starlette.types import ASGIApp

from lodestar.features.definitions import FEATURE_NAMES, candidate_features
from lodestar.models.online.finished import Finished
from lodestar.models.online.learner import train_models
from lodestar.models.shipping.write import ranges_of, write_artifact

__all__ = ["PODS", "Server", "call", "finished_line", "infer_line", "law_ms", "law_rows", "make_artifact", "serving"]

PODS = [f"10.0.0.{k}" for k in range(1, 9)]
#: A server without the command line around it: `lodestar serve` parses these options and calls the same function.
RUN = "import typer; from lodestar.pipeline.serve_cli import serve; typer.run(serve)"


@dataclass
class Server:
    """A server that runs."""

    url: str
    process: subprocess.Popen[str]
    document: dict[str, Any]
    said: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request on a connection of its own; a body that is no text goes as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        told = dict(headers or {})
        if body is not None and not isinstance(body, str | bytes):
            body, told = json.dumps(body), {"content-type": "application/json"} | told
        with contextlib.closing(connection):
            connection.request(method, path, body, told)
            answer = connection.getresponse()
            text = answer.read().decode()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, text

    def post(self, path: str, body: Any = "", headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        return self.ask("POST", path, body, headers)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        return self.ask("GET", path, None, headers)

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def until(self, name: str, least: float, seconds: float = 30.0) -> float:
        """Wait until a metric has grown to a value."""
        end = time.monotonic() + seconds
        while (value := self.metric(name)) < least:
            assert time.monotonic() < end, f"{name} is {value}, not {least}, after {seconds} s: {self.said[-5:]}"
            time.sleep(0.1)
        return value


@contextlib.contextmanager
def serving(*options: str | Path, prefix: Sequence[str] = (), **environment: str) -> Iterator[Server]:
    """Run a server on a free port until the block ends; it must then end cleanly."""
    command = [*prefix, sys.executable, "-c", RUN, *map(str, options), "--port", "0", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, f"the server did not start: {said}"
        document = json.loads(first)
        yield Server(document["url"], process, document, said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, said[-20:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join(5)


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    query: str = "",
    parts: int = 1,
) -> tuple[int, bytes]:
    """Send a request to an app in this process, the body in parts."""
    size = -(-len(body) // parts) or 1
    chunks = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    messages = [
        {"type": "http.request", "body": chunk, "more_body": k < len(chunks) - 1} for k, chunk in enumerate(chunks)
    ]
    told = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "headers": told,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def law_ms(features: np.ndarray[Any, Any], slower: float = 1.0) -> np.ndarray[Any, Any]:
    """TTFT of our made-up instances: 30 ms, and 0.1 ms for each token to compute before the first."""
    column = FEATURE_NAMES.index("tokens_to_first_token")
    return np.asarray(slower * (30.0 + 0.1 * features[:, column]))


def law_rows(n: int, seed: int = 0, slower: float = 1.0, kind: str = "A30") -> Finished:
    rng = np.random.default_rng(seed)
    features = np.empty((n, len(FEATURE_NAMES)))
    for i in range(n):
        prefill, decode = rng.integers(0, 6, (2, 4))
        running = decode + (prefill > 0)
        snapshot = np.stack(
            [
                rng.choice([0.0, 0.3, 0.8], 4), prefill + decode, running, np.maximum(prefill - 1, 0), rng.random(4),
                prefill, decode, prefill * 1500.0, decode * 50.0, rng.exponential(10, 4),
            ], axis=1,
        )  # fmt: skip
        every = np.empty((4, len(FEATURE_NAMES)))
        candidate_features(float(rng.integers(50, 8000)), snapshot, every)
        features[i] = every[0]
    ttft_ms = law_ms(features, slower) * np.exp(rng.normal(0, 0.1, n))
    decided = 1.7e9 + np.arange(n) * 0.1
    no = np.zeros(n, dtype=np.bool_)
    return Finished(
        features, np.full(n, kind), ttft_ms, np.full(n, 20.0), no, decided, decided + ttft_ms / 1e3
    )  # fmt: skip


def make_artifact(directory: Path, policy: Mapping[str, Any] | None = None, seed: int = 0, slower: float = 1.0) -> str:
    """Train on our made-up law and write an artifact; return its version."""
    rows = law_rows(1200, seed, slower)
    models = train_models(rows, seed=seed, heads=True)
    ranges = ranges_of(np.nanmin(rows.features, axis=0), np.nanmax(rows.features, axis=0))
    directory.mkdir(parents=True, exist_ok=True)
    record = {"feature_ranges": ranges, "rows": len(rows)}
    told = {"name": "lodestar-online", "settings": dict(policy or {})}
    return write_artifact(
        directory, models, records=dict.fromkeys(models, record), dataset="made", policy=told, trained_at_s=1.7e9
    )


def infer_line(request_id: str | int, prompt_tokens: int = 2000, **maps: Any) -> str:
    """Return the line that the gateway sends; `maps` replace fields by their keys, None for an empty map."""
    zero = dict.fromkeys(PODS, 0)
    fields: dict[str, Any] = {
        "requestID": request_id, "request_start_time": 702815, "request_end_time": -9999, "selectedpod": -9999,
        "ttft": -9999, "avg_tpot": -9999, "total_decode_time": -9999, "e2e": -9999, "numInputTokens": prompt_tokens,
        "numOutputTokens": 100, "numTotalTokens": prompt_tokens + 100, "allPodsKvCacheHitRatios": zero,
        "allPodsKvCacheLastAccess": zero, "hashOfMatchedPrefix": 6112368693372458883, "numInflightRequestsAllPods": {},
        "numInflightPrefillRequestsAllPods": zero, "numInflightDecodeRequestsAllPods": zero,
        "vllmGPUKVCacheUsage": zero, "vllmCPUKVCacheUsage": {}, "vllmNumRequestsRunning": zero,
        "vllmNumRequestsWaiting": zero, "numPrefillTokensForAllPods": zero, "numDecodeTokensForAllPods": zero,
        "numTrains": 0, "numFlush": 0, "exploration": -1, "explorationEnabled": -1, "predictedRewards": None,
        "chosenPodPredictedReward": "-99.000000", "iteration": 0, "subAlgorithm": "lodestar",
        "prev_reward": "-7.000000", "GPU": dict.fromkeys(PODS, "A30"),
    }  # fmt: skip
    fields |= maps
    text = "@".join(f"{key}@{_written(value)}" for key, value in fields.items())
    return f"I0401 00:02:34.128704       1 rl_routing.go:613] **@latency_metrics@{text}"


def finished_line(
    request_id: str | int, pod: str, ttft_ms: float, prompt_tokens: int = 2000, output_tokens: int = 10, **maps: Any
) -> str:
    """Return the line of a finished request; the counts of its pod include itself, as the gateway's do."""
    own = {
        "numInflightPrefillRequestsAllPods": {pod: 1},
        "numPrefillTokensForAllPods": {pod: prompt_tokens},
    }
    told = {
        "selectedpod": pod, "ttft": round(ttft_ms), "avg_tpot": 20, "e2e": round(ttft_ms) + 20 * (output_tokens - 1),
        "numOutputTokens": output_tokens,
    }  # fmt: skip
    return infer_line(request_id, prompt_tokens, **{**own, **told, **maps})


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
