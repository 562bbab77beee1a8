"""What waiting for a command costs, beside a bare interpreter: ``python tests/bench/command_costs.py``.

Prints the processor time (user + system) of whole processes: the median of several runs, and the ratio to
``python -c pass`` measured in the same run. Then the time of the bootstrap behind every interval, beside one replay.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.estimation.intervals.block_bootstrap import block_bootstrap_mean
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy

RUNS = 15


def cpu_ms(command: list[str]) -> float:
    """Return the median processor time of a command in milliseconds."""
    took = []
    for _ in range(RUNS):
        before = os.times()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        took.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(took) * 1e3


def elapsed_ms(run: Callable[[], object]) -> float:
    """Return the median time of a call in milliseconds, after one to warm up."""
    run()
    took = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3


def main() -> None:
    """Print one line a measurement."""
    bare = cpu_ms([sys.executable, "-c", "pass"])
    print(f"python -c pass      {bare:6.0f} ms CPU")
    for words in (["--help"], ["replay", "--help"], ["policies"]):
        cost = cpu_ms([sys.executable, "-m", "lodestar", *words])
        print(f"{'lodestar ' + ' '.join(words):20s}{cost:6.0f} ms CPU  {cost / bare:5.1f} x bare interpreter")
    cluster = Cluster.of([EngineModel()] * 8, sharing_workload(12_000, 40.0, 0.5, 0))
    policy = make_policy("least-request")
    one = elapsed_ms(lambda: cluster.replay(policy))
    values = np.random.default_rng(0).lognormal(size=(10, 12_000))
    interval = elapsed_ms(lambda: block_bootstrap_mean(values, block=480))
    print(f"one replay of 12,000 requests {one:6.0f} ms")
    print(f"an interval of ten replays    {interval:6.0f} ms  {interval / one:5.1f} x one replay")


if __name__ == "__main__":
    main()
