"""How fast the replay is, beside a plain Python loop that takes every step: ``python tests/bench/replay_speed.py``.

Prints simulated requests a second in the loop, on one core and once compiled: the median of several runs. The plain
loop is the oracle of the tests, which serves one instance and no shared prefixes; it is timed on the same requests.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from lodestar.data.log import Workload
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policies import HEURISTICS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import traces_folder
from oracles.step_by_step import serve

RUNS = 15


def per_s(requests: int, run: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median requests a second over `runs`, after one run to warm up."""
    run()
    took = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    return requests / statistics.median(took)


def without_prefixes(workload: Workload) -> Workload:
    """Return the requests as the plain loop can serve them."""
    return Workload(
        workload.arrived_at_s,
        workload.prompt_tokens,
        workload.output_tokens,
        np.zeros(0, dtype=np.int64),
        np.zeros(len(workload) + 1, dtype=np.int64),
        16,
    )


def sharing09() -> Cluster | None:
    """Return the real log's cluster, calibrated from it, or None where the log is absent."""
    from tempfile import TemporaryDirectory

    from lodestar.data.ingest import ingest
    from lodestar.data.reconstruction.reconstruct import workload_of
    from lodestar.data.store import load_log, open_store
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.replay.calibrate import calibrate

    path = traces_folder() / "lodestar" / "sharing09" / "random.csv.gz"
    if not path.exists():
        return None
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        ingest(workspace, [path], "s09")
        with open_store(workspace) as con:
            log = load_log(con, "s09")
    workload = workload_of(log)
    return Cluster.of([calibrate(log, workload).engine] * len(log.instances), workload)


def main() -> None:
    """Print one line a workload and policy."""
    made = sharing_workload(10_000, rate_per_s=40.0, sharing_ratio=0.5, seed=0, prompt_tokens=(1000, 2000, 4000))
    clusters = {"10,000 generated, 8 instances": Cluster.of([EngineModel()] * 8, made), "sharing09, 7": sharing09()}
    for title, cluster in clusters.items():
        if cluster is None:
            print(f"{title}: no real log here")
            continue
        alone = without_prefixes(cluster.workload)
        plain = per_s(len(alone), partial(serve, cluster.engines[0], alone), runs=1)
        print(f"{title}: plain Python loop, one instance {plain:,.0f} requests/s")
        for policy in HEURISTICS:
            speed = per_s(len(cluster.workload), partial(cluster.replay, policy()))
            print(f"{title}: {policy.name:20s} {speed:>10,.0f} requests/s  {speed / plain:6.0f} x plain loop")


if __name__ == "__main__":
    main()
