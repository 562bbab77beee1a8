"""Another arm of the traffic, row by row: what it chose, believed and measured for each request of a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.arms import paired_rows
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.pipeline.replay.calibration.forced import known_choices
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.prefixes import prefix_tree

__all__ = ["MeasuredArm", "measured_arm", "regrouped", "with_its_hits"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class MeasuredArm(NamedTuple):
    """One row a request of the log that it is set beside; NaN where the arm has none or does not say.

    Attributes:
        dataset: its name.
        ttft_ms: measured.
        hit_ratio: that its router believed of the instance it chose.
        choices: where to send each request in its place; None where its instances are not as many.
        by_name: whether its instances were matched by name, not by their order.
    """

    dataset: str
    ttft_ms: Floats
    hit_ratio: Floats
    choices: Ints | None
    by_name: bool


def measured_arm(log: RequestLog, other: RequestLog, instances: int) -> MeasuredArm:
    """Lay out another arm in the rows of `log`, for a cluster of so many instances.

    Requests are the same by id and prompt tokens. A request that the arm lacks, or did not decide, goes where `log`
    sent it.
    """
    row, there = paired_rows(log, other)
    ttft_ms, hit_ratio = np.full(len(log), np.nan), np.full(len(log), np.nan)
    # A TTFT of 0 ms is one that was not taken.
    ttft_ms[row] = np.where(other.ttft_ms[there] > 0, other.ttft_ms[there], np.nan)
    decided = other.chosen[there] >= 0
    row, there = row[decided], there[decided]
    hit_ratio[row] = other.snapshot[s.HIT_RATIO][there, other.chosen[there]]
    by_name = set(other.instances) == set(log.instances)
    if {max(1, len(log.instances)), max(1, len(other.instances))} != {instances}:  # a log may leave its one unnamed
        return MeasuredArm(other.dataset, ttft_ms, hit_ratio, None, by_name)
    places = [log.instances.index(name) if by_name else j for j, name in enumerate(other.instances)]
    column = np.array(places, dtype=np.int64)
    choices = known_choices(log).copy()
    choices[row] = column[other.chosen[there]]
    return MeasuredArm(other.dataset, ttft_ms, hit_ratio, choices, by_name)


def regrouped(cluster: Cluster, log: RequestLog, grouped_by: Sequence[RequestLog]) -> Cluster:
    """Return the cluster before the traffic of `log` as it is reconstructed with these arms and no others."""
    workload = workload_of(log, arms=grouped_by)
    return replace(cluster, workload=workload, tree=prefix_tree(workload))


def with_its_hits(
    cluster: Cluster, log: RequestLog, other: RequestLog, grouped_by: Sequence[RequestLog]
) -> Cluster | None:
    """Return the cluster with the prefix groups that the hits of another arm tell too; None where they tell nothing.

    One log leaves many groups open that are alike in all it says. A policy that decides again meets as many prefixes
    either way, but choices that followed the true groups lose their hits on others: how far off they then are says
    nothing of the engines. What an arm's router believed follows from its choices alone, and tells no latency.
    """
    inferred = any(found.column == "blocks" and found.quality is not None for found in cluster.workload.found)
    if not inferred or not (other.snapshot[s.HIT_RATIO] > 0).any():
        return None
    return regrouped(cluster, log, [*grouped_by, other])
