"""The real KV router of NVIDIA Dynamo, in a process of its own, asked one thing after the other."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from peers.environment import peer_python

__all__ = ["DynamoRouter", "Selected", "dynamo_router"]

PROCESS = Path(__file__).with_name("dynamo_process.py")
SELECTED = "Selected worker"


class Selected(NamedTuple):
    """A decision of the router.

    Attributes:
        worker: the chosen one.
        overlap_blocks: that the router believed cached on each worker.
        loads: prefill tokens, blocks and requests of each worker, as the router counted them before it decided.
        prefill_tokens: that it charged the chosen one.
    """

    worker: int
    overlap_blocks: dict[int, int]
    loads: dict[int, list[int]]
    prefill_tokens: int


class DynamoRouter:
    """A door to the process; what it logged is read when it has ended."""

    def __init__(self, process: subprocess.Popen[str], log: IO[bytes]) -> None:
        self._process, self._log = process, log

    def join(self, worker: int) -> None:
        self._ask("join", worker)

    def leave(self, worker: int) -> None:
        self._ask("leave", worker)

    def select(self, request_id: str, tokens: list[int]) -> Selected:
        told = self._ask("select", request_id, tokens)
        overlap, loads = (
            {int(key): value for key, value in told[name].items()} for name in ("overlap_blocks", "loads")
        )
        return Selected(told["worker"], overlap, loads, told["prefill_tokens"])

    def prefill_complete(self, request_id: str) -> bool:
        return bool(self._ask("prefill_complete", request_id))

    def free(self, request_id: str) -> bool:
        return bool(self._ask("free", request_id))

    def events(self, worker: int, events: list[list[Any]]) -> None:
        self._ask("events", worker, events)

    def costs(self) -> dict[str, tuple[int, float]]:
        """Stop the router and return the worker and its cost for every request, from the router's own log."""
        self._process.communicate(timeout=20.0)
        self._log.seek(0)
        lines = [json.loads(line) for line in self._log if line.startswith(b"{")]
        chosen = [line for line in lines if line.get("message") == SELECTED]
        return {line["request_id"]: (line["worker_id"], line["logit"]) for line in chosen}

    def _ask(self, *operation: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(operation) + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            self._log.seek(0)
            raise RuntimeError(f"the router ended at {operation[0]}: {self._log.read()[-2000:].decode()}")
        return json.loads(answer)


@contextmanager
def dynamo_router(block_tokens: int, settings: dict[str, float]) -> Iterator[DynamoRouter]:
    """Start a router.

    Args:
        block_tokens: of its workers' blocks.
        settings: by the end of their environment variables, ``DYN_ROUTER_<name>``.
    """
    python = peer_python("peer-dynamo")
    own = {name: value for name, value in os.environ.items() if not name.startswith("DYN_")}
    told = {f"DYN_ROUTER_{name}": str(value) for name, value in settings.items()}
    # Only at this level does it tell the cost of the worker that it chose.
    log = {"DYN_LOGGING_JSONL": "1", "DYN_LOG": "error,dynamo_kv_router::scheduling::selector=info"}
    with tempfile.TemporaryFile() as written:
        process = subprocess.Popen(
            [str(python), str(PROCESS), str(block_tokens)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
            env={**own, **told, **log},
        )
        try:
            yield DynamoRouter(process, written)
        finally:
            process.kill()
            process.wait()
