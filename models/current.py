"""The models in use, on disk: a directory for each version, and one small file that names the current one.

The file is replaced in one step, after the version is complete: a process that is killed leaves the old models or the
new ones, never half of each.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lodestar.data.errors import ArtifactError
from lodestar.data.workspace import Workspace
from lodestar.models.latency import LatencyModel

__all__ = ["Trained", "load_current", "save_current"]

POINTER: Final = "current.json"
LOCK: Final = ".lock"  # stays empty
LOCK_TIMEOUT_S: Final = 60.0  # it is held for milliseconds


@dataclass(frozen=True, slots=True)
class Trained:
    """A model with its history.

    Attributes:
        model: fitted to the whole window.
        held_out: the same recipe fitted without the newest requests, from ``record["held_out_from"]`` on.
        record: parameters, seed, what was seen and how good `held_out` was on what it had not seen.
    """

    model: LatencyModel
    held_out: LatencyModel
    record: dict[str, Any]


def load_current(workspace: Workspace, dataset: str) -> dict[str, Trained]:
    """Return the current model of each target of a dataset; empty where none was trained."""
    home = workspace.models / dataset
    if not (home / POINTER).is_file():
        return {}
    try:
        return _read(home)
    except FileNotFoundError:
        # Another process may have replaced the version, and removed it, after the pointer was read.
        return _read_again(home)


def _read_again(home: Path) -> dict[str, Trained]:
    try:
        with _only_one(home):
            return _read(home)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{error.filename} is missing; expected the files of the current models. "
            f"Remove {home} and run: lodestar train {home.name}"
        ) from error


def _read(home: Path) -> dict[str, Trained]:
    directory = home / _current_version(home)
    records: dict[str, dict[str, Any]] = json.loads((directory / "records.json").read_text(encoding="utf-8"))
    return {
        target: Trained(
            LatencyModel.load(directory, target), LatencyModel.load(directory, f"{target}.held-out"), record
        )
        for target, record in records.items()
    }


def save_current(workspace: Workspace, dataset: str, trained: dict[str, Trained]) -> str:
    """Make these the current models, remove the versions before, and return the new one, named by its content.

    Of processes that save at the same time, the last one's models stay; none touches what another is still writing.
    """
    home = workspace.models / dataset
    home.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=home))
    try:
        _write(scratch, trained)
        version = _content_sha256(scratch)[:16]
        with _only_one(home):
            if not (home / version).exists():
                os.replace(scratch, home / version)
            _point(home, version)
            for old in _versions(home) - {version}:
                shutil.rmtree(home / old)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return version


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Keep other processes out; SQLite's lock works on every system, and ends with a process that is killed."""
    with contextlib.closing(sqlite3.connect(home / LOCK, timeout=LOCK_TIMEOUT_S, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def _current_version(home: Path) -> str:
    version: str = json.loads((home / POINTER).read_text(encoding="utf-8"))["version"]
    return version


def _versions(home: Path) -> set[str]:
    return {path.name for path in home.iterdir() if path.is_dir() and not path.name.startswith(".")}


def _write(directory: Path, trained: dict[str, Trained]) -> None:
    for target, entry in trained.items():
        entry.model.save(directory, target)
        entry.held_out.save(directory, f"{target}.held-out")
    records = {target: entry.record for target, entry in trained.items()}
    (directory / "records.json").write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


def _content_sha256(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _point(home: Path, version: str) -> None:
    scratch = home / f".{POINTER}.{os.getpid()}"
    scratch.write_text(json.dumps({"version": version}) + "\n", encoding="utf-8")
    os.replace(scratch, home / POINTER)
