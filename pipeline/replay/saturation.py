"""How many requests a second a fleet can serve, which a load is a share of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.view import RouterView

__all__ = ["full_view", "saturation_per_s"]


def full_view(engines: Sequence[EngineModel]) -> RouterView:
    """Return what a router sees: metrics at every decision, and an index that holds as much as a cache does.

    >>> full_view([EngineModel(kv_capacity_tokens=5000)]).index_capacity_blocks
    5000
    """
    return RouterView(
        index_capacity_blocks=engines[0].kv_capacity_tokens, index_per_instance=True, index_skips_uncached=True
    )


def saturation_per_s(fleet: Sequence[list[EngineModel]], workload: Workload) -> float:
    """Return the requests a second that a fleet serves under least-request with all of them there at the start.

    Groups of equal engines are taken apart and added up: spread evenly over unequal engines, a backlog would measure
    the slowest.

    Args:
        fleet: groups of equal engines.
        workload: of which the arrival times do not matter.
    """
    at_once = replace(workload, arrived_at_s=np.zeros(len(workload)))
    total = 0.0
    for group in fleet:
        outcome = Cluster.of(group, at_once).replay(make_policy("least-request"))
        total += len(workload) * 1e3 / float(outcome.e2e_ms.max())
    return total
