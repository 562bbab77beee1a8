"""What a reader must know of a policy's mean before using it: numbers, and sentences to print beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import Workload
from lodestar.pipeline.replay.cluster import Outcome
from lodestar.pipeline.replay.endings import left_at_s
from lodestar.pipeline.replay.stability import queue_growth, spread_over_seeds
from lodestar.pipeline.replay.window import Window
from lodestar.reports.numbers import number, percent

__all__ = ["flags_of", "stability_of"]

Floats = NDArray[np.float64]

_PATH_DEPENDENT_RATIO: Final = 0.1  # twenty replays of a steady policy spread by one or two in a hundred
_SEEDS_RATIO: Final = 0.1  # of the seeds; growth in fewer can be chance


def stability_of(runs: list[Outcome], workload: Workload, window: Window) -> dict[str, Any]:
    """Return how a policy's queue grows and how far its seeds lie apart.

    `spread_over_seeds` is the standard deviation of the seeds' mean TTFT over their mean.
    """
    growth = _growth(runs, workload, window)
    spread = spread_over_seeds(_seed_means(runs, "ttft_ms", window))
    return {
        "queue_growth": growth,
        "unstable": growth is not None and growth["growing_seeds"] >= max(1, _SEEDS_RATIO * len(runs)),
        "spread_over_seeds": spread,
        "path_dependent": spread is not None and spread > _PATH_DEPENDENT_RATIO,
        "over_seeds": {name: _range(_seed_means(runs, name, window)) for name in ("ttft_ms", "tpot_ms", "e2e_ms")},
    }


def flags_of(row: Mapping[str, Any], seeds: int) -> list[str]:
    """Return the sentences for one row of a summary; none for a policy that has nothing to hide.

    >>> growth = {"requests_per_min": 12.34, "over_seeds": [11.0, 13.9], "growing_seeds": 20}
    >>> row = {"unstable": True, "queue_growth": growth, "path_dependent": False, "cancelled_ratio": 0, "lost_ratio": 0}
    >>> flags_of(row, seeds=20)[0]
    'unstable: the queue grows by 12.3 requests per minute (11.0 to 13.9 over the seeds); a longer log, a larger mean'
    """
    return [*_unstable(row, seeds), *_path_dependent(row, seeds), *_not_served(row)]


def _unstable(row: Mapping[str, Any], seeds: int) -> list[str]:
    if not row["unstable"]:
        return []
    growth = row["queue_growth"]
    low, high = (number(bound, 1) for bound in growth["over_seeds"])
    where = "" if growth["growing_seeds"] > seeds / 2 else f" in {growth['growing_seeds']} of {seeds} seeds"
    return [
        f"unstable{where}: the queue grows by {number(growth['requests_per_min'], 1)} requests per minute "
        f"({low} to {high} over the seeds); a longer log, a larger mean"
    ]


def _path_dependent(row: Mapping[str, Any], seeds: int) -> list[str]:
    if not row["path_dependent"]:
        return []
    means = row["over_seeds"]["ttft_ms"]
    least, middle, most = (number(means[name]) for name in ("min", "median", "max"))
    return [
        f"depends on its path: mean TTFT is {least} to {most} ms over {seeds} seeds, median {middle}, "
        f"a spread of {percent(row['spread_over_seeds'], 0)} %"
    ]


def _not_served(row: Mapping[str, Any]) -> list[str]:
    parts = [
        f"{percent(row[f'{how}_ratio'], 2)} % of its requests were {how}"
        for how in ("cancelled", "lost")
        if row[f"{how}_ratio"] > 0
    ]
    return [f"{' and '.join(parts)}; its latencies are of the others"] if parts else []


def _growth(runs: list[Outcome], workload: Workload, window: Window) -> dict[str, Any] | None:
    found = [queue_growth(workload.arrived_at_s, left_at_s(run, workload), window.from_s) for run in runs]
    judged = [growth for growth in found if growth is not None]
    if not judged:
        return None
    per_min = np.array([growth.per_min for growth in judged])
    return {
        "requests_per_min": float(per_min.mean()),
        "over_seeds": [float(bound) for bound in np.quantile(per_min, [0.025, 0.975])],
        "growing_seeds": sum(growth.grows for growth in judged),
    }


def _seed_means(runs: list[Outcome], name: str, window: Window) -> Floats:
    """Return the mean of each seed that has a value."""
    values = [getattr(run, name)[window.rows] for run in runs]
    return np.array([each[~np.isnan(each)].mean() for each in values if not np.isnan(each).all()])


def _range(means: Floats) -> dict[str, float] | None:
    if not len(means):
        return None
    return {"min": float(means.min()), "median": float(np.median(means)), "max": float(means.max())}
