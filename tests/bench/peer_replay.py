"""The fastest peer that simulates every iteration: the offline replay of ``ai-dynamo-runtime``.

Imported, it installs the peer into an environment of its own and starts replays there, each in a process of its own.
Run as a script by that environment, it makes one such replay and prints what it took; it needs nothing else there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clock import Cost, process

__all__ = ["MODES", "PACKAGE", "Peer", "PeerRun", "default_home"]

PACKAGE = "ai-dynamo-runtime==1.6.1"
MODES = ("round_robin", "kv_router")


def default_home() -> Path:
    """Name the folder of the environment."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "lodestar-bench" / PACKAGE.replace("==", "-")


@dataclass(frozen=True, slots=True)
class PeerRun:
    """One replay by the peer: the whole process, and what it says of itself."""

    process: Cost
    loop: Cost
    ttft_ms: float
    tpot_ms: float
    e2e_ms: float


@dataclass(frozen=True, slots=True)
class Peer:
    """The peer's interpreter."""

    python: Path

    @classmethod
    def at(cls, home: Path) -> Peer | str:
        """Find the peer in its environment, or install it there; where that fails, say why in one line."""
        peer = cls(home / "bin" / "python")
        if peer._works():
            return peer
        print(f"installing {PACKAGE} into an environment of its own (once)", file=sys.stderr, flush=True)
        try:
            venv.create(home, with_pip=True, clear=True)
            pip = [peer.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", PACKAGE]
            subprocess.run(pip, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            return f"{PACKAGE} cannot be installed ({said[-1]})"
        return peer if peer._works() else f"{PACKAGE} is installed and cannot be imported"

    def _works(self) -> bool:
        words = [self.python, "-c", "import dynamo._core"]
        return self.python.exists() and subprocess.run(words, capture_output=True).returncode == 0

    def replay(self, trace: Path, mode: str, workers: int, block_tokens: int, engine: dict[str, object]) -> PeerRun:
        """Replay a trace in a process of its own."""
        settings = json.dumps({"mode": mode, "workers": workers, "block_tokens": block_tokens, "engine": engine})
        cost, printed = process([str(self.python), __file__, str(trace), settings], {"DYN_LOG": "off"})
        said = json.loads(printed.splitlines()[-1])
        loop_s = said["wall_time_ms"] / 1e3
        # It tells the wall time of its loop alone; the core was its own for the same share of the whole call.
        loop = Cost(loop_s, loop_s * said["call_cpu_s"] / said["call_wall_s"])
        return PeerRun(cost, loop, *(said[f"mean_{name}_ms"] for name in ("ttft", "tpot", "e2e_latency")))


def main(arguments: Sequence[str]) -> None:
    """Replay and print the peer's own summary."""
    from dynamo import _core  # type: ignore[import-not-found]

    trace, settings = arguments[0], json.loads(arguments[1])
    wall, cpu = time.perf_counter(), time.process_time()
    result = _core.run_mocker_trace_replay(
        [trace],
        extra_engine_args={"engine": {"backend": "vllm", **settings["engine"]}},
        num_workers=settings["workers"],
        router_mode=settings["mode"],
        trace_block_size=settings["block_tokens"],
        capture_planner_details=False,
    )
    summary = result.summary
    assert summary["completed_requests"] == summary["num_requests"], summary
    took = {"call_wall_s": time.perf_counter() - wall, "call_cpu_s": time.process_time() - cpu}
    print(json.dumps({**summary, **took}))


if __name__ == "__main__":
    main(sys.argv[1:])
