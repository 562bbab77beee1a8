"""What an incremental training remembers of a dataset: one file in the workspace, replaced in one step.

A process that is killed leaves the file as it was or as it is to be, so the next one does again what was not finished.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sqlite3
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from lodestar.data.errors import ArtifactError
from lodestar.data.seen import Seen
from lodestar.data.workspace import Workspace
from lodestar.models.latency import LatencyModel
from lodestar.models.refresh.choice import Choice
from lodestar.models.refresh.recent import Recent
from lodestar.models.registry.current import Trained
from lodestar.models.uncertainty.in_flight import InFlight

_LOGGER = logging.getLogger(__name__)

__all__ = ["Chain", "State", "load_state", "only_one", "save_state"]

FORMAT: Final = 2
TELL_AFTER_S: Final = 3.0
STATE: Final = "state.json"
IN_FLIGHT: Final = "in-flight/"


@dataclass(frozen=True, slots=True)
class Chain:
    """The newest model of a target, which goes on learning whether or not the gate puts it in use.

    Attributes:
        trained: it, its twin without the newest rows, and what it has learned from.
        before: models before it that decisions may still have been made by, oldest first, each with its
            `known_from_s`.
        known_from_s: when the last outcome that it learned from was known; decisions before were made by those models.
        recent: newest rows.
        is_champion: whether it is what is in use.
        updates: how many times it learned.
        batches: how many batches it was scored on.
        choice: last measured choice between the strategies.
        listens_from: number of the first request that tells of drift; earlier ones led to a reset.
        in_flight: rows whose outcome was not known at the last decision: the calibration learns each once it is.
        beside: hash of the champion that it last stood beside; empty where there was none.
    """

    trained: Trained
    before: tuple[tuple[float, LatencyModel], ...]
    known_from_s: float
    recent: Recent
    is_champion: bool
    updates: int = 0
    batches: int = 0
    choice: Choice | None = None
    listens_from: int = 0
    in_flight: InFlight = field(default_factory=InFlight.none)
    beside: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """A dataset as far as incremental training has come.

    Attributes:
        seen: target → what its chain has seen of the store.
        nature: of the log, see `TrainingData`.
        chains: target → its chain.
    """

    seen: dict[str, Seen]
    nature: tuple[str, ...]
    chains: dict[str, Chain]


def load_state(workspace: Workspace, dataset: str) -> State | None:
    """Return what was remembered; None where nothing was."""
    path = _path(workspace, dataset)
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return _read({name: archive.read(name) for name in archive.namelist()})
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}); expected what --incremental wrote. Remove it: the next run reads all"
        ) from error


def save_state(workspace: Workspace, dataset: str, state: State) -> None:
    """Remember it, in one step."""
    path = _path(workspace, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED) as archive:
            for name, content in _files(state).items():
                archive.writestr(
                    zipfile.ZipInfo(name), content
                )  # without the time, so that equal states are equal bytes
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def only_one(workspace: Workspace, dataset: str, wait: bool = False) -> Iterator[bool]:
    """Yield whether this process is the only one at work; SQLite's lock ends with a process that is killed.

    Args:
        workspace: where.
        dataset: that is worked on.
        wait: until the others have ended, for as long as that takes; after some seconds it says so in the log.
    """
    path = _path(workspace, dataset).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path, timeout=TELL_AFTER_S if wait else 0.0, isolation_level=None)) as lock:
        alone = _locked(lock)
        if wait and not alone:
            _LOGGER.warning("another training of dataset %r is at work: waiting until it ends", dataset)
        while wait and not alone:
            alone = _locked(lock)
        yield alone


def _locked(lock: sqlite3.Connection) -> bool:
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _path(workspace: Workspace, dataset: str) -> Path:
    return workspace.home / "refresh" / f"{dataset}.zip"


def _files(state: State) -> dict[str, bytes]:
    about = {
        "format": FORMAT,
        "seen": {target: seen.to_dict() for target, seen in state.seen.items()},
        "nature": list(state.nature),
        "chains": {target: _about(chain) for target, chain in state.chains.items()},
    }
    files = {STATE: json.dumps(about).encode()}
    for target, chain in state.chains.items():
        for who, model in _models(chain).items():
            files |= {f"{target}/{who}.{name}.txt": text.encode() for name, text in model.texts().items()}
        for name, column in chain.recent.arrays().items():
            files[f"{target}/{name}.npy"] = _bytes(column)
        for name, column in chain.in_flight.arrays().items():
            files[f"{target}/{IN_FLIGHT}{name}.npy"] = _bytes(column)
    return files


def _about(chain: Chain) -> dict[str, Any]:
    return {
        "models": {who: model.to_dict() for who, model in _models(chain).items()},
        "record": chain.trained.record,
        "known_from_s": chain.known_from_s,
        "before_from_s": [from_s for from_s, _ in chain.before],
        "requests": chain.recent.rows.requests,
        "excluded": {why: at.tolist() for why, at in chain.recent.rows.excluded.items()},
        "is_champion": chain.is_champion,
        "updates": chain.updates,
        "batches": chain.batches,
        "choice": chain.choice.to_dict() if chain.choice else None,
        "listens_from": chain.listens_from,
        "beside": chain.beside,
    }


def _models(chain: Chain) -> dict[str, LatencyModel]:
    before = {f"before-{k}": model for k, (_, model) in enumerate(chain.before)}
    return {"model": chain.trained.model, "held-out": chain.trained.held_out} | before


def _read(files: Mapping[str, bytes]) -> State:
    about = json.loads(files[STATE])
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']}")
    chains = {target: _chain(values, files, f"{target}/") for target, values in about["chains"].items()}
    seen = {target: Seen.from_dict(values) for target, values in about["seen"].items()}
    return State(seen, tuple(about["nature"]), chains)


def _chain(values: dict[str, Any], files: Mapping[str, bytes], folder: str) -> Chain:
    arrays = {
        name.removeprefix(folder).removesuffix(".npy"): np.load(io.BytesIO(content), allow_pickle=False)
        for name, content in files.items()
        if name.startswith(folder) and name.endswith(".npy")
    }
    models = {who: _model(model, files, f"{folder}{who}.") for who, model in values["models"].items()}
    return Chain(
        trained=Trained(models["model"], models["held-out"], values["record"]),
        before=tuple((from_s, models[f"before-{k}"]) for k, from_s in enumerate(values["before_from_s"])),
        known_from_s=values["known_from_s"],
        recent=Recent.from_arrays(arrays, values["requests"], values["excluded"]),
        is_champion=values["is_champion"],
        updates=values["updates"],
        batches=values["batches"],
        choice=Choice(**values["choice"]) if values["choice"] else None,
        listens_from=values["listens_from"],
        in_flight=InFlight.from_arrays(
            {name.removeprefix(IN_FLIGHT): column for name, column in arrays.items() if name.startswith(IN_FLIGHT)}
        ),
        beside=values["beside"],
    )


def _model(values: dict[str, Any], files: Mapping[str, bytes], stem: str) -> LatencyModel:
    texts = {name: files[f"{stem}{name}.txt"].decode() for name in ("", *values["heads"])}
    return LatencyModel.from_dict(values, texts)


def _bytes(column: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    out = io.BytesIO()
    np.save(out, column, allow_pickle=False)
    return out.getvalue()
