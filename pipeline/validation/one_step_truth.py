"""The one-step truth of a recorded replay: what each request would have had to wait, had it alone gone elsewhere.

In a known cluster, the run that was logged can be had again to the byte, with one request sent elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import complete_snapshot
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.decisions import scored_decisions
from lodestar.pipeline.replay.parallel import mapper
from lodestar.pipeline.replay.policies.oracle_ttft import OracleTtft
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.window import window_of

__all__ = ["OneStepTruth", "foreseen_ms", "one_step_truth", "sent_elsewhere_ms"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DRAW: Final = 7  # makes the decisions that are looked at others than those of the log's own luck


class OneStepTruth(NamedTuple):
    """A mean TTFT in ms, and its standard error, as not every decision was looked at."""

    value_ms: float
    se_ms: float


def foreseen_ms(cluster: Cluster, chosen: Ints, seed: int) -> Floats:
    """Return the TTFT of every request on every instance, if nothing came after it, shape (n, m), in ms.

    The engines run ahead from the states of the run that was logged, with the luck that each request had.
    """
    return cluster.replay(OracleTtft(), forced=chosen, seed=seed, record=True, always=True).costs


def sent_elsewhere_ms(cluster: Cluster, chosen: Ints, seed: int, rows: Ints) -> Floats:
    """Return the TTFT of these requests on every instance, all others as they were, shape (rows, m), in ms.

    That counts what comes later and shares a step with them. A run for each of them and each instance.
    """

    def with_one_elsewhere(task: tuple[int, int]) -> float:
        i, j = task
        return float(cluster.replay(forced=np.where(np.arange(len(chosen)) == i, j, chosen), seed=seed).ttft_ms[i])

    tasks = [(i, j) for i in rows.tolist() for j in range(len(cluster.engines))]
    with mapper() as cores:
        return np.array(list(cores.map(with_one_elsewhere, tasks))).reshape(len(rows), -1)


def one_step_truth(
    cluster: Cluster, log: RequestLog, policies: Sequence[str], seed: int, looked_at: int
) -> dict[str, OneStepTruth]:
    """Return every policy's one-step value on the states of a log, over the requests that count.

    Formula: mean over all decisions of Σ π(a|x) · foreseen, and the mean over those looked at, drawn at random, of
    Σ π(a|x) · (sent elsewhere − foreseen): the difference estimator of surveys.

    Args:
        cluster: that was recorded.
        log: of the record, as it was ingested.
        policies: by name.
        seed: of the recorded run.
        looked_at: decisions.
    """
    place = np.array(log.request_id).astype(np.int64)
    chosen = np.empty(len(log), dtype=np.int64)
    chosen[place] = log.chosen
    counted = np.arange(window_of(cluster.workload).first, len(log))
    looked = np.sort(np.random.default_rng([seed, _DRAW]).choice(counted, min(looked_at, len(counted)), replace=False))
    foreseen = foreseen_ms(cluster, chosen, seed)
    off = sent_elsewhere_ms(cluster, chosen, seed, looked) - foreseen[looked]
    snapshot, _ = complete_snapshot(log, cluster.workload)
    found = {}
    for name in policies:
        target = np.empty_like(foreseen)
        target[place] = scored_decisions(make_policy(name), log, cluster.workload, snapshot, Fleet(log.instances))
        corrected = (target[looked] * off).sum(axis=1)
        se_ms = float(corrected.std(ddof=1) / np.sqrt(len(looked)))
        found[name] = OneStepTruth(float((target * foreseen)[counted].sum(axis=1).mean() + corrected.mean()), se_ms)
    return found
