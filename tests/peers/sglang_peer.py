"""The real ``sglang-router`` before fake workers that hold every request until they are told to answer."""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import re
import socket
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.environment import peer_python

__all__ = ["Held", "SglangRouter", "sglang_router"]

PATIENCE_S = 20.0
SIZE = re.compile(r"Tenant: (\S+), Size: (\d+)")
# What `sglang-router launch` runs, without the libraries that only its other commands need.
LAUNCH = """
import json, sys
from sglang_router.router import Router
from sglang_router.router_args import RouterArgs
Router.from_args(RouterArgs(**json.loads(sys.argv[1]))).start()
"""


@dataclass(slots=True)
class Held:
    """A request that a worker has and does not answer yet."""

    url: str
    answer: Callable[[], None]
    connection: http.client.HTTPConnection | None = None


class _Workers:
    """Fake engines on loopback ports, all in one thread."""

    def __init__(self, count: int) -> None:
        self.arrived: queue.Queue[Held] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.urls = [self._run(self._listen()) for _ in range(count)]

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_S)

    async def _listen(self) -> str:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        url = f"http://127.0.0.1:{writer.get_extra_info('sockname')[1]}"
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                if head.startswith("post"):
                    length = int(head.partition("content-length:")[2].split()[0])
                    await reader.readexactly(length)
                    told = asyncio.Event()
                    self.arrived.put(Held(url, lambda told=told: self._loop.call_soon_threadsafe(told.set)))
                    await told.wait()
                # Without a model's name, so that the router does not look for its tokenizer in the network.
                body = b'{"status":"ok","is_generation":true,"text":""}'
                start = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
                writer.write(f"{start}{len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    def close(self) -> None:
        self._run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class SglangRouter:
    """A running router: send it requests one at a time, see where each went, and let workers answer when you like.

    Attributes:
        urls: of the workers that there can be.
        sizes: characters that the router's tree holds of each worker, before and after every eviction so far.
        evicted_at_s: when the last one was, or the router began.
    """

    def __init__(self, workers: _Workers, first: int, settings: dict[str, Any]) -> None:
        """Start it with the first so many workers."""
        self.urls = workers.urls
        self.sizes: list[tuple[dict[str, int], dict[str, int]]] = []
        self.evicted_at_s = time.monotonic()
        self._workers = workers
        self._port, prometheus_port = _free_port(), _free_port()
        self._idle: list[http.client.HTTPConnection] = []
        self._log: deque[str] = deque(maxlen=10)
        arguments = {
            "host": "127.0.0.1",
            "port": self._port,
            "worker_urls": workers.urls[:1],
            "policy": "cache_aware",
            "prometheus_host": "127.0.0.1",
            "prometheus_port": prometheus_port,
            "disable_retries": True,
            "disable_circuit_breaker": True,
            "disable_health_check": True,
            "worker_startup_check_interval": 1,
            "shutdown_grace_period_secs": 1,
            "log_level": "debug",
            **settings,
        }
        self._process = subprocess.Popen(
            [str(_python()), "-c", LAUNCH, json.dumps(arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._wait_for_workers({workers.urls[0]})
        # One by one: how much the router counts as workers register depends on who is there by then.
        for url in workers.urls[1:first]:
            self.add(url)

    def send(self, text: str) -> Held:
        """Send a prompt; return as it reaches a worker."""
        connection = self._idle.pop() if self._idle else _connect(self._port)
        connection.request("POST", "/generate", json.dumps({"text": text}), {"content-type": "application/json"})
        held = self._workers.arrived.get(timeout=PATIENCE_S)
        held.connection = connection
        return held

    def finish(self, held: Held, loads: Counter[str]) -> None:
        """Let the worker answer; return as the router's own counts of requests in flight are these."""
        assert held.connection is not None
        held.answer()
        answer = held.connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        self._idle.append(held.connection)
        _wait(lambda: self.loads() == +loads, f"the router counts {loads} in flight")

    def loads(self) -> Counter[str]:
        """Return the requests in flight at each worker, as the router counts them, without the idle."""
        return +Counter({worker["url"]: worker["load"] for worker in self._listed()})

    def add(self, url: str) -> None:
        """Let a worker join."""
        self._call("POST", "/workers", {"url": url})
        self._wait_for_workers({worker["url"] for worker in self._listed()} | {url})

    def remove(self, url: str) -> None:
        """Let a worker leave."""
        listed = {worker["url"]: worker["id"] for worker in self._listed()}
        self._call("DELETE", f"/workers/{listed.pop(url)}")
        self._wait_for_workers(set(listed))

    def wait_for_eviction(self) -> None:
        """Return just after the router has cut its trees."""
        before = len(self.sizes)
        _wait(lambda: len(self.sizes) > before, "the router has evicted", pause_s=0.002)

    def close(self) -> None:
        """Stop the process."""
        for connection in self._idle:
            connection.close()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(PATIENCE_S)

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        stages: list[dict[str, int]] = []
        for line in self._process.stdout:
            self._log.append(line)
            if "eviction - Used size" in line:
                stages.append({})
            elif said := SIZE.search(line):
                stages[-1][said[1]] = int(said[2])
            elif "eviction completed" in line:
                self.evicted_at_s = time.monotonic()
                self.sizes.append((stages[-2], stages[-1]))

    def _wait_for_workers(self, urls: set[str]) -> None:
        def there() -> bool:
            assert self._process.poll() is None, "".join(self._log)
            try:
                return {worker["url"] for worker in self._listed() if worker["is_healthy"]} == urls
            except OSError:
                return False

        _wait(there, f"the router lists {urls}")

    def _listed(self) -> list[dict[str, Any]]:
        workers: list[dict[str, Any]] = self._call("GET", "/workers")["workers"]
        return workers

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = self._idle.pop() if self._idle else _connect(self._port)
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status in (200, 202), text
        self._idle.append(connection)
        return json.loads(text)


@contextmanager
def sglang_router(workers: int, spare: int = 0, **settings: Any) -> Iterator[SglangRouter]:
    """Run the router with so many workers, and so many more that can join; settings are those of its command line."""
    _python()
    with closing(_Workers(workers + spare)) as fake, closing(SglangRouter(fake, workers, settings)) as router:
        yield router


def _python() -> Path:
    return peer_python("peer-sglang")


def _connect(port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _wait(condition: Callable[[], bool], what: str, pause_s: float = 0.0005) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s in vain until {what}"
        time.sleep(pause_s)
