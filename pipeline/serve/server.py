"""The process: a socket, a loop, what goes on beside the requests, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Final

import uvicorn

from lodestar.data.errors import ConfigError
from lodestar.pipeline.serve.app import make_app
from lodestar.pipeline.serve.options import ServeOptions
from lodestar.pipeline.serve.refits import Refits
from lodestar.pipeline.serve.serving import Serving
from lodestar.pipeline.serve.watch import stamp, watch

__all__ = ["serve"]

Ready = Callable[[Serving, str], None]

_TIDY_S: Final = 1.0
#: How long a thread keeps the interpreter while another wants it: decisions must not wait 5 ms for one that reloads.
_SWITCH_S: Final = 0.0001
#: Objects made since the last look before Python looks for cycles; by default 700, which a few decisions fill.
_GARBAGE: Final = (20_000, 20, 50)
_KEEP_ALIVE_S: Final = 200  # longer than the gateways', which would otherwise ask on a connection just closed
_LOG: Final = logging.getLogger(__name__)


def serve(options: ServeOptions, ready: Ready) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        options: what to serve, and how.
        ready: told the state and the URL once requests are answered.

    Raises:
        ConfigError: the address cannot be had.
        ArtifactError: the artifact is damaged.
    """
    with _listening(options.host, options.port) as listener:
        serving = Serving(options)
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_run(serving, listener, ready))
        finally:
            serving.close()


async def _run(serving: Serving, listener: socket.socket, ready: Ready) -> None:
    server = _Server(
        uvicorn.Config(
            make_app(serving),
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=5,
            backlog=2048,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    beside = [asyncio.create_task(_said(each)) for each in _beside(serving, server, ready, _url(listener))]
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


def _beside(serving: Serving, server: _Server, ready: Ready, url: str):  # type: ignore[no-untyped-def]
    options = serving.options
    yield _tell(serving, server, ready, url)
    yield _tidy(serving)
    if options.learn:
        yield _refits(serving, Refits(serving, options.state))
    if options.watch_s > 0 and options.artifact is not None:
        yield watch(serving, Path(options.artifact), options.watch_s, stamp(Path(options.artifact)))


async def _said(task: Coroutine[None, None, None]) -> None:
    """Do something beside the requests; where it ends by a bug, the log says so."""
    try:
        await task
    except Exception:
        _LOG.exception("a bug: %s has ended", task)


async def _tell(serving: Serving, server: _Server, ready: Ready, url: str) -> None:
    while not server.started:
        await asyncio.sleep(0.005)
    ready(serving, url)


async def _tidy(serving: Serving) -> None:
    while True:
        await asyncio.sleep(_TIDY_S)
        await serving.tidy(time.time())


async def _refits(serving: Serving, refits: Refits) -> None:
    try:
        await refits.run()
    finally:
        refits.close()


class _Server(uvicorn.Server):
    """Ends on our signals alone, and returns, so that what is not written yet can be."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def stop(self) -> None:
        """Answer what has come in, and end; at once if told twice."""
        self.force_exit = self.should_exit
        self.should_exit = True


@contextlib.contextmanager
def _listening(host: str, port: int) -> Generator[socket.socket, None, None]:
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: {error.strerror or error}; expected a free address. Choose another port"
        ) from error
    try:
        yield listener
    finally:
        listener.close()


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return None
    return uvloop.new_event_loop
