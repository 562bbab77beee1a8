"""Decisions on disk as native records, written by a thread of its own so that no request waits for the disk.

The records are made by the caller: a thread that made them would hold the interpreter against decisions, half a
millisecond at a time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.errors import ConfigError
from lodestar.pipeline.serve.outcome import Outcome
from lodestar.pipeline.serve.pending import Pending

__all__ = ["DecisionLog", "record_of"]

MOST_WAITING: Final = 20_000
_AT_ONCE: Final = 64
_LAST_S: Final = 5.0  # that a writer which hangs holds up the end
_LATENCIES: Final = (s.TTFT_MS, s.TPOT_MS, s.E2E_MS)
_LOG: Final = logging.getLogger(__name__)


def record_of(pending: Pending, outcome: Outcome | None) -> dict[str, Any]:
    """Return the native record of a decision; without an outcome, the record says nothing of it."""
    chosen = outcome.chosen if outcome is not None and outcome.chosen is not None else _decided(pending)
    ours = chosen is not None and chosen == _decided(pending)
    request: dict[str, Any] = {
        s.REQUEST_ID: pending.request_id,
        s.ARRIVED_AT_S: pending.decided_at_s,
        s.PROMPT_TOKENS: pending.prompt_tokens,
    }
    if pending.session_id is not None:
        request[s.SESSION_ID] = pending.session_id
    if outcome is not None and outcome.output_tokens >= 0:
        request[s.OUTPUT_TOKENS] = outcome.output_tokens
    record: dict[str, Any] = {
        "request": request,
        s.POLICY: pending.policy if ours else None,
        s.MODEL_VERSION: pending.version,
        "candidates": _candidates(pending, ours),
        "chosen": chosen,
    }
    if outcome is not None:
        told = {name: getattr(outcome, name) for name in _LATENCIES}
        record["outcome"] = {name: ms for name, ms in told.items() if not math.isnan(ms)} | {s.STATUS: outcome.status}
    return record


def _decided(pending: Pending) -> str | None:
    return None if pending.chosen is None else pending.names[pending.chosen]


def _candidates(pending: Pending, ours: bool) -> list[dict[str, Any]]:
    """List the candidates; a probability is only of a choice that was ours and was followed."""
    rows = pending.told.tolist()
    score = None if pending.score is None else pending.score.tolist()
    probability = pending.probability.tolist() if ours and pending.probability is not None else None
    listed = []
    for i, name in enumerate(pending.names):
        row: dict[str, Any] = {s.INSTANCE: name}
        if pending.kinds[i]:
            row[s.GPU] = pending.kinds[i]
        row |= {field: value for field, value in zip(s.SNAPSHOT_FIELDS, rows[i], strict=True) if value == value}
        if score is not None and math.isfinite(score[i]):
            row[s.SCORE] = score[i]
        if probability is not None:
            row[s.PROBABILITY] = probability[i]
        listed.append(row)
    return listed


class DecisionLog:
    """Appends records to a file; when that has grown to `most_bytes`, it is set aside as ``NAME-0001.jsonl`` and so on.

    Args:
        path: ends in ``.jsonl``; what is there already is kept.
        most_bytes: of one file.
        written: told how many records were written.
        dropped: told why one was not.
    """

    def __init__(
        self, path: Path, most_bytes: float, written: Callable[[int], None], dropped: Callable[[str], None]
    ) -> None:
        if path.suffix != ".jsonl":
            raise ConfigError(f"--decision-log {path}: expected a name that ends in .jsonl. Rename it")
        self._path, self._most_bytes = path, most_bytes
        self._written, self._dropped = written, dropped
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise ConfigError(f"--decision-log {path}: {error.strerror}; expected a place to write to") from error
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="decision log", daemon=True)
        self._thread.start()

    def put(self, pending: Pending, outcome: Outcome | None) -> None:
        """Hand over a decision; never waits: where too many wait already, this one is dropped and counted."""
        if pending.prompt_tokens < 1:
            self._dropped("prompt tokens not known")
            return
        try:
            self._waiting.put_nowait(json.dumps(record_of(pending, outcome), separators=(",", ":")).encode())
        except queue.Full:
            self._dropped("writer behind")

    def close(self) -> None:
        """Write what waits, and close the file."""
        with contextlib.suppress(queue.Full):  # of a writer that hangs
            self._waiting.put(None, timeout=_LAST_S)
        self._thread.join(_LAST_S)
        self._file.close()

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < _AT_ONCE and batch[-1] is not None:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            self._write([each for each in batch if each is not None])
            if batch[-1] is None:
                return

    def _write(self, batch: list[bytes]) -> None:
        try:
            if batch:
                self._append(b"\n".join(batch) + b"\n")
                self._written(len(batch))
        except OSError as error:
            _LOG.error("the decision log %s cannot be written: %s", self._path, error)
            self._broken = True
            for _ in batch:
                self._dropped("cannot be written")
            return
        try:
            if self._file.tell() >= self._most_bytes:
                self._set_aside()
        except OSError as error:
            _LOG.error("the decision log %s grows on, it cannot be set aside: %s", self._path, error)

    def _append(self, content: bytes) -> None:
        """Write all of it; where a write before broke off in the middle of a line, on a new one."""
        left = memoryview(b"\n" + content if self._broken else content)
        while left:
            left = left[self._file.write(left) :]
        self._broken = False

    def _set_aside(self) -> None:
        """Rename the file and begin a new one; until there is one, the old one is written on."""
        numbers = (self._path.with_name(f"{self._path.stem}-{n:04d}.jsonl") for n in range(1, 1_000_000))
        self._path.rename(next(free for free in numbers if not free.exists()))
        grown, self._file = self._file, self._path.open("ab", buffering=0)
        grown.close()
