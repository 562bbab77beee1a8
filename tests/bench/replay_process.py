"""One replay as a whole process, for the benchmarks: import, load or generate, simulate, report.

Takes a JSON object: ``source`` (a trace file, or a dataset of the workspace ``home``) or ``generate`` (requests,
requests a second), ``home``, ``engine``, ``instances`` and ``policy``. Prints a report and what each part took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from lodestar.data.log import Workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.summary import summary

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from process_memory import peak_mib


def workload_of(settings: dict[str, Any]) -> Workload:
    """Load or generate the requests."""
    if "generate" in settings:
        from replay_workloads import poisson

        return poisson(*settings["generate"])
    from lodestar.data.workloads.load import load_workload

    return load_workload(Workspace.open(Path(settings["home"])), settings["source"])


def main() -> None:
    """Replay and report."""
    settings = json.loads(sys.argv[1])
    started = time.perf_counter()
    workload = workload_of(settings)
    cluster = Cluster.of([EngineModel(**settings["engine"])] * settings["instances"], workload)
    loaded = time.perf_counter()
    outcome = cluster.replay(make_policy(settings["policy"]))
    replayed = time.perf_counter()
    row = summary({settings["policy"]: [outcome]}, workload, settings["policy"])["policies"][0]
    took = {
        "load_s": loaded - started,
        "loop_s": replayed - loaded,
        "report_s": time.perf_counter() - replayed,
    }
    print(json.dumps({"row": row, "requests": len(workload), **took, "peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
