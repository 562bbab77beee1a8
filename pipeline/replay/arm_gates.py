"""Leave one arm out: the engine fitted to one log foretells what another router's choices made of the same traffic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.arms import same_choices
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.fidelity import mean_error, quantile_error
from lodestar.pipeline.replay.gates import RUNS, Comparison
from lodestar.pipeline.replay.measured_arm import measured_arm
from lodestar.pipeline.replay.parallel import Mapper
from lodestar.pipeline.replay.prefixes import prefix_tree
from lodestar.pipeline.replay.window import window_of

__all__ = ["arm_comparisons"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Each takes a reconstruction and `RUNS` replays; more arms of one stream say little more.
MOST_ARMS: Final = 4


def arm_comparisons(
    log: RequestLog, cluster: Cluster, arms: Sequence[RequestLog], grouped_by: Sequence[RequestLog], mapper: Mapper
) -> tuple[list[Comparison], list[str]]:
    """Replay each arm's own choices and compare TTFT with what it measured; return what gates are to judge, and notes.

    The engines stay as `log` fitted them, and prefix groups are inferred without the arm. The warm-up is left out.
    """
    found: list[Comparison] = []
    notes = []
    for other in arms[:MOST_ARMS]:
        arm = measured_arm(log, other, len(cluster.engines))
        if arm.choices is None:
            notes.append(
                f"{arm.dataset} is not replayed: it has {len(other.instances)} instances, not {len(cluster.engines)}"
            )
            continue
        if not arm.by_name:
            notes.append(f"{arm.dataset} names its instances differently: taken as the same ones, in their order")
        without = _without(other, log, cluster, grouped_by)
        counted = np.arange(len(log)) >= window_of(without.workload).first
        rows = np.flatnonzero(counted & ~np.isnan(arm.ttft_ms))
        quiet = without.with_engines([replace(engine, noise_ratio=0.0) for engine in without.engines])
        replayed = quiet.replay(forced=arm.choices).ttft_ms[rows]
        found += _compared(arm.dataset, replayed, _replayed(arm.choices, rows, without, mapper), arm.ttft_ms[rows])
        if unanswered := int(np.isnan(replayed).sum()):
            notes.append(f"{unanswered} requests that {arm.dataset} measured have no TTFT in its replay")
    if left := [other.dataset for other in arms[MOST_ARMS:]]:
        notes.append(f"not replayed, to save time: {', '.join(left)}")
    return found, notes


def _replayed(choices: Ints, rows: Ints, cluster: Cluster, mapper: Mapper) -> Floats:
    """Return TTFT of these rows in `RUNS` replays of the choices, shape (RUNS, rows)."""
    return np.stack(list(mapper.map(lambda seed: cluster.replay(forced=choices, seed=seed).ttft_ms[rows], range(RUNS))))


def _compared(dataset: str, replayed: Floats, runs: Floats, measured_ms: Floats) -> list[Comparison]:
    """Compare the replay of the engines as fitted with the arm, and with each run of the model in its place."""
    statistics: dict[str, Callable[[Floats, Floats], float]] = {
        "mean": mean_error,
        "p99": partial(quantile_error, level=0.99),
    }
    return [
        Comparison(
            f"arm_{dataset}_{name}_error",
            of(replayed, measured_ms),
            [of(replayed, run) for run in runs],
            kind=f"arm_{name}_error",
        )
        for name, of in statistics.items()
    ]


def _without(other: RequestLog, log: RequestLog, cluster: Cluster, grouped_by: Sequence[RequestLog]) -> Cluster:
    """Return the cluster before the traffic as it is reconstructed without this arm, under whatever name."""
    left = [arm for arm in grouped_by if not same_choices(arm, other)]
    if len(left) == len(grouped_by):
        return cluster
    workload = workload_of(log, arms=left)
    return replace(cluster, workload=workload, tree=prefix_tree(workload))
