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
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.fidelity import mean_error, quantile_error
from lodestar.pipeline.replay.gates import LIMITS, RUNS, Comparison
from lodestar.pipeline.replay.measured_arm import MeasuredArm, measured_arm, regrouped, with_its_hits
from lodestar.pipeline.replay.parallel import Mapper
from lodestar.pipeline.replay.window import window_of
from lodestar.reports.numbers import number

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
        others = [each for each in grouped_by if not same_choices(each, other)]
        without = cluster if len(others) == len(grouped_by) else regrouped(cluster, log, others)
        counted = np.arange(len(log)) >= window_of(without.workload).first
        rows = np.flatnonzero(counted & ~np.isnan(arm.ttft_ms))
        replayed = _quietly(arm.choices, rows, without)
        found += _compared(arm.dataset, replayed, _replayed(arm.choices, rows, without, mapper), arm.ttft_ms[rows])
        if (known := with_its_hits(without, log, other, others)) is not None:
            notes += _of_groups(arm, mean_error(replayed, arm.ttft_ms[rows]), _quietly(arm.choices, rows, known), rows)
        if unanswered := int(np.isnan(replayed).sum()):
            notes.append(f"{unanswered} requests that {arm.dataset} measured have no TTFT in its replay")
    if left := [other.dataset for other in arms[MOST_ARMS:]]:
        notes.append(f"not replayed, to save time: {', '.join(left)}")
    return found, notes


def _quietly(choices: Ints, rows: Ints, cluster: Cluster) -> Floats:
    """Return TTFT of these rows in a replay of the choices on engines without noise."""
    quiet = cluster.with_engines([replace(engine, noise_ratio=0.0) for engine in cluster.engines])
    return quiet.replay(forced=choices).ttft_ms[rows]


def _of_groups(arm: MeasuredArm, error: float, replayed: Floats, rows: Ints) -> list[str]:
    """Say so where the prefix groups that the arm's hits tell make another error than those without it, and which."""
    known = mean_error(replayed, arm.ttft_ms[rows])
    if not abs(known - error) > LIMITS["arm_mean_error"][0]:
        return []
    return [
        f"arm_{arm.dataset}_mean_error would be {number(known, 3)}, not {number(error, 3)}, with the prefix groups "
        f"that the hits of {arm.dataset} tell as well: the other logs leave those groups open, so that only the first "
        "is the engines' or luck"
    ]


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
