"""When the requests of a run left the cluster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import Workload
from lodestar.pipeline.replay.cluster import Outcome
from lodestar.pipeline.replay.state import CANCELLED

__all__ = ["left_at_s"]

Floats = NDArray[np.float64]


def left_at_s(run: Outcome, workload: Workload) -> Floats:
    """Return when each request was no longer in the cluster: answered, cancelled, or lost, which is as if never there.

    When a request was lost no outcome says; taken as never there, it adds nothing to a queue.
    """
    cancelled = run.status == CANCELLED
    stayed_s = np.where(np.isnan(run.e2e_ms), 0.0, run.e2e_ms / 1e3)
    if workload.cancel_after_s is not None:
        stayed_s = np.where(cancelled, workload.cancel_after_s, stayed_s)
    return np.asarray(workload.arrived_at_s + stayed_s)
