"""Calibrate a dataset's cluster from whatever it holds, keep it in the workspace, and say how far to trust it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog, Workload
from lodestar.data.reconstruction.arms import arms_of
from lodestar.data.reconstruction.reconstruct import propensity_of, tpot_ms_of, workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel, presets
from lodestar.models.step_profile import fit_profile, read_profile
from lodestar.pipeline.calibration_advice import next_step
from lodestar.pipeline.replay.calibration.calibrate import FEWEST_REQUESTS, calibrate
from lodestar.pipeline.replay.calibration.files import CalibratedCluster, calibrated_path, save_cluster
from lodestar.pipeline.replay.calibration.forced import known_choices
from lodestar.pipeline.replay.calibration.statistics import FEWEST_ROWS, StatisticsFit, fit_statistics
from lodestar.pipeline.replay.calibration.stretch import TRAINING_SHARE, training_part
from lodestar.pipeline.replay.chosen_engines import DEFAULT_ENGINE
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.judging import judged_as_logged, too_few
from lodestar.pipeline.replay.parallel import mapper
from lodestar.pipeline.replay.trust import Trust, unjudged

__all__ = ["calibrate_dataset"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Sources:
    """What there is to calibrate from."""

    log: RequestLog
    arms: Sequence[RequestLog]
    workload: Workload | None
    no_workload: str
    samples: pl.DataFrame
    base: EngineModel
    named: bool
    profile: CalibratedCluster | None


def calibrate_dataset(
    workspace: Workspace,
    dataset: str,
    to: Path | None = None,
    profile: Path | None = None,
    engine: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit the engines of a dataset to the best that it holds; write them to the workspace, and to `to`.

    In order of preference: latencies whose instances are known; statistics of the engines; a step-time profile; a
    preset, where one is named. A profile, or the preset named by `engine`, is also where a fit to latencies starts
    from, and what it stays near where they do not tell; either gives statistics what they cannot tell. What was found
    is judged by the gates of a replay.

    Raises:
        DataError: the dataset has too little to fit to, and neither a profile nor a preset is named.
    """
    sources = _sources(workspace, dataset, profile, engine, seed)
    cluster = _best(sources, seed, progress)
    trust, errors = _trust(workspace, sources, cluster), _errors_of(sources, cluster)
    cluster = replace(cluster, fit={**cluster.fit, "verdict": trust.verdict})
    path = calibrated_path(workspace, dataset)
    for target in [path, *([to] if to else [])]:
        save_cluster(target, cluster)
    return {
        "dataset": dataset,
        "source": cluster.source,
        "requests": len(sources.log),
        "engine": cluster.engine.to_dict(),
        "instances": cluster.instances,
        **cluster.fit,
        **errors,
        "trust": trust.to_dict(),
        "next": next_step(dataset, trust, errors, profile is not None),
        "files": [str(path), *([str(to)] if to else [])],
    }


def _sources(workspace: Workspace, dataset: str, profile: Path | None, engine: str | None, seed: int) -> _Sources:
    with open_store(workspace) as con:
        log = load_log(con, dataset)
        arms = arms_of(con, log, [])
        samples: pl.DataFrame = con.sql("SELECT * FROM engine_samples WHERE dataset = ?", params=[dataset]).pl()
    workload, why = None, ""
    try:
        workload = workload_of(log, seed, arms)
    except DataError as error:
        why = str(error)
    base = EngineModel.preset(engine or DEFAULT_ENGINE)
    fitted = _from_profile(log, profile, base) if profile else None
    return _Sources(log, arms, workload, why, samples, fitted.engine if fitted else base, bool(engine), fitted)


def _best(sources: _Sources, seed: int, progress: Progress | None) -> CalibratedCluster:
    """Calibrate from the first source that suffices, and say why those before it did not."""
    found, why = _from_latencies(sources, seed, progress)
    if found is None:
        found, reason = _from_statistics(sources, seed)
        why.append(reason)
    if found is None:
        found = sources.profile
    if found is None and sources.named:
        why.append("a profile: none is named")
        name = f"the preset {_preset_name(sources.base)}"
        found = _alike(sources.log, name, sources.base, (), {"notes": [], "identified": {}})
    if found is None:
        raise DataError(
            f"dataset {sources.log.dataset!r}: too little to calibrate from ({'; '.join(filter(None, why))}). Ingest a "
            "log that tells more, or name what to take instead: --profile FILE, or --engine NAME of lodestar engines"
        )
    notes = [*(f"not from {reason}" for reason in why if reason), *found.fit["notes"]]
    return replace(found, fit={**found.fit, "notes": notes})


def _from_latencies(
    sources: _Sources, seed: int, progress: Progress | None
) -> tuple[CalibratedCluster | None, list[str]]:
    log, workload = sources.log, sources.workload
    usable = _usable(log)
    if usable < FEWEST_REQUESTS:
        said = f"{usable} requests with a TTFT and a known instance in the first {TRAINING_SHARE:.0%}"
        return None, [f"latencies: {said}, expected {FEWEST_REQUESTS}"]
    if workload is None:
        return None, [f"latencies: {sources.no_workload}"]
    near = sources.base if sources.profile or sources.named else None
    fit = calibrate(log, workload, progress, seed, near)
    source = f"latencies of {log.dataset}" + _near(sources)
    return CalibratedCluster(
        log.dataset, source, log.instances or ["all requests"], fit.engine, fit.engines, fit.draws, fit.to_dict()
    ), []


def _near(sources: _Sources) -> str:
    if sources.profile:
        return ", near the profile"
    return f", near the preset {_preset_name(sources.base)}" if sources.named else ""


def _from_statistics(sources: _Sources, seed: int) -> tuple[CalibratedCluster | None, str]:
    if sources.samples.is_empty():
        return None, "statistics of engines: the dataset holds none"
    log = sources.log
    output = log.output_tokens[log.output_tokens >= 0]
    if len(log) == 0 or len(output) == 0:
        return None, "statistics of engines: no request tells what prompts and outputs they served"
    prompt_mean, output_mean = float(log.prompt_tokens.mean()), float(output.mean())
    fit = fit_statistics(sources.samples, prompt_mean, output_mean, sources.base, seed)
    if fit.rows < FEWEST_ROWS:
        return None, f"statistics of engines: {'; '.join(fit.notes)}"
    details = {
        "notes": list(fit.notes),
        "identified": fit.identified,
        "intervals": _intervals(fit.engine, fit.standard_errors),
        "error_ratio": fit.error_ratio,
        "bias_ratio": fit.bias_ratio,
        "speeds": _statistics_speeds(fit, sources.log),
    }
    return _alike(log, f"statistics of the engines of {log.dataset}", fit.engine, fit.draws, details), ""


def _from_profile(log: RequestLog, path: Path, base: EngineModel) -> CalibratedCluster:
    fit = fit_profile(read_profile(path), base)
    regimes = {"decode": fit.decode, "prefill": fit.prefill}
    details = {
        "notes": list(fit.notes),
        "identified": fit.identified,
        "intervals": _intervals(fit.engine, fit.standard_errors),
        "error_ratio": {name: regime.error_ratio for name, regime in regimes.items() if regime},
    }
    return _alike(log, f"step-time profile {path.name}", fit.engine, fit.draws, details)


def _alike(
    log: RequestLog, source: str, engine: EngineModel, draws: tuple[EngineModel, ...], details: dict[str, Any]
) -> CalibratedCluster:
    """Return a cluster with the same engine in every instance that the log names; in one, where it names none."""
    names = log.instances or ["all requests"]
    details = {"intervals": {}, "speeds": [], "speeds_p_value": None, "loss": None, "evaluations": 0, **details}
    drawn = [[draw] * len(names) for draw in draws]
    return CalibratedCluster(
        log.dataset, source, names, engine, [engine] * len(names), drawn, {**details, "draws": len(drawn)}
    )


def _intervals(engine: EngineModel, errors: dict[str, float]) -> dict[str, list[float]]:
    return {
        name: [max(0.0, getattr(engine, name) - 1.96 * error), getattr(engine, name) + 1.96 * error]
        for name, error in errors.items()
        if hasattr(engine, name)
    }


def _statistics_speeds(fit: StatisticsFit, log: RequestLog) -> list[dict[str, Any]]:
    return [
        {
            "instance": log.instances[j] if j < len(log.instances) else str(j),
            "estimate": scale.factor,
            "ci95": [scale.factor - 1.96 * scale.standard_error, scale.factor + 1.96 * scale.standard_error],
            "used": 1.0,
        }
        for j, scale in fit.scales.items()
    ]


def _preset_name(engine: EngineModel) -> str:
    return next((name for name in presets() if EngineModel.preset(name) == engine), "named")


def _usable(log: RequestLog) -> int:
    return int((training_part(log) & _comparable(log)).sum())


def _comparable(log: RequestLog) -> Bools:
    """Say which requests have a TTFT and a known instance; a log that names none is taken as that of one."""
    known: Bools = ((log.chosen >= 0) | (len(log.instances) <= 1)) & (log.ttft_ms > 0)
    return known


def _trust(workspace: Workspace, sources: _Sources, cluster: CalibratedCluster) -> Trust:
    """Judge the engines as a replay of the dataset does."""
    log, workload = sources.log, sources.workload
    if workload is None:
        return unjudged(sources.no_workload)
    if (usable := _usable(log)) < FEWEST_REQUESTS:
        return too_few(usable)
    as_logged = Cluster.of(cluster.engines, workload, names=log.instances)
    with mapper() as cores:
        return judged_as_logged(workspace, log, as_logged, sources.arms, propensity_of(log)[0], cores)


def _errors_of(sources: _Sources, cluster: CalibratedCluster) -> dict[str, Any]:
    """Replay the logged choices, and return the errors on the requests that fitted the engines and on the others."""
    log, workload = sources.log, sources.workload
    parts = {"fitted_part": training_part(log) & _comparable(log), "held_out": ~training_part(log) & _comparable(log)}
    if workload is None or not _comparable(log).any():
        return {part: {"requests": 0} for part in parts}
    quiet = [replace(engine, noise_ratio=0.0) for engine in cluster.engines]
    outcome = Cluster.of(quiet, workload).replay(forced=known_choices(log))
    tpot_ms = np.where(workload.output_tokens > 1, tpot_ms_of(log), np.nan)
    return {
        part: {
            "requests": int(judged.sum()),
            "ttft_ms": _errors(outcome.ttft_ms, log.ttft_ms, judged),
            "tpot_ms": _errors(outcome.tpot_ms, tpot_ms, judged),
        }
        for part, judged in parts.items()
    }


def _errors(replayed: Floats, logged: Floats, judged: Bools) -> dict[str, Any] | None:
    both = judged & (logged > 0) & np.isfinite(replayed)
    if not both.any():
        return None
    ours, theirs = replayed[both], logged[both]
    p50, p99 = (float(np.quantile(ours, q) / np.quantile(theirs, q) - 1) for q in (0.5, 0.99))
    return {
        "requests": int(both.sum()),
        "never": int((judged & (logged > 0) & ~np.isfinite(replayed)).sum()),
        "mean_error": float(ours.mean() / theirs.mean() - 1),
        "p50_error": p50,
        "p99_error": p99,
        "median_absolute_error": float(np.median(np.abs(ours / theirs - 1))),
    }
