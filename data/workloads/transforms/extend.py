"""A workload several times over."""

from __future__ import annotations

import numpy as np

from lodestar.data.log import Workload
from lodestar.data.workloads.tables import require
from lodestar.data.workloads.transforms.merge import join

__all__ = ["extend"]


def extend(workload: Workload, copies: int, share_prefixes: bool = False, period_s: float | None = None) -> Workload:
    """Repeat a workload, one copy after the other, `period_s` from start to start.

    Without `period_s`, a copy begins one mean gap after the last arrival of the one before, so that the rate stays.
    Each copy has prefixes of its own, unless `share_prefixes`: then every copy asks what the first one asked.
    """
    require("copies", copies, copies >= 1, "1 or more")
    n, span_s = len(workload), float(workload.arrived_at_s[-1])
    if period_s is None:
        require("period_s", period_s, n > 1 or copies == 1, "a period, since one request alone has no rate")
        period_s = span_s * n / max(n - 1, 1)
    require("period_s", period_s, period_s >= span_s, f"{span_s:g} or more, the time from first to last arrival")
    return join([workload] * copies, (np.arange(copies) * period_s).tolist(), share_prefixes)
