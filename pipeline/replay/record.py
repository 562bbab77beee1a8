"""A replay as a log: what a router that logs everything would have written."""

from __future__ import annotations

import numpy as np

from lodestar.data import schema
from lodestar.data.log import RequestLog
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.policies.contract import Policy, probabilities

__all__ = ["recorded_log"]


def recorded_log(dataset: str, cluster: Cluster, policy: Policy, outcome: Outcome) -> RequestLog:
    """Turn a recorded run into a request log with every candidate and its probability."""
    workload, n, m = cluster.workload, len(cluster.workload), len(cluster.engines)
    probability = probabilities(policy, workload.prompt_tokens.astype(np.float64), outcome.snapshots)
    return RequestLog(
        dataset=dataset,
        instances=[f"instance-{j:02d}" for j in range(m)],
        request_id=[str(i) for i in range(n)],
        arrived_at_s=workload.arrived_at_s,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        chosen=outcome.instance,
        propensity=probability[np.arange(n), outcome.instance],
        policy=policy.name,
        candidate=np.ones((n, m), dtype=np.bool_),
        snapshot={
            name: np.ascontiguousarray(outcome.snapshots[:, :, k]) for k, name in enumerate(schema.SNAPSHOT_FIELDS)
        },
        probability=probability,
        ttft_ms=outcome.ttft_ms,
        tpot_ms=outcome.tpot_ms,
        e2e_ms=outcome.e2e_ms,
        block_ids=workload.block_ids,
        block_offsets=workload.block_offsets,
        block_tokens=workload.block_tokens,
    )
