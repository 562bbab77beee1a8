"""Recorded replays as logs whose true one-step value is known: the mean over many more replays of the same world."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog, Workload
from lodestar.data.workloads.presets import preset_text
from lodestar.data.workloads.recipe import recipe_of, with_rate, with_settings
from lodestar.data.workloads.simulate import simulate
from lodestar.models.engine import EngineModel
from lodestar.pipeline.estimation.least_squares import Linear, weighted_least_squares
from lodestar.pipeline.estimation.shared_prefixes import SharedPrefixes
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.record import recorded_log

__all__ = [
    "LIMITS",
    "TARGETS",
    "WORLDS",
    "ReplayedLog",
    "ReplayedWorld",
    "least",
    "recorded",
    "replayed_log",
    "simple_model",
]

Floats = NDArray[np.float64]

#: Target policy → the snapshot field of which it takes the instance with the least, ties at random.
TARGETS: Final = {"least-request": schema.INFLIGHT_REQUESTS, "least-kv-cache": schema.KV_USAGE_RATIO}

_ENGINE: Final = "l40s-llama-3.1-8b"
_INSTANCES: Final = 4


@dataclass(frozen=True, slots=True)
class ReplayedWorld:
    """A preset's traffic on four instances under `random`.

    Attributes:
        preset: of the workload.
        requests: of one log.
        rate_per_s: of the arrivals.
        same_requests: whether all logs have the same requests, dealt to the arrivals anew, or draw them anew, too.
    """

    preset: str
    requests: int
    rate_per_s: float
    same_requests: bool = False

    @property
    def name(self) -> str:
        """What tables call it."""
        same = ", the same requests" if self.same_requests else ""
        return f"{self.preset}, {self.requests} at {self.rate_per_s:g}/s{same}"


#: Clumped arrivals of unlike requests on a calm and on a busy fleet, and conversations: what requests have in common is
#: near in time. Then groups of one prompt length and one prefix that span the log, drawn anew for each, with a burst or
#: two in each block of time and without.
WORLDS: Final = (
    ReplayedWorld("uneven", 6000, 6.0),
    ReplayedWorld("uneven", 12000, 9.0),
    ReplayedWorld("sessions", 6000, 1.0),
    ReplayedWorld("bursts", 6000, 5.0),
    ReplayedWorld("sharing28", 4000, 4.0),
)

#: Where intervals by blocks do not hold as often as they say. Bursts near overload: a few logs with a jam make the
#: mean, and most have none; too seldom, and `near_overload` says so. The very same requests in each log, which none of
#: them tells: too often, unless the interval is asked for the same requests (`same_requests_interval`).
LIMITS: Final = (
    ReplayedWorld("bursts", 6000, 7.0),
    ReplayedWorld("sharing28", 4000, 4.0, same_requests=True),
)


@dataclass(frozen=True, slots=True)
class ReplayedLog:
    """One log as the intervals read it, for one target policy.

    Attributes:
        cost: TTFT of each decision in ms, shape (n,).
        weight: importance weight of the target, shape (n,).
        direct: what a model says of the target's choice, shape (n,).
        predicted: what it says of the logged choice, shape (n,).
        shared: which of the requests share a prefix.
    """

    cost: Floats
    weight: Floats
    direct: Floats
    predicted: Floats
    shared: SharedPrefixes


def recorded(world: ReplayedWorld, seed: int) -> RequestLog:
    """Replay the world with arrivals, routing and noise drawn by the seed, and record it as a log."""
    workload = _workload(world, seed)
    cluster = Cluster.of([EngineModel.preset(_ENGINE)] * _INSTANCES, workload)
    policy = RandomChoice()
    log = recorded_log(world.name, cluster, policy, cluster.replay(policy, seed=seed, record=True))
    if not np.isfinite(log.ttft_ms).all():
        raise DataError(f"{world.name}: {np.isnan(log.ttft_ms).sum()} requests have no TTFT; expected one for each")
    return log


def replayed_log(log: RequestLog, target: str, model: Linear) -> ReplayedLog:
    """Weigh a recorded log by one of `TARGETS`, with what the model says."""
    probability, rows = least(log.snapshot[TARGETS[target]]), np.arange(len(log))
    foretold = model.predict(_features(log).reshape(len(log) * _INSTANCES, -1)).reshape(len(log), _INSTANCES)
    return ReplayedLog(
        log.ttft_ms,
        probability[rows, log.chosen] / log.propensity,
        np.sum(probability * foretold, axis=1),
        foretold[rows, log.chosen],
        SharedPrefixes.of_blocks(log.block_ids, log.block_offsets, log.prompt_tokens),
    )


def simple_model(log: RequestLog) -> Linear:
    """Fit TTFT to tokens left to compute and the queue of the chosen instance: a plain model, wrong as models are."""
    chosen = _features(log)[np.arange(len(log)), log.chosen]
    return weighted_least_squares(chosen, log.ttft_ms, np.ones(len(log)))


def least(of_instances: Floats) -> Floats:
    """Return the probability of every instance where the least wins and ties are drawn, shape (n, m).

    >>> least(np.array([[2.0, 1.0, 1.0]]))
    array([[0. , 0.5, 0.5]])
    """
    best = of_instances == of_instances.min(axis=1, keepdims=True)
    return np.asarray(best / best.sum(axis=1, keepdims=True))


def _features(log: RequestLog) -> Floats:
    uncached = log.prompt_tokens[:, None] * (1 - np.nan_to_num(log.snapshot[schema.HIT_RATIO]))
    queue = [log.snapshot[name] for name in (schema.WAITING_REQUESTS, schema.RUNNING_REQUESTS, schema.PREFILL_TOKENS)]
    return np.nan_to_num(np.stack([uncached, *queue], axis=-1))


def _table(world: ReplayedWorld) -> dict[str, Any]:
    table = with_settings(tomllib.loads(preset_text(world.preset)), [f"requests={world.requests}"])
    return with_rate(table, world.rate_per_s)


@cache
def _requests(world: ReplayedWorld) -> Workload:
    """Draw the requests that all logs of a world have in common."""
    return simulate(recipe_of(_table(world)), 0)


def _workload(world: ReplayedWorld, seed: int) -> Workload:
    drawn = simulate(recipe_of(_table(world)), 1 + seed)
    if not world.same_requests:
        return drawn
    dealt = _dealt(_requests(world), np.random.default_rng([seed, 1]).permutation(world.requests))
    return replace(dealt, arrived_at_s=drawn.arrived_at_s)


def _dealt(workload: Workload, order: NDArray[np.int64]) -> Workload:
    """Put requests, which belong to no conversations, into another order."""
    offsets = workload.block_offsets
    counts = np.diff(offsets)[order]
    begins = np.concatenate([[0], np.cumsum(counts)])
    ids = workload.block_ids[np.arange(begins[-1]) + np.repeat(offsets[:-1][order] - begins[:-1], counts)]
    return replace(
        workload,
        prompt_tokens=workload.prompt_tokens[order],
        output_tokens=workload.output_tokens[order],
        block_ids=ids,
        block_offsets=begins,
    )
