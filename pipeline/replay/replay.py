"""Replay a dataset's traffic under policies, in a cluster calibrated from its own log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import RequestLog, Workload
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.carried import carry_calibration
from lodestar.pipeline.replay.chosen_engines import DEFAULT_INSTANCES, Engines, engines_of
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.cluster_spec import ClusterSpec
from lodestar.pipeline.replay.estimates.closed_loop_correction import closed_loop_correction
from lodestar.pipeline.replay.estimates.gap import gap_rows
from lodestar.pipeline.replay.estimates.one_step import one_step
from lodestar.pipeline.replay.files import write_replay
from lodestar.pipeline.replay.judging import cluster_as_logged, judged, logging_policy
from lodestar.pipeline.replay.logged_traffic import logged_traffic
from lodestar.pipeline.replay.measured import compare_measured
from lodestar.pipeline.replay.parallel import AnyPolicy, Mapper, Run, mapper, replay_all, replay_one
from lodestar.pipeline.replay.policy_names import find_policy
from lodestar.pipeline.replay.python_policy import PythonPolicy
from lodestar.pipeline.replay.record import Names, record_replay
from lodestar.pipeline.replay.record_targets import Target, record_targets
from lodestar.pipeline.replay.routing.contract import Fleet, Models, Policy
from lodestar.pipeline.replay.settings import Settings
from lodestar.pipeline.replay.summary import summary
from lodestar.pipeline.replay.sweep import sweep
from lodestar.pipeline.replay.tuning.parts import Parts, parts_of
from lodestar.pipeline.replay.tuning.text import check_tunable
from lodestar.pipeline.replay.view import RouterView

__all__ = ["ESTIMAND", "Replay", "Settings", "replay"]

ESTIMAND: Final = "closed-loop, replayed"
_NOT_BESIDE: Final = "one step is not set beside the closed loop: the replayed cluster is not the logged one"
#: Of the queues over time, so many points are drawn.
_QUEUE_POINTS: Final = 2000

Bools = NDArray[np.bool_]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Replay:
    """A finished replay: its document, and the directory that holds it."""

    document: dict[str, Any]
    directory: Path


def replay(
    workspace: Workspace,
    dataset: str,
    settings: Settings,
    models: Models | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Calibrate, judge, replay every policy, estimate one step, and write the result into the workspace."""
    policies = {name: find_policy(name, models) for name in settings.policies}
    if settings.tuning:
        check_tunable(policies)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    targets = record_targets(settings.record, settings.policies, seeds) if settings.record else []
    traffic = logged_traffic(workspace, dataset, settings)
    log, workload, window, propensity = traffic.log, traffic.workload, traffic.window, traffic.propensity
    engines = engines_of(workspace, log, workload, settings, _calibrating(progress))
    cluster = _cluster(log, workload, engines, settings)
    parts = parts_of(cluster, settings.tuning.ratio, settings.warmup_ratio) if settings.tuning else None
    baseline = settings.baseline or settings.policies[0]
    every = range(0, len(workload), -(-len(workload) // _QUEUE_POINTS))
    with mapper() as cores:
        changed = _is_changed(cluster, engines)
        as_logged = cluster_as_logged(log, engines, cluster)
        trust = judged(workspace, log, as_logged, changed, traffic.arms, propensity, policies, cores)
        started = time.perf_counter()
        outcomes = replay_all(cluster, policies, seeds, cores, progress, every)
        per_s = len(policies) * len(seeds) * len(workload) / (time.perf_counter() - started)
        drawn = _on_draws(cluster, policies, seeds, engines, settings, cores)
        steps = one_step(traffic, policies, _fleet(log, engines), baseline, settings.seed, settings.slo.ttft_ms)
        document = {
            "dataset": dataset,
            "estimand": ESTIMAND,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "baseline": baseline,
            "seeds": settings.seeds,
            "requests": len(workload),
            "instances": len(cluster.engines),
            "slo": {"ttft_ms": settings.slo.ttft_ms, "tpot_ms": settings.slo.tpot_ms},
            "requests_per_s": per_s,
            "engine": engines.describe(log, settings, cluster.engines),
            "cluster": ClusterSpec.of(cluster.engines, cluster.view, cluster.events, cluster.on_failure).to_dict(),
            "inferred": {**workload.inferred, **steps.inferred, **_partly_there(log), **_sessions(workload, policies)},
            "command": settings.command(dataset),
            "versions": {name: version(name) for name in ("lodestar-router", "lightgbm", "numba", "numpy", "polars")},
            "trust": trust.to_dict(),
            **summary(outcomes, workload, baseline, settings.slo, settings.warmup_ratio, settings.seed),
            **steps.to_dict(),
        }
        if drawn:
            carry_calibration(document["policies"], outcomes, drawn, window)
            document["intervals"]["how"] += f"; widened by what {len(drawn[baseline])} draws of the calibration add"
        gap: list[dict[str, Any]] = []
        ungapped = [_NOT_BESIDE]
        if not changed:
            made_by = logging_policy(log, propensity)
            correction = closed_loop_correction(
                log, as_logged, outcomes, made_by, settings.warmup_ratio, settings.seed, cores
            )
            gap, ungapped = gap_rows(
                log, as_logged, steps, outcomes, document["policies"], correction, made_by, traffic.counted
            )
        document |= {"gap": gap, "gap_notes": ungapped}
        if traffic.others:
            document |= compare_measured(
                log, traffic.others, cluster, outcomes, seeds, steps.rows, settings.warmup_ratio, cores
            )
        if settings.sweeps:
            document["sweep"] = sweep(
                cluster, policies, seeds, settings.sweeps, baseline, trust.verdict, settings.slo, cores, progress
            )
        if parts is not None:
            document |= _tuned(parts, policies, seeds, baseline, trust.verdict, settings, cores, progress)
    document["recorded"] = _record(targets, cluster, policies, log)
    return Replay(document, write_replay(workspace, document, workload, outcomes, every, steps.calibration))


def _fleet(log: RequestLog, engines: Engines) -> Fleet:
    """Return the instances of the log, as they were when it was made."""
    return Fleet(log.instances, [engines.as_logged[j % len(engines.as_logged)] for j in range(len(log.instances))])


def _compiled(policies: Mapping[str, AnyPolicy]) -> list[Policy]:
    return [policy for policy in policies.values() if isinstance(policy, Policy)]


def _calibrating(progress: Progress | None) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress("calibrate", done, 0)


def _cluster(log: RequestLog, workload: Workload, engines: Engines, settings: Settings) -> Cluster:
    instances = settings.instances or settings.cluster.size or len(log.instances) or DEFAULT_INSTANCES
    spec = settings.cluster
    return Cluster.of(
        engines.of(settings, instances),
        workload,
        spec.view or RouterView(),
        spec.events,
        spec.on_failure,
        log.instances,
    )


def _is_changed(cluster: Cluster, engines: Engines) -> bool:
    return bool(cluster.events) or cluster.engines != engines.as_logged


def _on_draws(
    cluster: Cluster,
    policies: Mapping[str, AnyPolicy],
    seeds: range,
    engines: Engines,
    settings: Settings,
    cores: Mapper,
) -> dict[str, list[Outcome]]:
    """Replay every compiled policy on the engines of each draw of the calibration, one draw a seed."""
    draws = list(zip(engines.drawn(settings, len(cluster.engines)), seeds, strict=False))
    if len(draws) < 2 or len(_compiled(policies)) < len(policies):
        return {}
    return {
        name: list(cores.map(replay_one, [Run(cluster.with_engines(draw), policy, seed) for draw, seed in draws]))
        for name, policy in policies.items()
    }


def _tuned(
    parts: Parts,
    policies: Mapping[str, AnyPolicy],
    seeds: range,
    baseline: str,
    verdict: str,
    settings: Settings,
    cores: Mapper,
    progress: Progress | None,
) -> dict[str, Any]:
    from lodestar.pipeline.replay.tuning.tune import tune  # Optuna is slow to import, and rarely needed

    return tune(
        parts, policies, seeds, baseline, verdict, settings.tuning, settings.slo, settings.warmup_ratio, cores, progress
    )


def _record(targets: list[Target], cluster: Cluster, policies: Mapping[str, AnyPolicy], log: RequestLog) -> list[str]:
    """Write the replays that are to be kept as decision logs, and return their files."""
    for target in targets:
        policy = policies[target.policy]
        # A file's path means nothing to who reads the record elsewhere.
        named = policy.name if isinstance(policy, PythonPolicy) else target.policy
        record_replay(target.path, cluster, policy, target.seed, Names.of(log, len(cluster.engines), named))
    return [str(target.path) for target in targets]


def _sessions(workload: Workload, policies: Mapping[str, AnyPolicy]) -> dict[str, str]:
    """Name policies that route by conversation, where no request names one."""
    if workload.session is not None:
        return {}
    wanting = [name for name, policy in policies.items() if isinstance(policy, Policy) and policy.needs_sessions]
    return {"conversations": f"none named: {', '.join(wanting)} does as without them"} if wanting else {}


def _partly_there(log: RequestLog) -> dict[str, str]:
    """Name instances that were candidates for a part of the decisions only: the replay has them all along."""
    decided = log.chosen >= 0
    share = log.candidate[decided].mean(axis=0) if decided.any() else np.ones(0)
    partly = [f"{log.instances[j]} in {share[j]:.0%}" for j in np.flatnonzero(share < 1)]
    if not partly:
        return {}
    return {
        "instances": f"candidates in a part of the decisions only ({', '.join(partly)}), replayed as there all along"
    }
