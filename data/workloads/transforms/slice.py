"""A stretch of a workload."""

from __future__ import annotations

import numpy as np

from lodestar.data.log import Workload
from lodestar.data.workloads.tables import require
from lodestar.data.workloads.transforms.rows import pick

__all__ = ["slice_rows", "slice_time"]


def slice_rows(workload: Workload, first: int = 0, requests: int | None = None) -> Workload:
    """Keep `requests` requests from the one with index `first` on; all that follow where no number is given."""
    require("first", first, 0 <= first < len(workload), f"0 to {len(workload) - 1}, the last request")
    left = len(workload) - first
    require("requests", requests, requests is None or 1 <= requests <= left, f"1 to {left}, what follows the first")
    return pick(workload, np.arange(first, first + (requests or left)))


def slice_time(workload: Workload, from_s: float = 0.0, to_s: float = float("inf")) -> Workload:
    """Keep the requests that arrive from `from_s` on and before `to_s`."""
    require("to_s", to_s, to_s > from_s, f"more than from_s, {from_s:g}")
    rows = np.arange(*np.searchsorted(workload.arrived_at_s, [from_s, to_s]))
    span_s = float(workload.arrived_at_s[-1])
    return pick(workload, rows, f"the time from {from_s:g} s to {to_s:g} s, of a workload of {span_s:g} s,")
