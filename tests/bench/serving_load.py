"""How fast ``lodestar serve`` answers: the server on one core, the load on another.

    python tests/bench/serving_load.py                  # open and closed loop, with and without refits; llm-d's bulk
    python tests/bench/serving_load.py --soak 600 --rate 500 --refit-s 30

Latency is counted from the moment a request was due, whether or not it could be sent then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from serving_clients import Pool, Send, request_bytes

from serving import PODS, Server, finished_line, infer_line, make_artifact, serving

SERVER_CORE, LOAD_CORE = 0, 1
CONNECTIONS = 16
LINES = 500
FLUSH_S = 1.0


class Gateway:
    """Lines as a busy gateway sends them, and the finished ones some time later."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._prompts = rng.integers(200, 6000, LINES)
        self._bodies = [self._body(rng, int(tokens)) for tokens in self._prompts]
        self._finished: list[bytes] = []
        self._number = 0

    def _body(self, rng: np.random.Generator, prompt_tokens: int) -> bytes:
        def each(values: np.ndarray[Any, Any]) -> dict[str, float]:
            return dict(zip(PODS, values.tolist(), strict=True))

        prefill, decode = rng.integers(0, 5, 8), rng.integers(0, 5, 8)
        line = infer_line(
            "REQUEST", prompt_tokens,
            allPodsKvCacheHitRatios=each(rng.integers(0, 100, 8)),
            allPodsKvCacheLastAccess=each(rng.integers(1, 700_000, 8)),
            numInflightPrefillRequestsAllPods=each(prefill),
            numInflightDecodeRequestsAllPods=each(decode),
            vllmGPUKVCacheUsage=each(rng.random(8).round(6)),
            vllmNumRequestsRunning=each(decode + 1),
            vllmNumRequestsWaiting=each(np.maximum(prefill - 1, 0)),
            numPrefillTokensForAllPods=each(prefill * 1800),
            numDecodeTokensForAllPods=each(decode * 60),
        )  # fmt: skip
        return json.dumps(line).encode()

    def infer(self, _: int = 0) -> Send:
        self._number += 1
        at, name = self._number % LINES, str(self._number)
        return request_bytes("/infer", self._bodies[at].replace(b"REQUEST", name.encode())), self._noted(name, at)

    def _noted(self, name: str, at: int) -> Callable[[int, bytes], None]:
        def note(status: int, body: bytes) -> None:
            pod = json.loads(body).get("selected_pod") or PODS[0]
            ttft_ms = 30 + 0.1 * int(self._prompts[at])
            # As JSON at once: to write all of it at the end would hold up the load.
            line = json.dumps(finished_line(name, pod, ttft_ms, int(self._prompts[at])))
            self._finished.append(f'"{name}":{line}'.encode())

        return note

    def flush(self) -> bytes | None:
        finished, self._finished = self._finished, []
        return request_bytes("/flush", b"{" + b",".join(finished) + b"}") if finished else None


def bulk() -> Callable[[int], Send]:
    rng = np.random.default_rng(0)
    rows = [
        {
            "kv_cache_percentage": round(float(rng.random()), 4), "input_token_length": int(rng.integers(100, 8000)),
            "num_request_waiting": int(rng.integers(0, 4)), "num_request_running": int(rng.integers(0, 8)),
            "num_tokens_generated": 1, "prefix_cache_score": round(float(rng.random()), 4),
            "prefill_tokens_in_flight": int(rng.integers(0, 9000)), "decode_tokens_in_flight": 0,
        } for _ in range(100)
    ]  # fmt: skip
    data = request_bytes("/predict/bulk/strict", json.dumps({"requests": rows}).encode())
    return lambda _: (data, None)


async def flushing(server: Server, gateway: Gateway, statuses: dict[int, int]) -> None:
    pool = Pool("127.0.0.1", server.port, 1)
    await pool.connect()
    while True:
        await asyncio.sleep(FLUSH_S)
        data = gateway.flush()
        if data is not None:
            pool.send(time.perf_counter(), (data, lambda status, _: statuses.update({status: 1})))


async def open_loop(server: Server, rate: float, seconds: float, flush: bool = True) -> dict[str, Any]:
    pool, gateway, flushed = Pool("127.0.0.1", server.port, CONNECTIONS), Gateway(), dict[int, int]()
    await pool.connect()
    task = asyncio.create_task(flushing(server, gateway, flushed)) if flush else None
    cpu_s, begin_s = cpu_seconds(server), time.perf_counter()
    await pool.at_rate(rate, seconds, gateway.infer)
    used = (cpu_seconds(server) - cpu_s) / (time.perf_counter() - begin_s)
    if task is not None:
        task.cancel()
    over = float(np.mean(np.array(pool.took_s) > 0.05))
    pool.close()
    return {
        "rate": rate, "answers": len(pool.took_s), **pool.milliseconds(), "over_50_ms": over,
        "statuses": pool.statuses, "flushes": flushed, "server_cpu_share": round(used, 3),
    }  # fmt: skip


async def closed_loop(server: Server, seconds: float, make: Callable[[int], Send], size: int) -> dict[str, Any]:
    pool = Pool("127.0.0.1", server.port, size)
    await pool.connect()
    rate = await pool.as_fast_as_answered(seconds, make)
    pool.close()
    return {"answers_per_s": round(rate), **pool.milliseconds(), "statuses": pool.statuses}


def cpu_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(server: Server) -> float:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def refits(server: Server) -> dict[str, float]:
    names = ("refits_total", "refits_not_better_total", "refit_failures_total", "reload_failures_total")
    return {name: server.metric(f"lodestar_{name}") for name in names}


def say(what: str, **found: Any) -> None:
    print(json.dumps({"what": what, **found}), flush=True)


async def speed(artifact: Path, seconds: float, rate: float, refit_s: float) -> None:
    pinned = ["taskset", "-c", str(SERVER_CORE)]
    for what, options in (("no refits", []), ("refits", ["--learn", "--refit-s", str(refit_s)])):
        with serving(artifact, *options, prefix=pinned) as server:
            await open_loop(server, 200, 2)
            say(f"/infer at a rate, {what}", **await open_loop(server, rate, seconds), refits=refits(server))
            if not options:
                gateway = Gateway(1)
                say("/infer as fast as answered", **await closed_loop(server, 5, gateway.infer, 8))
                say("/predict/bulk/strict, 100 rows", **await closed_loop(server, 5, bulk(), 1))


async def soak(artifact: Path, seconds: float, rate: float, refit_s: float) -> None:
    pinned = ["taskset", "-c", str(SERVER_CORE)]
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "decisions.jsonl"
        options = ["--learn", "--refit-s", str(refit_s), "--decision-log", log]
        with serving(artifact, *options, prefix=pinned) as server:
            part_s = min(60.0, seconds / 5)
            memory = []
            for part in range(round(seconds / part_s)):
                found = await open_loop(server, rate, part_s)
                memory.append(resident_mib(server))
                say(f"soak, part {part}", **found, resident_mib=memory[-1], refits=refits(server))
            written, dropped = (server.metric(f"lodestar_decision_log_{name}_total") for name in ("records", "dropped"))
            failures = server.metric("lodestar_failures_total")
            say("soak", resident_mib=memory, log_records=written, log_drops=dropped, failures=failures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=None)
    parser.add_argument("--refit-s", type=float, default=None)
    parser.add_argument("--soak", type=float, default=None)
    parser.add_argument("--artifact", type=Path, default=None)
    told = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory() as scratch:
        artifact = told.artifact or Path(scratch) / "artifact"
        if told.artifact is None:
            make_artifact(artifact)
        if told.soak:
            run = soak(artifact, told.soak, told.rate or 500.0, told.refit_s or 30.0)
        else:
            run = speed(artifact, told.seconds, told.rate or 1000.0, told.refit_s or 8.0)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run)


if __name__ == "__main__":
    main()
