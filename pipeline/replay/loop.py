"""The replay loop: at each arrival the instances catch up, the router looks, decides and sends."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import jit_as
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.engine import advance
from lodestar.pipeline.replay.policies.contract import PROBABILITIES, Parameters, Rule
from lodestar.pipeline.replay.prefixes import prefix_tree
from lodestar.pipeline.replay.router import dispatch, draw, observe
from lodestar.pipeline.replay.state import State, new_state

__all__ = ["run"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_FIELDS = len(schema.SNAPSHOT_FIELDS)


def _signature() -> numba.core.typing.templates.Signature:
    """Name the one signature of `run`, from a cluster and a workload of one."""
    one = Workload(np.zeros(1), np.ones(1, int), np.ones(1, int), np.zeros(0, int), np.zeros(2, int), 1)
    return numba.float64(
        numba.typeof(new_state([EngineModel()], one, prefix_tree(one), np.ones(1))),
        numba.types.FunctionType(PROBABILITIES),
        numba.typeof(Parameters.of()),
        numba.int64[::1],
        numba.float64[::1],
        numba.float64,
        numba.float64[:, :, ::1],
    )


@jit_as(_signature())
def run(
    state: State,
    rule: Rule,
    parameters: Parameters,
    forced: Ints,
    uniform: Floats,
    prefix_ttl_s: float,
    snapshots: Floats,
) -> float:
    """Replay all requests to their end, filling the outcomes of `state.requests`.

    Args:
        state: the workload and the cluster, idle.
        rule: the policy's compiled rule.
        parameters: its settings.
        forced: instance of each request, overriding the policy; empty to let the policy decide.
        uniform: one number in [0, 1) a request, for the draw.
        prefix_ttl_s: how long the router believes a prefix cached after sending it.
        snapshots: shape (n, m, fields) to record what the router saw, or (0, m, fields) not to.

    Returns:
        The in-flight imbalance: most requests in flight on one instance above the mean, averaged over decisions.
    """
    instances = len(state.instances)
    snapshot = np.empty((instances, _FIELDS))
    probability = np.empty(instances)
    imbalance = 0.0
    for i in range(len(state.requests)):
        now_s = state.requests[i].arrived_at_s
        for j in range(instances):
            if state.instances[j].run_until_s <= now_s:
                advance(state, j, now_s)
        observe(state, i, prefix_ttl_s, snapshot)
        if len(snapshots) > 0:
            snapshots[i] = snapshot
        if len(forced) > 0:
            chosen = forced[i]
        else:
            rule(float(state.requests[i].prompt_tokens), snapshot, parameters, probability)
            chosen = draw(probability, uniform[i])
        most = 0.0
        total = 0.0
        for j in range(instances):
            most = max(most, snapshot[j, _INFLIGHT])
            total += snapshot[j, _INFLIGHT]
        imbalance += most - total / instances
        dispatch(state, i, chosen, snapshot[chosen, _HIT])
    for j in range(instances):
        advance(state, j, np.inf)
    return imbalance / len(state.requests)
