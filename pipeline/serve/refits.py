"""Handing finished requests to the process that learns, and putting the models that come of it in place."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lodestar.pipeline.serve.frames import FORGET, frame, rows_frame, serves_frame

if TYPE_CHECKING:
    from lodestar.pipeline.serve.serving import Serving

__all__ = ["Refits", "newest_refit"]

KEPT: Final = 3  # artifacts in the state directory
_ARTIFACT: Final = "artifact"
_LOOK_S: Final = 5.0
_ONE_THREAD: Final = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
_LOG: Final = logging.getLogger(__name__)


class _Ended(Exception):
    """The process that learns has ended."""


def newest_refit(state: Path) -> Path | None:
    """Return the artifact of the newest refit that an earlier server left in its state directory, if there is one."""
    found = {float(place.parent.name.removeprefix("refit-")): place for place in state.glob(f"refit-*/{_ARTIFACT}")}
    return found[max(found)] if found else None


class Refits:
    """Sends the new rows every few seconds; the process says when a refit was due, and what came of it.

    Where that process ends, the model that serves goes on; the failure is logged and counted, and another one begins
    with the newest rows.
    """

    def __init__(self, serving: Serving, state: Path | None) -> None:
        self._serving = serving
        self._look_s = min(_LOOK_S, serving.options.refit_s / 2)
        self._own = state is None
        self._state = Path(tempfile.mkdtemp(prefix="lodestar-serve-")) if state is None else state
        self._state.mkdir(parents=True, exist_ok=True)
        self._child: subprocess.Popen[bytes] | None = None
        self._told: tuple[str | None, tuple[str, ...]] | None = None

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(self._look_s)
            try:
                await self._look()
            except (_Ended, OSError, ValueError, KeyError) as error:
                self._failed(f"the process that learns has ended ({error}); another one begins")
                self._serving.learner.again()
                self._end()

    async def _look(self) -> None:
        learner = self._serving.learner
        if self._child is None:
            self._child = await asyncio.to_thread(_started, self._state)
            self._told = None
        told = self._serving.version, self._serving.kinds
        if self._told != told:
            self._told = told
            await self._ask(await asyncio.to_thread(serves_frame, self._serving.learning_job()))
        if learner.forgotten:
            learner.forgotten = False
            await self._ask(frame(FORGET))
        answer = await self._ask(rows_frame(*learner.take()))
        if "why" in answer:
            await self._refitted(answer)

    async def _ask(self, sent: bytes) -> dict[str, Any]:
        """Send a frame and wait for its answer, which takes long where it trains."""
        assert self._child is not None
        begun_s = time.monotonic()
        line = await asyncio.to_thread(_exchange, self._child, sent)
        if not line:
            raise _Ended(f"exit code {self._child.poll()}")
        answer: dict[str, Any] = json.loads(line)
        self._serving.learner.buffered = answer["rows"]
        if "why" in answer:
            self._serving.metrics.refit_seconds.observe(time.monotonic() - begun_s)
        return answer

    async def _refitted(self, answer: dict[str, Any]) -> None:
        metrics = self._serving.metrics
        metrics.refits.inc()
        if "kept" in answer:
            metrics.kept.inc()
            _LOG.info("refit (%s): what serves stays: %s", answer["why"], answer["kept"])
        elif "failed" in answer:
            self._failed(f"refit ({answer['why']}): {answer['failed']}")
        else:
            _LOG.info("refit (%s)", answer["why"])
            place = str(Path(answer["directory"]) / _ARTIFACT)
            if await asyncio.to_thread(self._serving.load, place, "refit") is not None:
                metrics.refit_failures.inc()
            self._forget_old()

    def _failed(self, why: str) -> None:
        _LOG.error("%s; the model that serves goes on", why)
        self._serving.metrics.refit_failures.inc()

    def _forget_old(self) -> None:
        for old in sorted(self._state.glob("refit-*"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._child = None

    def close(self) -> None:
        """End the process, and remove what was only for this one."""
        self._end()
        if self._own:
            shutil.rmtree(self._state, ignore_errors=True)


def _started(state: Path) -> subprocess.Popen[bytes]:
    """Start the process, of the lowest priority from its first moment on where the system has ``nice``.

    By `subprocess`, whose vfork copies no page tables: the event loop's fork would hold decisions up.
    """
    nice, priority = shutil.which("nice"), os.environ.get("LODESTAR_REFIT_NICE", "19")
    command = [sys.executable, "-m", "lodestar.pipeline.serve.learner_child", str(state)]
    return subprocess.Popen(
        [nice, "-n", priority, *command] if nice else command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **_ONE_THREAD},
    )


def _exchange(child: subprocess.Popen[bytes], sent: bytes) -> bytes:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(sent)
    child.stdin.flush()
    return child.stdout.readline()
