"""Which engines a replay runs on: fitted to the log, taken from another, or a preset; then as the cluster says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from lodestar.data.errors import ConfigError
from lodestar.data.log import RequestLog, Workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.calibrate import calibrate, can_calibrate
from lodestar.pipeline.replay.calibration.files import calibrated_path, load_cluster
from lodestar.pipeline.replay.settings import Settings

__all__ = ["DEFAULT_ENGINE", "Engines", "engines_of"]

DEFAULT_INSTANCES: Final = 8
DEFAULT_ENGINE: Final = "h100-llama-3.1-8b"


@dataclass(frozen=True, slots=True)
class Engines:
    """Engines, and where they come from.

    Attributes:
        as_logged: one for each instance of the log, or of its source; at least one.
        draws: the same from draws of the data that they were fitted to; empty where that is not known.
        source: in words.
        fit: how the fit went, where there was one.
    """

    as_logged: list[EngineModel]
    draws: list[list[EngineModel]]
    source: str
    fit: dict[str, Any] | None

    def of(self, settings: Settings, instances: int) -> list[EngineModel]:
        """Return the engines of the cluster that is to be replayed."""
        return settings.cluster.engines(self.as_logged, instances)

    def drawn(self, settings: Settings, instances: int) -> list[list[EngineModel]]:
        """Return the same for every draw."""
        return [settings.cluster.engines(draw, instances) for draw in self.draws]

    def describe(self, log: RequestLog, settings: Settings, engines: list[EngineModel]) -> dict[str, Any]:
        """Say what the cluster is made of and where that came from."""
        logged = f"the log has {len(log.instances)}" if log.instances else "the log names none"
        named = settings.instances or settings.cluster.size
        return {
            "coefficients": engines[0].to_dict(),
            "kv_capacity_tokens": engines[0].kv_capacity_tokens,
            "source": self.source,
            "instances": f"named; {logged}" if named else logged if log.instances else f"default; {logged}",
            "alike": all(engine == engines[0] for engine in engines),
            "fit": self.fit,
        }


def engines_of(
    workspace: Workspace,
    log: RequestLog,
    workload: Workload,
    settings: Settings,
    progress: Callable[[int], None] | None = None,
) -> Engines:
    """Fit the engines to the log if that is possible and nothing else is named."""
    if settings.engine_from:
        found = _taken_from(workspace, settings.engine_from)
    elif settings.engine is None and can_calibrate(log):
        fit = calibrate(log, workload, progress, settings.seed)
        found = Engines(fit.engines, fit.draws, f"fitted to the latencies of {log.dataset}", fit.to_dict())
    else:
        name = settings.engine or DEFAULT_ENGINE
        found = Engines([EngineModel.preset(name)], [], f"preset {name}", None)
    if not settings.kv_capacity_tokens:
        return found
    size = settings.kv_capacity_tokens
    return replace(
        found,
        as_logged=[replace(engine, kv_capacity_tokens=size) for engine in found.as_logged],
        draws=[[replace(engine, kv_capacity_tokens=size) for engine in draw] for draw in found.draws],
    )


def _taken_from(workspace: Workspace, name: str) -> Engines:
    """Load what `lodestar calibrate` wrote for a dataset, or into a file."""
    path = calibrated_path(workspace, name)
    if not path.exists() and not Path(name).exists():
        raise ConfigError(
            f"--engine-from {name}: neither calibrated as a dataset nor a file; expected either. "
            f"Run lodestar calibrate {name}"
        )
    cluster = load_cluster(path if path.exists() else Path(name))
    verdict = cluster.fit.get("verdict")
    source = f"{cluster.source}, calibrated before" + (f" and {verdict} there" if verdict else "")
    return Engines(cluster.engines, cluster.draws, source, cluster.fit)
