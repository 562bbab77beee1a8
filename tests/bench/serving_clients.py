"""A pool of HTTP connections that sends at set times and notes how long each answer took."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import cast

import numpy as np

__all__ = ["Pool", "request_bytes"]

Send = tuple[bytes, Callable[[int, bytes], None] | None]


def request_bytes(path: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: lodestar\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._buffer = b""
        self.transport: asyncio.Transport | None = None
        self.due_s = 0.0
        self.then: Callable[[int, bytes], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.index(b"content-length:") + 15
        length = int(head[at:].split(b"\r\n", 1)[0])
        if len(self._buffer) < head_end + 4 + length:
            return
        body, self._buffer = self._buffer[head_end + 4 :], b""
        self._pool.answered(self, int(head[9:12]), body)

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.lost += 1


class Pool:
    """Sends over `size` connections; what is due while all are busy waits, and its wait counts.

    Attributes:
        took_s: from when each request was due to its whole answer.
        statuses: status → answers.
        lost: connections that ended.
    """

    def __init__(self, host: str, port: int, size: int) -> None:
        self._at = (host, port)
        self._size = size
        self._idle: list[_Connection] = []
        self._late: deque[tuple[float, Send]] = deque()
        self.took_s: list[float] = []
        self.statuses: dict[int, int] = {}
        self.lost = 0
        self.open = 0

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._size):
            _, connection = await loop.create_connection(lambda: _Connection(self), *self._at)
            self._idle.append(connection)

    def send(self, due_s: float, send: Send) -> None:
        self.open += 1
        if self._idle:
            self._start(self._idle.pop(), due_s, send)
        else:
            self._late.append((due_s, send))

    def _start(self, connection: _Connection, due_s: float, send: Send) -> None:
        connection.due_s, connection.then = due_s, send[1]
        assert connection.transport is not None
        connection.transport.write(send[0])

    def answered(self, connection: _Connection, status: int, body: bytes) -> None:
        self.took_s.append(time.perf_counter() - connection.due_s)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.open -= 1
        if connection.then is not None:
            connection.then(status, body)
        if self._late:
            self._start(connection, *self._late.popleft())
        else:
            self._idle.append(connection)

    async def at_rate(self, rate: float, seconds: float, make: Callable[[int], Send]) -> None:
        """Send `rate` a second, evenly, whether answers come or not."""
        begin = time.perf_counter()
        for k in range(int(rate * seconds)):
            due_s = begin + k / rate
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            elif k % 8 == 0:
                await asyncio.sleep(0)
            self.send(max(due_s, begin), make(k))
        await self.drained()

    async def as_fast_as_answered(self, seconds: float, make: Callable[[int], Send]) -> float:
        """Keep every connection busy; return the answers a second."""
        begin, sent, stop = time.perf_counter(), 0, False

        def next_one(status: int, body: bytes) -> None:
            nonlocal sent
            if not stop:
                data, _ = make(sent)
                sent += 1
                asyncio.get_running_loop().call_soon(self.send, time.perf_counter(), (data, next_one))

        for _ in range(self._size):
            next_one(200, b"")
        await asyncio.sleep(seconds)
        stop = True
        count = len(self.took_s)
        await self.drained()
        return count / (time.perf_counter() - begin)

    async def drained(self, most_s: float = 10.0) -> None:
        until = time.perf_counter() + most_s
        while self.open and time.perf_counter() < until:
            await asyncio.sleep(0.005)

    def close(self) -> None:
        for connection in self._idle:
            assert connection.transport is not None
            connection.transport.abort()

    def milliseconds(self) -> dict[str, float]:
        took = np.array(self.took_s) * 1e3
        shares = {"p50_ms": 50, "p90_ms": 90, "p99_ms": 99, "p99.9_ms": 99.9, "max_ms": 100}
        return {name: round(float(np.percentile(took, q)), 3) for name, q in shares.items()} if len(took) else {}
