"""Replay a dataset's traffic under policies, in a cluster calibrated from its own log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from lodestar.data.log import Floats, RequestLog, Workload
from lodestar.data.reconstruction.arms import arms_of, measured_arms_of
from lodestar.data.reconstruction.arrivals_from import joined_arrivals
from lodestar.data.reconstruction.reconstruct import propensity_of, workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.calibration.calibrate import FEWEST_REQUESTS, can_calibrate, usable_requests
from lodestar.pipeline.replay.calibration.stretch import TRAINING_SHARE
from lodestar.pipeline.replay.carried import carry_calibration
from lodestar.pipeline.replay.chosen_engines import DEFAULT_INSTANCES, Engines, engines_of
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.cluster_spec import ClusterSpec
from lodestar.pipeline.replay.files import write_replay
from lodestar.pipeline.replay.measured import compare_measured
from lodestar.pipeline.replay.one_step import one_step
from lodestar.pipeline.replay.parallel import AnyPolicy, Mapper, Run, mapper, replay_all, replay_one
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.policy_names import find_policy, make_policy
from lodestar.pipeline.replay.record import Names, record_replay
from lodestar.pipeline.replay.record_targets import Target, record_targets
from lodestar.pipeline.replay.routing.contract import NOTHING, Fleet, Models, Policy
from lodestar.pipeline.replay.settings import Settings
from lodestar.pipeline.replay.summary import summary
from lodestar.pipeline.replay.sweep import sweep
from lodestar.pipeline.replay.trust import Trust, judge, unjudged
from lodestar.pipeline.replay.tuning.parts import Parts, parts_of
from lodestar.pipeline.replay.tuning.text import check_tunable
from lodestar.pipeline.replay.view import RouterView
from lodestar.pipeline.replay.window import window_of

__all__ = ["ESTIMAND", "Replay", "Settings", "replay"]

ESTIMAND: Final = "closed-loop, replayed"
_CHANGED: Final = (
    "the gates judge the cluster as it was logged, and nothing judges instances, engines or events that differ from it"
)
#: Of the queues over time, so many points are drawn.
_QUEUE_POINTS: Final = 2000

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
    log = _log(workspace, dataset, settings.arrivals_from)
    others = [_log(workspace, name) for name in settings.measured]
    # What lends its arrival times must tell nothing else.
    timed = [_log(workspace, settings.arrivals_from)] if settings.arrivals_from else []
    arms = _arms(workspace, log, [*others, *timed])
    workload = workload_of(log, settings.seed, arms)
    window = window_of(workload, settings.warmup_ratio)
    engines = engines_of(workspace, log, workload, settings, _calibrating(progress))
    cluster = _cluster(log, workload, engines, settings)
    parts = parts_of(cluster, settings.tuning.ratio, settings.warmup_ratio) if settings.tuning else None
    propensity, note = propensity_of(log)
    baseline = settings.baseline or settings.policies[0]
    every = range(0, len(workload), -(-len(workload) // _QUEUE_POINTS))
    with mapper() as cores:
        changed = _is_changed(cluster, engines)
        trust = _trust(workspace, log, engines, workload, cluster.view, changed, arms, propensity, cores)
        started = time.perf_counter()
        outcomes = replay_all(cluster, policies, seeds, cores, progress, every)
        per_s = len(policies) * len(seeds) * len(workload) / (time.perf_counter() - started)
        drawn = _on_draws(cluster, policies, seeds, engines, settings, cores)
        steps = one_step(log, workload, propensity, note, policies, _fleet(log, engines), settings.seed)
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
            "one_step": steps.rows,
            "one_step_note": steps.note,
        }
        if drawn:
            carry_calibration(document["policies"], outcomes, drawn, window)
            document["intervals"]["how"] += f"; widened by what {len(drawn[baseline])} draws of the calibration add"
        if others:
            document |= compare_measured(
                log, others, cluster, outcomes, seeds, steps.rows, settings.warmup_ratio, cores
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


def _log(workspace: Workspace, dataset: str, arrivals_from: str | None = None) -> RequestLog:
    with open_store(workspace) as con:
        log = load_log(con, dataset)
        return joined_arrivals(log, load_log(con, arrivals_from)) if arrivals_from else log


def _arms(workspace: Workspace, log: RequestLog, measured: list[RequestLog]) -> list[RequestLog]:
    """Find the same requests under other routers, which tell prefixes apart; not the arms that are to be predicted."""
    with open_store(workspace) as con:
        return arms_of(con, log, measured)


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


def _trust(
    workspace: Workspace,
    log: RequestLog,
    engines: Engines,
    workload: Workload,
    view: RouterView,
    changed: bool,
    arms: list[RequestLog],
    propensity: Floats,
    cores: Mapper,
) -> Trust:
    """Judge the engines on as many instances as the log has, whatever is replayed."""
    if not can_calibrate(log):
        return unjudged(
            f"{usable_requests(log)} requests have a decision and a TTFT among the first {TRAINING_SHARE:.0%}; "
            f"expected at least {FEWEST_REQUESTS} to compare the replay with"
        )
    with open_store(workspace) as con:
        measured = measured_arms_of(con, log)
    there = [engines.as_logged[j % len(engines.as_logged)] for j in range(max(1, len(log.instances)))]
    as_logged = Cluster.of(there, workload, view, names=log.instances)
    trust = judge(log, as_logged, _logging_policy(log, propensity), measured, arms, cores)
    if changed and trust.verdict == "trusted":
        trust = replace(trust, verdict="not judged", reasons=[_CHANGED])
    elif changed:
        trust = replace(trust, notes=[*trust.notes, _CHANGED])
    if trust.verdict == "untrusted" and "arrivals" in workload.inferred and not log.found:
        hint = "arrival times are inferred, which alone can fail a gate: ingest a log that has them, if there is one"
        return replace(trust, reasons=[*trust.reasons, hint])
    return trust


def _record(targets: list[Target], cluster: Cluster, policies: Mapping[str, AnyPolicy], log: RequestLog) -> list[str]:
    """Write the replays that are to be kept as decision logs, and return their files."""
    for target in targets:
        record_replay(target.path, cluster, policies[target.policy], target.seed, Names.of(log, len(cluster.engines)))
    return [str(target.path) for target in targets]


def _logging_policy(log: RequestLog, propensity: Floats) -> Policy | None:
    """Return the policy that made the log, where it is known by name or by its uniform propensities."""
    known = {policy.name for policy in POLICIES if policy.predictor == NOTHING}
    if log.policy in known:
        return make_policy(log.policy)
    decided = log.chosen >= 0
    uniform = np.isclose(propensity[decided] * log.candidate[decided].sum(axis=1), 1.0)
    return make_policy("random") if decided.any() and uniform.all() else None


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
