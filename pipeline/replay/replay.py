"""Replay a dataset's traffic under policies, in a cluster calibrated from its own log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from lodestar.data.errors import ConfigError
from lodestar.data.log import Floats, RequestLog, Workload
from lodestar.data.reconstruction.arms import arms_of
from lodestar.data.reconstruction.reconstruct import propensity_of, workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.models.latency import LatencyModel
from lodestar.pipeline.replay.calibrate import (
    FEWEST_REQUESTS,
    TRAINING_SHARE,
    Calibration,
    calibrate,
    can_calibrate,
    usable_requests,
)
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.files import write_replay
from lodestar.pipeline.replay.measured import measured_rows
from lodestar.pipeline.replay.one_step import one_step
from lodestar.pipeline.replay.policies import HEURISTICS, make_policy
from lodestar.pipeline.replay.policies.contract import Policy
from lodestar.pipeline.replay.summary import Slo, compare, summarise
from lodestar.pipeline.replay.trust import Trust, judge, unjudged

__all__ = ["ESTIMAND", "Replay", "Settings", "replay"]

ESTIMAND: Final = "closed-loop, replayed"
DEFAULT_INSTANCES: Final = 8
DEFAULT_ENGINE: Final = "h100-llama-3.1-8b"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What to replay, and how often.

    Attributes:
        policies: names, the first is the baseline unless another is named.
        seeds: replays of each policy.
        seed: the first of them.
        baseline: policy that the others are compared with.
        engine: preset to use instead of calibrating.
        kv_capacity_tokens: of each engine, instead of the preset's or what the log tells.
        instances: size of the cluster, instead of what the log has.
        slo: latency targets.
        measured: dataset with the measured outcomes of another arm of the same traffic.
    """

    policies: list[str]
    seeds: int = 10
    seed: int = 0
    baseline: str | None = None
    engine: str | None = None
    kv_capacity_tokens: int | None = None
    instances: int | None = None
    slo: Slo = field(default_factory=Slo)
    measured: str | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no comparison."""
        if not self.policies:
            raise ConfigError(
                "no policy to replay; expected at least one. Add --policy random, or see lodestar policies"
            )
        if self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}; expected at least 1")
        if len(set(self.policies)) < len(self.policies):
            raise ConfigError(f"--policy {', '.join(self.policies)}: a policy is named twice; expected each once")
        if self.baseline is not None and self.baseline not in self.policies:
            raise ConfigError(
                f"--baseline {self.baseline} is not replayed; expected one of {', '.join(self.policies)}. "
                "Add it as a --policy"
            )

    def command(self, dataset: str) -> str:
        """Return the command line that repeats this.

        >>> Settings(["random", "learned"], seeds=4).command("mine")
        'lodestar replay mine --policy random --policy learned --seeds 4 --seed 0'
        """
        words = ["lodestar replay", dataset, *(f"--policy {name}" for name in self.policies)]
        words += [f"--seeds {self.seeds} --seed {self.seed}"]
        words += [
            f"--{name.replace('_', '-')} {value}"
            for name in ("baseline", "engine", "kv_capacity_tokens", "instances", "measured")
            if (value := getattr(self, name))
        ]
        if self.slo != Slo():
            words += [f"--slo-ttft-ms {self.slo.ttft_ms:g} --slo-tpot-ms {self.slo.tpot_ms:g}"]
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Replay:
    """A finished replay: its document, and the directory that holds it."""

    document: dict[str, Any]
    directory: Path


def replay(
    workspace: Workspace,
    dataset: str,
    settings: Settings,
    model: LatencyModel | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Calibrate, judge, replay every policy, estimate one step, and write the result into the workspace."""
    log = _log(workspace, dataset)
    other = _log(workspace, settings.measured) if settings.measured else None
    chosen = {name: make_policy(name, model) for name in settings.policies}
    workload = workload_of(log, settings.seed, _arms(workspace, log, other))
    engine, fit = _engine(log, workload, settings, progress)
    if settings.kv_capacity_tokens:
        engine = replace(engine, kv_capacity_tokens=settings.kv_capacity_tokens)
    cluster = Cluster.of([engine] * (settings.instances or len(log.instances) or DEFAULT_INSTANCES), workload)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    propensity, note = propensity_of(log)
    trust = _trust(log, cluster, _logging_policy(log, propensity))
    outcomes, per_s = _replayed(cluster, chosen, seeds, progress)
    steps = one_step(log, workload, propensity, note, list(chosen.values()), settings.seed)
    baseline = settings.baseline or settings.policies[0]
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
        "engine": _describe(engine, fit, log, settings),
        "inferred": {**workload.inferred, **steps.inferred, **_partly_there(log)},
        "command": settings.command(dataset),
        "versions": {name: version(name) for name in ("lodestar-router", "lightgbm", "numba", "numpy", "polars")},
        "trust": trust.to_dict(),
        "policies": [
            {
                **summarise(name, outcomes[name], workload.prompt_tokens, settings.slo),
                "difference": compare(outcomes, name, baseline),
            }
            for name in chosen
        ],
        "one_step": steps.rows,
        "one_step_note": steps.note,
    }
    if other is not None:
        document["measured"] = measured_rows(log, other, cluster, outcomes, seeds)
    return Replay(document, write_replay(workspace, document, workload, outcomes, steps.calibration))


def _log(workspace: Workspace, dataset: str) -> RequestLog:
    with open_store(workspace) as con:
        return load_log(con, dataset)


def _arms(workspace: Workspace, log: RequestLog, measured: RequestLog | None) -> list[RequestLog]:
    """Find the same requests under other routers, which tell prefixes apart; not the arm that is to be predicted."""
    with open_store(workspace) as con:
        return arms_of(con, log, [measured] if measured else [])


def _engine(
    log: RequestLog, workload: Workload, settings: Settings, progress: Progress | None
) -> tuple[EngineModel, Calibration | None]:
    """Fit the engine if the log allows it and no preset is named."""
    if settings.engine is None and can_calibrate(log):
        fit = calibrate(log, workload, lambda done: progress("calibrate", done, 0) if progress else None)
        return fit.engine, fit
    return EngineModel.preset(settings.engine or DEFAULT_ENGINE), None


def _describe(engine: EngineModel, fit: Calibration | None, log: RequestLog, settings: Settings) -> dict[str, Any]:
    """Say what the cluster is made of and where that came from."""
    preset = f"preset {settings.engine or DEFAULT_ENGINE}"
    logged = f"the log has {len(log.instances)}" if log.instances else "the log names none"
    return {
        "coefficients": engine.to_dict(),
        "kv_capacity_tokens": engine.kv_capacity_tokens,
        "source": f"fitted to the latencies of {log.dataset}" if fit else preset,
        "instances": f"named; {logged}" if settings.instances else logged if log.instances else f"default; {logged}",
        "fit": fit.to_dict() if fit else None,
    }


def _trust(log: RequestLog, cluster: Cluster, logging_policy: Policy | None) -> Trust:
    """Judge the engine on as many instances as the log has, whatever is replayed."""
    if not can_calibrate(log):
        return unjudged(
            f"{usable_requests(log)} requests have a decision and a TTFT among the first {TRAINING_SHARE:.0%}; "
            f"expected at least {FEWEST_REQUESTS} to compare the replay with"
        )
    as_logged = replace(cluster, engines=cluster.engines[:1] * len(log.instances))
    trust = judge(log, as_logged, logging_policy)
    if trust.verdict == "untrusted" and "arrivals" in cluster.workload.inferred:
        hint = "arrival times are inferred, which alone can fail a gate: ingest a log that has them, if there is one"
        return replace(trust, reasons=[*trust.reasons, hint])
    return trust


def _logging_policy(log: RequestLog, propensity: Floats) -> Policy | None:
    """Return the policy that made the log, where it is known by name or by its uniform propensities."""
    if log.policy in {heuristic.name for heuristic in HEURISTICS}:
        return make_policy(log.policy)
    decided = log.chosen >= 0
    uniform = np.isclose(propensity[decided] * log.candidate[decided].sum(axis=1), 1.0)
    return make_policy("random") if decided.any() and uniform.all() else None


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


def _replayed(
    cluster: Cluster, policies: dict[str, Policy], seeds: range, progress: Progress | None
) -> tuple[dict[str, list[Outcome]], float]:
    """Replay every policy under every seed; return the outcomes and the simulated requests a second."""
    outcomes: dict[str, list[Outcome]] = {}
    spent_s, done = 0.0, 0
    for name, policy in policies.items():
        outcomes[name] = []
        for seed in seeds:
            started = time.perf_counter()
            outcomes[name].append(cluster.replay(policy, seed=seed, record=seed == seeds[0]))
            spent_s += time.perf_counter() - started
            done += 1
            if progress:
                progress("replay", done, len(policies) * len(seeds))
    return outcomes, done * len(cluster.workload) / spent_s
