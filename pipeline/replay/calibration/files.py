"""A calibrated cluster as a file: what a replay loads, and a person can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from lodestar.data.errors import ConfigError
from lodestar.data.log import RequestLog
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel

__all__ = ["CalibratedCluster", "calibrated_engines", "calibrated_path", "engine_from", "load_cluster", "save_cluster"]

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class CalibratedCluster:
    """The engines of a cluster, with where they are from and how sure that is.

    Attributes:
        dataset: whose log they were fitted to.
        source: what of it told them.
        instances: names.
        engine: the typical instance's.
        engines: one for each instance.
        draws: the same from draws of the data; empty where the source has no uncertainty.
        fit: how the fit went.
    """

    dataset: str
    source: str
    instances: list[str]
    engine: EngineModel
    engines: list[EngineModel]
    draws: list[list[EngineModel]]
    fit: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            "lodestar_cluster": VERSION,
            "dataset": self.dataset,
            "source": self.source,
            "engine": self.engine.to_dict(),
            "instances": [
                {"instance": name, "engine": engine.to_dict()}
                for name, engine in zip(self.instances, self.engines, strict=True)
            ],
            "fit": self.fit,
            "draws": [[engine.to_dict() for engine in draw] for draw in self.draws],
        }


def calibrated_path(workspace: Workspace, dataset: str) -> Path:
    """Return where a workspace keeps the calibrated cluster of a dataset.

    >>> calibrated_path(Workspace(Path("w")), "mine").as_posix()
    'w/clusters/mine.json'
    """
    return workspace.home / "clusters" / f"{dataset}.json"


def calibrated_engines(workspace: Workspace, log: RequestLog) -> list[EngineModel] | None:
    """Return the calibrated engines of a log's instances, in its order; None where there are none."""
    path = calibrated_path(workspace, log.dataset)
    if not path.exists():
        return None
    cluster = load_cluster(path)
    engine_of = dict(zip(cluster.instances, cluster.engines, strict=True))
    return [engine_of[name] for name in log.instances] if set(log.instances) <= set(engine_of) else None


def save_cluster(path: Path, cluster: CalibratedCluster) -> None:
    """Write a calibrated cluster."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(cluster.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a file that can be written. Name another one") from error


def load_cluster(path: Path) -> CalibratedCluster:
    """Read a calibrated cluster.

    Raises:
        ConfigError: in one line, why the file is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a calibrated cluster. Run lodestar calibrate") from error
    except ValueError as error:
        raise ConfigError(f"{path}: no JSON ({error}); expected what lodestar calibrate writes") from error
    if not isinstance(found, dict) or found.get("lodestar_cluster") != VERSION:
        version = found.get("lodestar_cluster") if isinstance(found, dict) else None
        raise ConfigError(f"{path}: lodestar_cluster is {version!r}; expected {VERSION}. Run lodestar calibrate again")
    try:
        return CalibratedCluster(
            dataset=found["dataset"],
            source=found["source"],
            instances=[each["instance"] for each in found["instances"]],
            engine=engine_from(found["engine"], str(path)),
            engines=[engine_from(each["engine"], str(path)) for each in found["instances"]],
            draws=[[engine_from(each, str(path)) for each in draw] for draw in found["draws"]],
            fit=found["fit"],
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: {error} is missing or of another kind; expected what lodestar calibrate writes. Run it again"
        ) from error


def engine_from(settings: Mapping[str, Any], where: str = "engine") -> EngineModel:
    """Make an engine of its settings by name.

    >>> engine_from(EngineModel().to_dict()) == EngineModel()
    True
    """
    known = {field.name for field in fields(EngineModel)}
    strange = sorted(set(settings) - known)
    if strange:
        raise ConfigError(f"{where}: unknown engine settings {', '.join(strange)}; expected some of {sorted(known)}")
    return EngineModel(**settings)
