"""The two parts of a workload: one for the search, one for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from lodestar.data.errors import DataError
from lodestar.data.log import Workload
from lodestar.data.workloads.transforms import slice_rows
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.events import Event

__all__ = ["FEWEST_COUNTED", "Parts", "parts_of"]

#: Requests that must count in each part: of fewer, a P99 is the maximum and a mean is luck.
FEWEST_COUNTED: Final = 100


class Parts(NamedTuple):
    """One cluster before each part of a workload; both begin with idle engines and empty caches.

    Attributes:
        search: with the first requests.
        report: with the rest, whose clock begins at its first arrival.
        cut_s: that arrival, on the clock of the whole.
    """

    search: Cluster
    report: Cluster
    cut_s: float


def parts_of(cluster: Cluster, ratio: float, warmup_ratio: float) -> Parts:
    """Cut a cluster's workload in two, by order of arrival.

    Args:
        cluster: with the whole workload.
        ratio: share of the requests that the first part gets.
        warmup_ratio: share of the requests of each part that will not count.

    Raises:
        DataError: too few requests would count in one of them.
    """
    workload = cluster.workload
    cut = math.floor(len(workload) * ratio)
    counted = {
        "that is searched": cut - math.floor(cut * warmup_ratio),
        "for the report": len(workload) - cut - math.floor((len(workload) - cut) * warmup_ratio),
    }
    for what, requests in counted.items():
        if requests < FEWEST_COUNTED:
            raise DataError(
                f"--tune: the part {what} has {requests} requests that count, of {len(workload)} in all; expected "
                f"{FEWEST_COUNTED} or more. Replay more traffic, or set another --tune-ratio"
            )
    cut_s = float(workload.arrived_at_s[cut])
    search = _before(cluster, workload.head(cut), cluster.events)
    report = _before(cluster, slice_rows(workload, cut), _events_from(cluster.events, cut_s))
    return Parts(search, report, cut_s)


def _before(cluster: Cluster, workload: Workload, events: Sequence[Event]) -> Cluster:
    return Cluster.of(cluster.engines, workload, cluster.view, events, cluster.on_failure, cluster.names)


def _events_from(events: Sequence[Event], cut_s: float) -> list[Event]:
    """Return the events of the second part: what is gone or slow at the cut, then all that comes later."""
    begin: list[Event] = []
    events = sorted(events, key=lambda event: event.at_s)
    for instance in sorted({event.instance for event in events}):
        past = [event for event in events if event.instance == instance and event.at_s < cut_s]
        presence = [event for event in past if event.kind != "slow"]
        if presence and presence[-1].kind != "join":
            begin.append(Event(0.0, "leave", instance))
        begin += [Event(0.0, "slow", instance, event.factor) for event in past if event.kind == "slow"][-1:]
    return begin + [replace(event, at_s=event.at_s - cut_s) for event in events if event.at_s >= cut_s]
