"""Wall and processor time of calls and of whole processes."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Cost", "cost_of", "middle", "process"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took: seconds by the wall clock, and of processor time (user and system)."""

    wall_s: float
    cpu_s: float


def cost_of(run: Callable[[], object], repeats: int = 1) -> Cost:
    """Run something in this process; of several repeats, return the mean."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        run()
    return Cost((time.perf_counter() - wall) / repeats, (time.process_time() - cpu) / repeats)


def process(words: Iterable[str], environment: Mapping[str, str] | None = None) -> tuple[Cost, str]:
    """Run a command to its end; return what all of it took, start-up included, and what it printed."""
    started = time.perf_counter()
    variables = {**os.environ, **(environment or {})}
    with subprocess.Popen([*words], stdout=subprocess.PIPE, text=True, env=variables) as child:
        assert child.stdout is not None
        printed = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, child.args, printed)
    return Cost(time.perf_counter() - started, used.ru_utime + used.ru_stime), printed


def middle(costs: Iterable[Cost]) -> Cost:
    """Return the medians."""
    listed = list(costs)
    return Cost(statistics.median(c.wall_s for c in listed), statistics.median(c.cpu_s for c in listed))
