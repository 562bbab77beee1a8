"""When requests arrive, changed; which and what they are, not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lodestar.data.log import Workload
from lodestar.data.workloads.tables import require

__all__ = ["scale_rate", "shift_rate", "warp"]


def warp(workload: Workload, points: Sequence[tuple[float, float]]) -> Workload:
    """Map time by straight lines through (from, to) points in seconds; it begins at (0, 0) and must rise.

    After the last point the last line goes on.

    >>> blocks = np.zeros(0, int), np.zeros(4, int)
    >>> w = Workload(np.array([0.0, 10.0, 20.0]), np.ones(3, int), np.ones(3, int), *blocks, 16)
    >>> warp(w, [(10.0, 5.0), (20.0, 25.0)]).arrived_at_s.tolist()
    [0.0, 5.0, 25.0]
    """
    told = [(0.0, 0.0), *(point for point in points if tuple(point) != (0.0, 0.0))]
    require("points", list(points), len(told) > 1, "one or more beside 0:0")
    before, after = np.array(told, dtype=np.float64).T
    rising = bool(np.isfinite(told).all() and (np.diff(before) > 0).all() and (np.diff(after) > 0).all())
    require("points", list(points), rising, "times that rise from 0:0 on, on both sides")
    slope = np.diff(after) / np.diff(before)
    line = np.clip(np.searchsorted(before, workload.arrived_at_s, side="right") - 1, 0, len(slope) - 1)
    return replace(workload, arrived_at_s=after[line] + (workload.arrived_at_s - before[line]) * slope[line])


def scale_rate(workload: Workload, factor: float) -> Workload:
    """Multiply the rate: all gaps are divided by `factor`."""
    _require_factor(factor)
    return replace(workload, arrived_at_s=workload.arrived_at_s / factor)


def shift_rate(workload: Workload, at_s: float, factor: float) -> Workload:
    """Multiply the rate from a time on; what comes before stays."""
    _require_factor(factor)
    span_s = float(workload.arrived_at_s[-1])
    require("at_s", at_s, 0 <= at_s < span_s, f"0 to less than {span_s:g}, the last arrival")
    after = workload.arrived_at_s > at_s
    moved = at_s + (workload.arrived_at_s - at_s) / factor
    return replace(workload, arrived_at_s=np.where(after, moved, workload.arrived_at_s))


def _require_factor(factor: float) -> None:
    require("factor", factor, 0 < factor < float("inf"), "more than 0")
