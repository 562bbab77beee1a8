"""Replay a dataset's traffic under policies, in a cluster calibrated from its own log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from lodestar.data.log import RequestLog, Workload
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.calibration.calibrate import FEWEST_REQUESTS, usable_requests
from lodestar.pipeline.replay.calibration.stretch import TRAINING_SHARE
from lodestar.pipeline.replay.carried import carry_calibration
from lodestar.pipeline.replay.cluster import Outcome
from lodestar.pipeline.replay.cluster_spec import ClusterSpec
from lodestar.pipeline.replay.estimates.closed_loop_correction import closed_loop_correction
from lodestar.pipeline.replay.estimates.gap import gap_rows
from lodestar.pipeline.replay.estimates.one_step import OneStep, one_step
from lodestar.pipeline.replay.files import write_replay
from lodestar.pipeline.replay.judging import judged, logging_policy
from lodestar.pipeline.replay.measured import compare_measured
from lodestar.pipeline.replay.parallel import AnyPolicy, Mapper, Run, mapper, replay_all, replay_one
from lodestar.pipeline.replay.prepare import Prepared, Progress, prepare
from lodestar.pipeline.replay.python_policy import PythonPolicy
from lodestar.pipeline.replay.record import Names, record_replay
from lodestar.pipeline.replay.routing.contract import Models, Policy
from lodestar.pipeline.replay.settings import Settings
from lodestar.pipeline.replay.summary import summary
from lodestar.pipeline.replay.sweep import sweep
from lodestar.pipeline.replay.tuning.parts import Parts

__all__ = ["ESTIMAND", "Replay", "Settings", "replay"]

ESTIMAND: Final = "closed-loop, replayed"
_NOT_BESIDE: Final = "one step is not set beside the closed loop"
_CHANGED: Final = "the replayed cluster is not the logged one; replay it as it was logged"
#: Of the queues over time, so many points are drawn.
_QUEUE_POINTS: Final = 2000
_VERSIONS_OF: Final = ("lodestar-router", "lightgbm", "numba", "numpy", "polars")


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
    it = prepare(workspace, dataset, settings, models, progress)
    log, traffic = it.log, it.traffic
    every = range(0, len(it.workload), -(-len(it.workload) // _QUEUE_POINTS))
    with mapper() as cores:
        trust = judged(
            workspace, log, it.as_logged, it.is_changed, traffic.arms, traffic.propensity, it.policies, cores
        )
        started = time.perf_counter()
        outcomes = replay_all(it.cluster, it.policies, it.seeds, cores, progress, every)
        per_s = len(it.policies) * len(it.seeds) * len(it.workload) / (time.perf_counter() - started)
        steps = one_step(
            traffic,
            it.policies,
            it.fleet,
            it.baseline,
            settings.seed,
            settings.slo.ttft_ms,
            settings.blocks,
            settings.same_requests,
        )
        document = {
            **_of_what(it, dataset),
            "requests_per_s": per_s,
            "inferred": {**it.workload.inferred, **steps.inferred, **_not_as_it_was(it)},
            "trust": trust.to_dict(),
            **_summarised(it, outcomes, cores),
            **steps.to_dict(),
        }
        document |= _gap(it, steps, outcomes, document["policies"], cores)
        if traffic.others:
            document |= compare_measured(
                log,
                traffic.others,
                it.cluster,
                outcomes,
                it.seeds,
                steps.rows,
                settings.warmup_ratio,
                cores,
                traffic.arms,
            )
        if settings.sweeps:
            document["sweep"] = sweep(
                it.cluster,
                it.policies,
                it.seeds,
                settings.sweeps,
                it.baseline,
                trust.verdict,
                settings.slo,
                cores,
                progress,
            )
        if it.parts is not None:
            document |= _tuned(it, it.parts, trust.verdict, cores, progress)
    document["recorded"] = _record(it)
    return Replay(document, write_replay(workspace, document, it.workload, outcomes, every, steps.calibration))


def _of_what(it: Prepared, dataset: str) -> dict[str, Any]:
    """Say what is replayed, on what, and by what."""
    settings, cluster = it.settings, it.cluster
    return {
        "dataset": dataset,
        "estimand": ESTIMAND,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "baseline": it.baseline,
        "seeds": settings.seeds,
        "requests": len(it.workload),
        "instances": len(cluster.engines),
        "slo": {"ttft_ms": settings.slo.ttft_ms, "tpot_ms": settings.slo.tpot_ms},
        "engine": it.engines.describe(it.log, settings, cluster.engines),
        "cluster": ClusterSpec.of(cluster.engines, cluster.view, cluster.events, cluster.on_failure).to_dict(),
        "command": settings.command(dataset),
        "versions": {name: version(name) for name in _VERSIONS_OF},
    }


def _summarised(it: Prepared, outcomes: Mapping[str, list[Outcome]], cores: Mapper) -> dict[str, Any]:
    """Return the rows of the policies; how unsure the calibration is widens their intervals, where it is known."""
    settings = it.settings
    found = summary(outcomes, it.workload, it.baseline, settings.slo, settings.warmup_ratio, settings.seed)
    if drawn := _on_draws(it, cores):
        carry_calibration(found["policies"], outcomes, drawn, it.traffic.window)
        found["intervals"]["how"] += f"; widened by what {len(drawn[it.baseline])} draws of the calibration add"
    return found


def _on_draws(it: Prepared, cores: Mapper) -> dict[str, list[Outcome]]:
    """Replay every policy on the engines of each draw of the calibration, one draw a seed, if all are compiled."""
    draws = list(zip(it.engines.drawn(it.settings, len(it.cluster.engines)), it.seeds, strict=False))
    if len(draws) < 2 or len(_compiled(it.policies)) < len(it.policies):
        return {}
    return {
        name: list(cores.map(replay_one, [Run(it.cluster.with_engines(draw), policy, seed) for draw, seed in draws]))
        for name, policy in it.policies.items()
    }


def _compiled(policies: Mapping[str, AnyPolicy]) -> dict[str, Policy]:
    return {name: policy for name, policy in policies.items() if isinstance(policy, Policy)}


def _gap(
    it: Prepared, steps: OneStep, outcomes: Mapping[str, list[Outcome]], rows: list[dict[str, Any]], cores: Mapper
) -> dict[str, Any]:
    """Set one step beside the closed loop, where both are of the same cluster."""
    if why := _uncalibrated(it) or (_CHANGED if it.is_changed else ""):
        return {"gap": [], "gap_notes": [f"{_NOT_BESIDE}: {why}"]}
    log, settings = it.log, it.settings
    made_by = logging_policy(log, it.traffic.propensity)
    correction = closed_loop_correction(
        log, it.as_logged, outcomes, made_by, settings.warmup_ratio, settings.seed, cores
    )
    gap, notes = gap_rows(it.traffic, it.as_logged, steps, outcomes, rows, correction, made_by)
    return {"gap": gap, "gap_notes": notes}


def _uncalibrated(it: Prepared) -> str:
    """Say why the engines are not those of the log, where nothing fitted them to any."""
    if it.engines.fit is not None or it.settings.engine_from:
        return ""
    if it.settings.engine is not None:
        return f"the engines are {it.engines.source}, as named, and not calibrated; leave --engine out to fit them"
    return (
        f"the engines are {it.engines.source}, and not calibrated: {usable_requests(it.log)} requests have a decision "
        f"and a TTFT among the first {TRAINING_SHARE:.0%}; expected {FEWEST_REQUESTS} or more. Log more, or name "
        "engines that were calibrated before: lodestar replay --engine-from"
    )


def _tuned(it: Prepared, parts: Parts, verdict: str, cores: Mapper, progress: Progress | None) -> dict[str, Any]:
    from lodestar.pipeline.replay.tuning.tune import tune  # Optuna is slow to import, and rarely needed

    settings = it.settings
    return tune(
        parts,
        it.policies,
        it.seeds,
        it.baseline,
        verdict,
        settings.tuning,
        settings.slo,
        settings.warmup_ratio,
        cores,
        progress,
    )


def _record(it: Prepared) -> list[str]:
    """Write the replays that are to be kept as decision logs, and return their files."""
    for target in it.records:
        policy = it.policies[target.policy]
        # A file's path means nothing to who reads the record elsewhere.
        named = policy.name if isinstance(policy, PythonPolicy) else target.policy
        record_replay(target.path, it.cluster, policy, target.seed, Names.of(it.log, len(it.cluster.engines), named))
    return [str(target.path) for target in it.records]


def _not_as_it_was(it: Prepared) -> dict[str, str]:
    """Say what the replay must take otherwise than it was, or do without."""
    return {**_partly_there(it.log), **_sessions(it.workload, it.policies)}


def _sessions(workload: Workload, policies: Mapping[str, AnyPolicy]) -> dict[str, str]:
    """Name policies that route by conversation, where no request names one."""
    if workload.session is not None:
        return {}
    wanting = [name for name, policy in _compiled(policies).items() if policy.needs_sessions]
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
