"""The replay's own logs: a cluster that is known, of which only what its router logged is used.

A generated workload is routed at random in a cluster of known engines, and recorded. The record is ingested, engines
are calibrated to it and policies replayed, as with anybody's log. The truth is the same policies on the same requests
in the known cluster, under other luck. It takes the engine model to be right: what is tested is all that comes after,
and how far one-step estimates, which answer another question, are from a policy's performance.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.store import load_log, open_store
from lodestar.data.workloads.presets import preset_text
from lodestar.data.workloads.recipe import recipe_of, with_settings
from lodestar.data.workloads.simulate import simulate
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.headline.worlds import at_rates
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.parallel import mapper, replay_all
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import record_replay
from lodestar.pipeline.replay.replay import Settings, replay
from lodestar.pipeline.replay.saturation import saturation_per_s
from lodestar.pipeline.replay.window import window_of
from lodestar.pipeline.validation.one_step_truth import OneStepTruth, one_step_truth

__all__ = ["POLICIES", "WORLDS", "KnownWorld", "known_cluster", "own_logs", "summary_of"]

Floats = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

LOGGED_BY: Final = "random"
POLICIES: Final = ("random", "least-request", "power-of-two", "least-uncached-tokens", "aibrix-prefix-cache")
_SATURATION_SEED: Final = 1000  # of a workload that is not replayed
_TRUTH_SEED: Final = 10_000  # luck that neither the log nor its replays have
_TRUTH_SEEDS: Final = 40


class KnownWorld(NamedTuple):
    """What is logged.

    Attributes:
        workload: preset of `lodestar simulate`.
        slowness: of each instance beside the engine that is known.
        load: share of the saturation throughput.
    """

    workload: str
    slowness: tuple[float, ...]
    load: float


#: Shared prefixes, conversations, and bursts before instances of unlike speed. Where no prompts share a prefix, as in
#: the last, aibrix-prefix-cache does what least-request does.
WORLDS: Final[dict[str, KnownWorld]] = {
    "sharing09": KnownWorld("sharing09", (1.0,) * 4, 0.7),
    "sessions": KnownWorld("sessions", (1.0,) * 4, 0.6),
    "uneven": KnownWorld("uneven", (1.0, 1.0, 1.6, 1.6), 0.5),
}


def known_cluster(world: KnownWorld, requests: int, seed: int) -> Cluster:
    """Return the cluster before as many requests of its workload, drawn by the seed.

    >>> cluster = known_cluster(WORLDS["uneven"], requests=50, seed=0)
    >>> len(cluster.engines), len(cluster.workload)
    (4, 50)
    """
    recipe = recipe_of(with_settings(tomllib.loads(preset_text(world.workload)), [f"requests={requests}"]))
    engine = replace(EngineModel.preset("l40s-llama-3.1-8b"), noise_ratio=0.05)
    groups = [[engine.slowed(each)] * world.slowness.count(each) for each in dict.fromkeys(world.slowness)]
    most_per_s = saturation_per_s(groups, simulate(recipe, _SATURATION_SEED))
    workload = at_rates(simulate(recipe, seed), [world.load * most_per_s])
    return Cluster.of([each for group in groups for each in group], workload)


def own_logs(
    worlds: Sequence[str] = tuple(WORLDS),
    policies: Sequence[str] = POLICIES,
    requests: int = 2000,
    seeds: int = 20,
    logs: int = 3,
    looked_at: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Record logs of known clusters, and compare what is made of them with the truth.

    Args:
        worlds: of `WORLDS`.
        policies: compiled ones that need no model; two or more.
        requests: of a log.
        seeds: replays of each policy.
        logs: of each world, each with requests and luck of its own.
        looked_at: decisions of a log of which the one-step truth is found exactly; see `one_step_truth`.
        seed: of the first log.
        progress: told 'own logs', how many logs are done, of how many.

    Returns:
        'closed_loop', a row a log and policy, 'one_step', a row a log, policy and estimator, and 'summary', a row a
        world. Errors are estimate / truth − 1; 'error' of a one-step row is how wrong it is as a performance, and
        'one_step_error' how wrong it is as what it claims.
    """
    closed: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    for done, (name, k) in enumerate(((name, k) for name in worlds for k in range(logs)), 1):
        cluster = known_cluster(WORLDS[name], requests, seed + k)
        log, document = _from_the_log(cluster, policies, seeds, seed + k)
        truth = _truth(cluster, policies)
        one_step = one_step_truth(cluster, log, policies, seed + k, looked_at)
        at = {"world": name, "log": seed + k}
        closed += [{**at, **_closed_loop(row, truth[row["policy"]], document)} for row in document["policies"]]
        steps += [
            {**at, **_one_step(row, one_step[row["policy"]], float(truth[row["policy"]].mean()))}
            for row in document["one_step"]
        ]
        if progress:
            progress("own logs", done, len(worlds) * logs)
    summary = [summary_of(name, closed, steps) for name in worlds]
    return {"requests": requests, "seeds": seeds, "closed_loop": closed, "one_step": steps, "summary": summary}


def _from_the_log(
    cluster: Cluster, policies: Sequence[str], seeds: int, seed: int
) -> tuple[RequestLog, dict[str, Any]]:
    """Record the known cluster, and replay what was recorded in a workspace that holds nothing else."""
    with TemporaryDirectory() as folder:
        workspace, path = Workspace.open(Path(folder) / "home"), Path(folder) / "log.jsonl"
        record_replay(path, cluster, make_policy(LOGGED_BY), seed)
        ingest(workspace, [path], "own")
        with open_store(workspace) as con:
            log = load_log(con, "own")
        return log, replay(workspace, "own", Settings(list(policies), seeds=seeds, seed=seed)).document


def _truth(cluster: Cluster, policies: Sequence[str]) -> dict[str, Floats]:
    """Return TTFT in ms of the requests that count, under every policy, shape (seeds, requests)."""
    rows = window_of(cluster.workload).rows
    seeds = range(_TRUTH_SEED, _TRUTH_SEED + _TRUTH_SEEDS)
    with mapper() as cores:
        outcomes = replay_all(cluster, {name: make_policy(name) for name in policies}, seeds, cores)
    return {name: np.stack([run.ttft_ms[rows] for run in runs]) for name, runs in outcomes.items()}


def _closed_loop(row: dict[str, Any], truth: Floats, document: dict[str, Any]) -> dict[str, Any]:
    told, mean_ms, p99_ms = row["ttft_ms"], float(truth.mean()), float(np.quantile(truth, 0.99))
    low, high = told["ci95"]
    return {
        "policy": row["policy"],
        "estimand": document["estimand"],
        "truth_mean_ms": mean_ms,
        "mean_ms": told["mean"],
        "error_mean": told["mean"] / mean_ms - 1,
        "truth_p99_ms": p99_ms,
        "p99_ms": told["p99"],
        "error_p99": told["p99"] / p99_ms - 1,
        "ci95_ms": [low, high],
        "in_interval": bool(low <= mean_ms <= high),
        "verdict": document["trust"]["verdict"],
        "flags": row["flags"],
    }


def _one_step(row: dict[str, Any], truth: OneStepTruth, performance_ms: float) -> dict[str, Any]:
    low, high = row["ci95_ms"]
    return {
        "policy": row["policy"],
        "estimator": row["estimator"],
        "estimand": row["estimand"],
        "value_ms": row["value_ms"],
        "ci95_ms": [low, high],
        "one_step_truth_ms": truth.value_ms,
        "one_step_truth_se_ms": truth.se_ms,
        "one_step_error": row["value_ms"] / truth.value_ms - 1,
        "covered": bool(low <= truth.value_ms <= high),
        "performance_ms": performance_ms,
        "error": row["value_ms"] / performance_ms - 1,
    }


def summary_of(world: str, closed_loop: Sequence[dict[str, Any]], one_step: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a world's mean errors, Kendall's τ over policies (the mean over logs), and how often truth is inside."""
    closed = [row for row in closed_loop if row["world"] == world]
    estimators = {}
    for name in dict.fromkeys(row["estimator"] for row in one_step if row["world"] == world):
        rows = [row for row in one_step if row["world"] == world and row["estimator"] == name]
        estimators[name] = {
            "one_step_mean_error": float(np.mean([abs(row["one_step_error"]) for row in rows])),
            "coverage": float(np.mean([row["covered"] for row in rows])),
            "mean_error_as_performance": float(np.mean([abs(row["error"]) for row in rows])),
            "kendall_tau_as_performance": _tau(rows, "value_ms", "performance_ms"),
        }
    return {
        "world": world,
        "mean_error": float(np.mean([abs(row["error_mean"]) for row in closed])),
        "largest_error": float(max(abs(row["error_mean"]) for row in closed)),
        "p99_mean_error": float(np.mean([abs(row["error_p99"]) for row in closed])),
        "kendall_tau": _tau(closed, "mean_ms", "truth_mean_ms"),
        "in_interval": float(np.mean([row["in_interval"] for row in closed])),
        "verdicts": sorted({row["verdict"] for row in closed}),
        "one_step": estimators,
    }


def _tau(rows: Sequence[dict[str, Any]], told: str, truth: str) -> float | None:
    """Return the mean over logs; None where one has a single policy, or a row that is not unlike any other."""
    of_logs = []
    for log in dict.fromkeys(row["log"] for row in rows):
        own = [row for row in rows if row["log"] == log]
        of_logs.append(float(kendalltau([row[told] for row in own], [row[truth] for row in own]).statistic))
    found = float(np.mean(of_logs))
    return None if np.isnan(found) else found
