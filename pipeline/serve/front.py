"""What every request passes first: the token, the bounds, the clock; and the routes that have no time to lose."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lodestar.pipeline.serve.lodestar_routes import flush, infer, is_lodestar, not_asked
from lodestar.pipeline.serve.refused import Refused
from lodestar.pipeline.serve.serving import Serving

__all__ = ["DEADLINE", "OPEN_ROUTES", "QUEUE_FULL", "TURN", "Front"]

#: Asked by whoever starts and watches the process, who may have no token.
OPEN_ROUTES: Final = ("/healthz", "/readyz")
#: Why a decision was not made.
QUEUE_FULL: Final = "queue full"
DEADLINE: Final = "deadline"
#: Where in the scope a route of the inner app finds why it should answer with the fallback at once, or None.
TURN: Final = "lodestar.turn"

_DECIDES: Final = ("/infer", "/v1/decide", "/predict", "/predict/bulk", "/predict/bulk/strict")
#: Of the inner app, these answer themselves where it is too late; of the others, a caller gets a 503.
_ANSWERS_ITSELF: Final = ("/infer", "/v1/decide")
_BODY_S: Final = 10.0
_JSON: Final = b"application/json"
_LOG: Final = logging.getLogger(__name__)

Said = tuple[int, bytes]


class Front:
    """An ASGI app around the one that has all routes.

    It reads the whole body, bounded, before any route runs; so a decision never waits for a slow sender. Decisions that
    came in together wait for each other in the order in which they came: beyond `max_queue`, and after `deadline_ms`,
    they are answered without being made.
    """

    def __init__(self, serving: Serving, app: ASGIApp, known: frozenset[str]) -> None:
        self._serving, self._app, self._known = serving, app, known
        self._options = serving.options
        self._secret = None if serving.options.token is None else f"Bearer {serving.options.token}".encode()
        self._deadline_s = serving.options.deadline_ms / 1e3
        self._waiting = 0
        self._seconds = {route: serving.metrics.request_seconds.labels(route) for route in (*known, "other")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        path = scope["path"]
        route = path if path in self._known else "other"
        watched = _Watched(send)
        try:
            await self._answer(scope, receive, watched, started_s)
        except Refused as error:
            await _say(watched, error.status, json.dumps(error.to_dict()).encode())
        except _Gone:
            return
        except Exception:
            _LOG.exception("a bug: %s %s failed", scope["method"], path)
            self._serving.metrics.failures.labels(route).inc()
            if not watched.status:
                await _say(watched, 500, b'{"detail":"internal error"}')
        if 400 <= watched.status < 500:
            self._serving.metrics.refused.labels(route, str(watched.status)).inc()
        self._seconds[route].observe(time.perf_counter() - started_s)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, started_s: float) -> None:
        path = scope["path"]
        if self._secret is not None and path not in OPEN_ROUTES and not self._allowed(scope):
            raise Refused("Authorization", "is missing or wrong; expected: Bearer TOKEN", 401)
        body = await _body(scope, receive, self._options.max_body_bytes)
        turn = await self._turn(started_s) if path in _DECIDES else None
        said = await self._at_once(scope, body, turn)
        if said is not None:
            await _say(send, *said)
        elif turn is not None and path not in _ANSWERS_ITSELF:
            self._serving.metrics.decided(path, turn)
            await _say(send, 503, json.dumps({"detail": turn}).encode(), ((b"retry-after", b"1"),))
        else:
            scope[TURN] = turn
            await self._app(scope, _again(body, receive), send)

    async def _turn(self, started_s: float) -> str | None:
        """Wait for the decisions that came before; return why this one should not be made, or None."""
        if self._waiting >= self._options.max_queue:
            return QUEUE_FULL
        self._waiting += 1
        self._serving.metrics.queue.set(self._waiting)
        try:
            await asyncio.sleep(0)
        finally:
            self._waiting -= 1
        return DEADLINE if time.perf_counter() - started_s > self._deadline_s else None

    async def _at_once(self, scope: Scope, body: bytes, turn: str | None) -> Said | None:
        """Answer the routes of Lodestar's gateway; None: it is another route."""
        if scope["method"] != "POST":
            return None
        if scope["path"] == "/infer":
            if turn is not None:
                return 200, not_asked(self._serving, turn)
            query = scope["query_string"]
            return 200, infer(self._serving, body, dict(parse_qsl(query.decode("latin-1"))) if query else {})
        if scope["path"] == "/flush" and is_lodestar(body):
            return 200, await flush(self._serving, body)
        return None

    def _allowed(self, scope: Scope) -> bool:
        told = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(told) == 1 and self._secret is not None and hmac.compare_digest(told[0], self._secret)


class _Gone(Exception):
    """The caller has hung up."""


class _Watched:
    """Notes the status of the answer as it is sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


async def _body(scope: Scope, receive: Receive, most: int) -> bytes:
    """Read the whole body.

    Raises:
        Refused: it is too large, or its sender too slow.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > most:
            raise _too_large(most)
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(_BODY_S):
            while more and size <= most:
                message = await receive()
                parts.append(_part(message))
                size, more = size + len(parts[-1]), bool(message.get("more_body"))
    except TimeoutError:
        raise Refused("body", f"did not come within {_BODY_S:g} s", 408) from None
    if size > most:
        raise _too_large(most)
    return b"".join(parts)


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise _Gone
    part: bytes = message.get("body", b"")
    return part


def _too_large(most: int) -> Refused:
    return Refused("body", f"has more than {most} bytes; send less, or raise --max-body-mib", 413)


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that has been read to an app that wants to read it."""
    told = False

    async def give() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


async def _say(
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    status: int,
    body: bytes,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    told = [(b"content-type", _JSON), (b"content-length", str(len(body)).encode()), *headers]
    if status == 401:
        told.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})
