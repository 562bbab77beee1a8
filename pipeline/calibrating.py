"""Calibrate a dataset's cluster from whatever it holds, keep it in the workspace, and say how well it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog, Workload
from lodestar.data.reconstruction.arms import arms_of
from lodestar.data.reconstruction.reconstruct import tpot_ms_of, workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel, presets
from lodestar.models.step_profile import fit_profile, read_profile
from lodestar.pipeline.replay.calibration.calibrate import FEWEST_REQUESTS, calibrate
from lodestar.pipeline.replay.calibration.files import CalibratedCluster, calibrated_path, save_cluster
from lodestar.pipeline.replay.calibration.forced import known_choices
from lodestar.pipeline.replay.calibration.statistics import FEWEST_ROWS, StatisticsFit, fit_statistics
from lodestar.pipeline.replay.calibration.stretch import training_part
from lodestar.pipeline.replay.cluster import Cluster

__all__ = ["DEFAULT_ENGINE", "calibrate_dataset"]

Floats = NDArray[np.float64]

DEFAULT_ENGINE: Final = "h100-llama-3.1-8b"
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Sources:
    """What there is to calibrate from."""

    log: RequestLog
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
    preset. A profile, or the preset named by `engine`, is also where a fit to latencies starts from, and what it stays
    near where they do not tell; either gives statistics what they cannot tell.
    """
    sources = _sources(workspace, dataset, profile, engine)
    cluster = _best(sources, seed, progress)
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
        "held_out": _held_out(sources, cluster),
        "files": [str(path), *([str(to)] if to else [])],
    }


def _sources(workspace: Workspace, dataset: str, profile: Path | None, engine: str | None) -> _Sources:
    with open_store(workspace) as con:
        log = load_log(con, dataset)
        arms = arms_of(con, log, [])
        samples: pl.DataFrame = con.sql("SELECT * FROM engine_samples WHERE dataset = ?", params=[dataset]).pl()
    workload, why = None, ""
    try:
        workload = workload_of(log, arms=arms)
    except DataError as error:
        why = str(error)
    base = EngineModel.preset(engine or DEFAULT_ENGINE)
    fitted = _from_profile(log, profile, base) if profile else None
    return _Sources(log, workload, why, samples, fitted.engine if fitted else base, bool(engine), fitted)


def _best(sources: _Sources, seed: int, progress: Progress | None) -> CalibratedCluster:
    """Calibrate from the first source that suffices, and say why those before it did not."""
    found, why = _from_latencies(sources, seed, progress)
    if found is None:
        found, reason = _from_statistics(sources, seed)
        why.append(reason)
    if found is None:
        found = sources.profile
    if found is None:
        why.append("no --profile is named")
        name = f"the preset {_preset_name(sources.base)}"
        found = _alike(sources.log, name, sources.base, (), {"notes": [], "identified": {}})
    notes = [*(f"not from {reason}" for reason in why if reason), *found.fit["notes"]]
    return replace(found, fit={**found.fit, "notes": notes})


def _from_latencies(
    sources: _Sources, seed: int, progress: Progress | None
) -> tuple[CalibratedCluster | None, list[str]]:
    log, workload = sources.log, sources.workload
    known = (log.chosen >= 0) | (len(log.instances) <= 1)
    usable = int((training_part(log) & known & (log.ttft_ms > 0)).sum())
    if usable < FEWEST_REQUESTS:
        return None, [f"latencies: {usable} of known instances in the training part, expected {FEWEST_REQUESTS}"]
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


def _held_out(sources: _Sources, cluster: CalibratedCluster) -> dict[str, Any]:
    """Replay the logged choices, and return the errors on the requests that did not fit the engines."""
    log, workload = sources.log, sources.workload
    known = (log.chosen >= 0) | (len(log.instances) <= 1)
    judged = ~training_part(log) & known & (log.ttft_ms > 0)
    if workload is None or not judged.any():
        return {"requests": 0}
    quiet = [replace(engine, noise_ratio=0.0) for engine in cluster.engines]
    outcome = Cluster.of(quiet, workload).replay(forced=known_choices(log))
    tpot_ms = np.where(workload.output_tokens > 1, tpot_ms_of(log), np.nan)
    return {
        "requests": int(judged.sum()),
        "ttft_ms": _errors(outcome.ttft_ms, log.ttft_ms, judged),
        "tpot_ms": _errors(outcome.tpot_ms, tpot_ms, judged),
    }


def _errors(replayed: Floats, logged: Floats, judged: NDArray[np.bool_]) -> dict[str, Any] | None:
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
