"""The world of jobs and servers through the product: its log calibrates engines, and the cluster replays a policy.

A job is a request of as many prompt tokens as its size, with one token to answer; a FIFO server is an engine that runs
one request at a time. That is told to the calibration, as CausalSim tells its simulator how queues work; how long a job
takes on each server is fitted. Every server is calibrated on its own jobs, as a dataset of one instance: servers here
differ 18-fold, and the search over a fleet together takes them to be within a factor of about three of the typical.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lodestar.data import schema
from lodestar.data.log import RequestLog, Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.calibrate import calibrate
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.parallel import mapper
from lodestar.pipeline.replay.python_policy import PythonPolicy
from lodestar.pipeline.replay.seen import RequestSeen, SnapshotSeen
from lodestar.pipeline.validation.worlds.job_servers import SERVERS, Jobs, Run, rule_of, tracked_next

__all__ = ["ONE_AT_A_TIME", "JobRouter", "calibrated_servers", "job_log", "job_workload", "replayed"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: What is known of a server beforehand: one request at a time, and nothing but its size takes time.
ONE_AT_A_TIME: Final = EngineModel(
    decode_base_ms=0.0,
    decode_sequence_ms=0.0,
    context_token_ms=0.0,
    prefill_base_ms=0.0,
    prompt_token_ms=1.0,
    prefill_sequence_ms=0.0,
    prefill_context_token_ms=0.0,
    attention_ms=0.0,
    kv_capacity_tokens=1 << 20,
    max_batched_tokens=1 << 14,
    max_sequences=1,
    prefix_caching=False,
)
_BLOCK_TOKENS: Final = 16


def job_workload(jobs: Jobs) -> Workload:
    """Return the jobs as requests."""
    n = len(jobs)
    return Workload(
        (jobs.arrived_at_ms - jobs.arrived_at_ms[0]) / 1e3,
        jobs.size,
        np.ones(n, dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        np.zeros(n + 1, dtype=np.int64),
        _BLOCK_TOKENS,
    )


def job_log(jobs: Jobs, log: Run, kept: Bools) -> RequestLog:
    """Return the jobs for which `kept` is true as the log of a single server."""
    workload, n = job_workload(jobs.only(kept)), int(kept.sum())
    nothing, latency_ms = np.full((n, 1), np.nan), log.latency_ms[kept]
    return RequestLog(
        dataset="load-balancing",
        instances=["server"],
        request_id=list(map(str, range(n))),
        arrived_at_s=workload.arrived_at_s,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        chosen=np.zeros(n, dtype=np.int64),
        propensity=np.full(n, np.nan),
        policy=None,
        candidate=np.ones((n, 1), dtype=np.bool_),
        snapshot=dict.fromkeys(schema.SNAPSHOT_FIELDS, nothing),
        probability=nothing,
        ttft_ms=latency_ms,
        tpot_ms=np.full(n, np.nan),
        e2e_ms=latency_ms,
        block_ids=workload.block_ids,
        block_offsets=workload.block_offsets,
        block_tokens=None,
    )


def calibrated_servers(jobs: Jobs, log: Run) -> list[EngineModel]:
    """Calibrate an engine for each server from the jobs that the log sent there, with no regard to who sent them."""

    def of(server: int) -> EngineModel:
        kept = log.server == server
        return calibrate(job_log(jobs, log, kept), job_workload(jobs.only(kept)), near=ONE_AT_A_TIME).engine

    with mapper() as cores:
        return list(cores.map(of, range(SERVERS)))


def replayed(jobs: Jobs, policy: str, servers: list[EngineModel]) -> Floats:
    """Replay the jobs under a policy on calibrated servers, with the jobs' own chance; latency in ms, shape (n,)."""
    settings = {"policy": policy, "jobs": jobs, "servers": servers}
    quiet = [replace(server, noise_ratio=0.0) for server in servers]
    router = PythonPolicy(policy, Path(__file__), JobRouter, settings)
    return Cluster.of(quiet, job_workload(jobs)).replay(router).ttft_ms


class JobRouter:
    """A policy of the world as the product asks one in plain Python.

    'pseudo-optimal' knows the slowness of servers, which is a part of the policy; the tracker hears the processing time
    that the calibrated servers give.
    """

    def __init__(self, policy: str, jobs: Jobs, servers: list[EngineModel]) -> None:
        self._rule, self._jobs, self._servers = rule_of(policy), jobs, servers
        self._cuts: list[float] = np.cumsum(self._rule.shares)[:-1].tolist()
        self._tracked = np.zeros(len(servers))

    def choose(
        self, request: RequestSeen, snapshot: SnapshotSeen, state: dict[Any, Any], rng: np.random.Generator
    ) -> tuple[int, ArrayLike]:
        """Return the server, and the probability of each."""
        keys = self._rule.keys(snapshot.inflight_requests, self._jobs.slowness, self._tracked)
        order = keys.argsort(kind="stable")
        j = int(order[bisect_right(self._cuts, float(self._jobs.uniform[request.index]))])
        took = self._servers[j].step_ms(prompt_tokens=request.prompt_tokens, decoding=0, context_tokens=0, attention=0)
        self._tracked[j] = tracked_next(float(self._tracked[j]), took)
        probability = np.empty(len(order))
        probability[order] = self._rule.shares
        return j, probability
