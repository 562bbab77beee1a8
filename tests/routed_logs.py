"""Logs of one workload on a small cluster, routed by one policy or by two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import RequestLog
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import Names, recorded_log

Bools = NDArray[np.bool_]

CLUSTER = Cluster.of([EngineModel.preset("l40s-llama-3.1-8b")] * 4, sharing_workload(600, 8.0, 0.5, 0))
LOGGERS = ("epsilon:least-request,epsilon=0.4", "random")


def recorded(name: str, seed: int = 1) -> RequestLog:
    policy = make_policy(name)
    outcome = CLUSTER.replay(policy, seed=seed, record=True)
    return recorded_log("made", CLUSTER, policy, outcome, names=Names(policy=name))


def mixed(arm: Bools) -> RequestLog:
    """One run in which both routers decide: each is asked along the way, and the arm's choice is taken."""
    policies = [make_policy(name) for name in LOGGERS]
    own = CLUSTER.replay(policies[1], seed=3, record=True).instance.astype(np.int64)
    forced = np.where(arm, own, -1)
    log = recorded_log(
        "made", CLUSTER, policies[0], CLUSTER.replay(policies[0], forced=forced, seed=3, record=True, always=True)
    )
    uniform = np.where(log.candidate, 1 / log.candidate.sum(axis=1, keepdims=True), 0.0)
    probability = np.where(arm[:, None], uniform, log.probability)
    propensity = probability[np.arange(len(log)), log.chosen]
    return replace(
        log, policy=None, loggers=LOGGERS, logger=arm.astype(np.int64), probability=probability, propensity=propensity
    )
