"""A replay as a log: what a router that logs everything would have written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.log import RequestLog
from lodestar.data.native_write import decision_records
from lodestar.data.record_files import write_records
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.parallel import AnyPolicy, Run, replay_one
from lodestar.pipeline.replay.state import CANCELLED, LOST

__all__ = ["Names", "record_replay", "recorded_log"]

Floats = NDArray[np.float64]

SNAPSHOTS_AT_ONCE: Final = 1 << 26  # numbers of one replay's snapshots in memory: 512 MB
CANDIDATES_AT_ONCE: Final = 400_000  # of the records in memory
_STATUS: Final = {0: "ok", CANCELLED: "cancelled", LOST: "error"}


@dataclass(frozen=True, slots=True)
class Names:
    """What requests, instances and the policy are called in the records.

    A request keeps its name with a prefix: a recording is not one more measurement of the traffic that it replays, and
    must not be taken for one.

    Attributes:
        requests: one for each request, all different; None: their place in the workload.
        instances: one for each instance; None: instance-00, instance-01, …
        policy: with its settings, so that it can be asked again; None: its name alone.
    """

    requests: Sequence[str] | None = None
    instances: Sequence[str] | None = None
    policy: str | None = None

    @classmethod
    def of(cls, log: RequestLog, instances: int, policy: str | None = None) -> Names:
        """Take a log's own names where they fit."""
        distinct = len(set(log.request_id)) == len(log)
        return cls(
            [f"replayed-{name}" for name in log.request_id] if distinct else None,
            log.instances if len(log.instances) == instances else None,
            policy,
        )


def record_replay(path: Path, cluster: Cluster, policy: AnyPolicy, seed: int, names: Names | None = None) -> None:
    """Write the decision log of one replay.

    Of every request: the candidates with what the router knew of each, score and probability, the choice, the outcome.
    The score is the cost that the policy gave a candidate, lower is better. A policy in plain Python gives no scores,
    and probabilities only if it returns them. A request that was routed again has its last decision; one that was lost
    has status 'error'.

    Where the snapshots of all requests are more than `SNAPSHOTS_AT_ONCE`, the replay is done again for each part, which
    gives the same.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path.parent}: {error.strerror}; expected a place that can be written. Name another one"
        ) from error
    write_records(path, _records(cluster, policy, seed, names or Names()))


def recorded_log(
    dataset: str,
    cluster: Cluster,
    policy: AnyPolicy,
    outcome: Outcome,
    rows: range | None = None,
    first: int = 0,
    names: Names | None = None,
) -> RequestLog:
    """Turn a recorded run into a request log with every candidate and its probability.

    Args:
        dataset: its name.
        cluster: what was replayed.
        policy: what decided.
        outcome: what came of it, with what the router saw.
        rows: the requests to turn; None: all.
        first: the request that the first recorded snapshot is of.
        names: of requests and instances.
    """
    workload, names = cluster.workload, names or Names()
    rows = rows or range(len(workload))
    part = slice(rows.start, rows.stop)
    kept = slice(rows.start - first, rows.stop - first)
    seen = outcome.snapshots[kept]
    chosen = np.asarray(outcome.instance[part], dtype=np.int64)
    candidate = ~np.isnan(seen).all(axis=2) & (chosen >= 0)[:, None]
    probability = np.where((chosen >= 0)[:, None], outcome.probabilities[kept], np.nan)
    propensity = np.where(chosen >= 0, probability[np.arange(len(rows)), chosen], np.nan)
    offsets = workload.block_offsets[rows.start : rows.stop + 1]
    return RequestLog(
        dataset=dataset,
        instances=list(names.instances or cluster.fleet.names),
        request_id=list(names.requests[part] if names.requests else map(str, rows)),
        arrived_at_s=workload.arrived_at_s[part],
        prompt_tokens=workload.prompt_tokens[part],
        output_tokens=workload.output_tokens[part],
        chosen=chosen,
        propensity=propensity,
        policy=names.policy or policy.name,
        candidate=candidate,
        snapshot={name: np.ascontiguousarray(seen[:, :, k]) for k, name in enumerate(schema.SNAPSHOT_FIELDS)},
        probability=probability,
        ttft_ms=outcome.ttft_ms[part],
        tpot_ms=outcome.tpot_ms[part],
        e2e_ms=outcome.e2e_ms[part],
        block_ids=workload.block_ids[offsets[0] : offsets[-1]],
        block_offsets=offsets - offsets[0],
        block_tokens=workload.block_tokens,
        session=None if workload.session is None else workload.session[part],
        phases={schema.QUEUE_MS: outcome.queue_ms[part]},
    )


def _records(cluster: Cluster, policy: AnyPolicy, seed: int, names: Names) -> Iterator[pl.DataFrame]:
    """Replay as often as memory asks for, and make records of a part at a time."""
    n, m = len(cluster.workload), len(cluster.engines)
    instance = None
    for window in _parts(range(n), SNAPSHOTS_AT_ONCE // (m * len(schema.SNAPSHOT_FIELDS))):
        outcome = replay_one(Run(cluster, policy, seed, record=window))
        if instance is not None and not np.array_equal(instance, outcome.instance):
            raise ConfigError(
                f"--policy {policy.name} chose otherwise when the same replay was done again; expected a policy that "
                "draws from rng alone. Correct it"
            )
        instance = outcome.instance
        first = 0 if len(outcome.snapshots) == n else window.start
        for rows in _parts(window, CANDIDATES_AT_ONCE // m):
            log = recorded_log("", cluster, policy, outcome, rows, first, names)
            scores = _scores(outcome, rows, first)
            yield decision_records(log, _beside(cluster, outcome, rows), scores, every_field=True)


def _parts(rows: range, size: int) -> Iterator[range]:
    for first in range(rows.start, rows.stop, max(1, size)):
        yield range(first, min(first + max(1, size), rows.stop))


def _scores(outcome: Outcome, rows: range, first: int) -> Floats | None:
    """Return what the policy minimises, for every candidate; None for a policy that gives no costs."""
    scores = outcome.costs[rows.start - first : rows.stop - first]
    return None if np.isnan(scores).all() else np.where(np.isinf(scores), np.nan, scores)


def _beside(cluster: Cluster, outcome: Outcome, rows: range) -> pl.DataFrame:
    """Return how old the snapshots were, what the engine found in its cache, and how each request ended."""
    part = slice(rows.start, rows.stop)
    started = ~np.isnan(outcome.ttft_ms[part])
    return pl.DataFrame(
        {
            schema.SNAPSHOT_AGE_MS: pl.Series(_snapshot_age_ms(cluster, outcome)[part]).fill_nan(None),
            schema.CACHED_TOKENS: pl.Series(outcome.cached_tokens[part]).set(pl.Series(~started), None),
            schema.STATUS: pl.Series(outcome.status[part]).replace_strict(_STATUS, return_dtype=pl.String),
        }
    )


def _snapshot_age_ms(cluster: Cluster, outcome: Outcome) -> Floats:
    """Return how long before the decision the engines' metrics were read; NaN for a request that was routed again."""
    arrived_at_s = cluster.workload.arrived_at_s
    interval_s = cluster.view.scrape_interval_ms / 1e3
    age_s = (
        arrived_at_s - np.floor(arrived_at_s / interval_s) * interval_s if interval_s else np.zeros(len(arrived_at_s))
    )
    return np.where(outcome.retries == 0, age_s * 1e3, np.nan)
