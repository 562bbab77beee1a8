"""The cells of the leaderboard: seven workloads, two fleets, three loads."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog, Workload
from lodestar.data.reconstruction.arms import arms_of
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workloads.presets import preset_text
from lodestar.data.workloads.recipe import recipe_of, with_settings
from lodestar.data.workloads.simulate import simulate
from lodestar.data.workloads.transforms import scale_rate
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.calibrate import calibrate
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.saturation import full_view as view
from lodestar.pipeline.replay.saturation import saturation_per_s

LOADS: Final = (0.5, 0.75, 0.9)
#: Peak fp16 of an A30 (165 TFLOPS) over that of a V100 SXM2 (125 TFLOPS), as NVIDIA's data sheets give them.
SLOWER: Final = 1.32
#: Twice what the presets have, so that a half has as many requests as theirs.
SYNTHETIC_REQUESTS: Final = 4000

Fleet = tuple[list[EngineModel], ...]


class Cell(NamedTuple):
    """One cluster before one workload at one rate.

    Attributes:
        load: share of the saturation throughput, 0 to 1.
        rate_per_s: requests a second, on average, that this is.
        cluster: with the whole workload.
    """

    workload: str
    fleet: str
    load: float
    rate_per_s: float
    cluster: Cluster


def fleets(engine: EngineModel) -> dict[str, Fleet]:
    """Return the fleets by name, each as groups of equal engines."""
    slow = replace(engine.slowed(SLOWER), prefix_caching=False, chunked_prefill=False)
    return {"homogeneous": ([engine] * 8,), "heterogeneous": ([engine] * 7, [slow] * 8)}


def recorded(traces: Path) -> tuple[dict[str, Workload], EngineModel]:
    """Return the recorded workloads, and the engine that the `random` log of sharing09 tells."""
    files = {f"{sharing}-{arm}": f"lodestar/{sharing}/{arm}.csv.gz"
             for sharing in ("sharing09", "sharing47") for arm in ("random", "prefix", "rl")}  # fmt: skip
    files["conversation"] = "mooncake/conversation_trace.jsonl.gz"
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        for dataset, file in files.items():
            ingest(workspace, [traces / file], dataset)
        logs = {name: _log(workspace, f"{name}-random") for name in ("sharing09", "sharing47")}
        logs["conversation"] = _log(workspace, "conversation")
    workloads = {name: workload_of(log, 0, arms) for name, (log, arms) in logs.items()}
    return workloads, calibrate(logs["sharing09"][0], workloads["sharing09"]).engine


def synthetic() -> dict[str, Workload]:
    """Return the paper's four sharing workloads, as `lodestar simulate` makes them."""
    size = [f"requests={SYNTHETIC_REQUESTS}"]
    tables = {sharing: with_settings(_toml(f"sharing{sharing}"), size) for sharing in ("09", "28", "47", "71")}
    return {f"synthetic-{sharing}": simulate(recipe_of(table), 0) for sharing, table in tables.items()}


def cells(
    workloads: Mapping[str, Workload], fleets: Mapping[str, Fleet], loads: Sequence[float] = LOADS
) -> Iterator[Cell]:
    """Make the cells, one workload after the other; arrivals keep their pattern and take another rate."""
    for workload_name, workload in workloads.items():
        own_per_s = len(workload) / float(workload.arrived_at_s[-1])
        for fleet_name, fleet in fleets.items():
            engines = [engine for group in fleet for engine in group]
            most_per_s = saturation_per_s(fleet, workload)
            for load in loads:
                rate_per_s = load * most_per_s
                at_rate = scale_rate(workload, rate_per_s / own_per_s)
                yield Cell(workload_name, fleet_name, load, rate_per_s, Cluster.of(engines, at_rate, view(engines)))


def _log(workspace: Workspace, dataset: str) -> tuple[RequestLog, list[RequestLog]]:
    with open_store(workspace) as con:
        log = load_log(con, dataset)
        return log, arms_of(con, log, [])


def _toml(preset: str) -> dict[str, object]:
    return tomllib.loads(preset_text(preset))
