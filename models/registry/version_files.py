"""The files of a dataset's models: a directory for each version, and the index, which is replaced in one step."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lodestar.data.errors import ArtifactError
from lodestar.models.latency import LatencyModel
from lodestar.models.registry.version_index import Index, kept

__all__ = ["INDEX", "Trained", "add_version", "change_index", "load_models", "read_index_at", "require_whole"]

INDEX: Final = "index.json"
OLD_POINTER: Final = "current.json"  # of versions of lodestar that kept no history
LOCK: Final = ".lock"  # stays empty
LOCK_TIMEOUT_S: Final = 60.0  # it is held for milliseconds
ABANDONED_S: Final = 86_400.0  # what a killed process was writing is removed after a day
NAME_DIGITS: Final = 12  # hexadecimal ones, of the hash of a version's content


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


def load_models(home: Path, choose: Callable[[Index], Mapping[str, str]]) -> dict[str, Trained]:
    """Return the model of each target in the version that `choose` finds for it in the index."""
    try:
        return _read(home, choose(read_index_at(home)))
    except (FileNotFoundError, ArtifactError):
        # Another process may have replaced the index, and be removing the version, after it was read.
        return _load_again(home, choose)


def read_index_at(home: Path) -> Index:
    """Return the index; an empty one where nothing was trained.

    Raises:
        ArtifactError: the models are of a version of lodestar that kept no index.
    """
    path = home / INDEX
    if path.is_file():
        return Index.from_dict(json.loads(path.read_text(encoding="utf-8")))
    if (home / OLD_POINTER).is_file():
        raise ArtifactError(
            f"{home} holds models of an earlier version of lodestar, which this one cannot read; expected {INDEX}. "
            f"Remove the directory and run: lodestar train {home.name}"
        )
    return Index()


def add_version(home: Path, trained: Mapping[str, Trained], changed: Callable[[Index, str], Index]) -> str:
    """Write a version, then the index that `changed` makes of the old one and its name; return the name.

    Of processes that do so at the same time, none touches what another is still writing.
    """
    home.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=home))
    try:
        _write(scratch, trained)
        version = _content_sha256(scratch)[:NAME_DIGITS]
        with _only_one(home):
            if not (home / version).exists():
                os.replace(scratch, home / version)
            _replace_index(home, lambda index: changed(index, version))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return version


def change_index(home: Path, changed: Callable[[Index], Index]) -> Index:
    """Replace the index by what `changed` makes of it, while no other process does, and return it."""
    with _only_one(home):
        return _replace_index(home, changed)


def _replace_index(home: Path, changed: Callable[[Index], Index]) -> Index:
    """Put the new index in place, if it differs; then remove the versions that it does not name."""
    before = read_index_at(home)
    after = kept(changed(before))
    if after != before:
        scratch = home / f".{INDEX}.{os.getpid()}"
        scratch.write_text(json.dumps(after.to_dict(), indent=1) + "\n", encoding="utf-8")
        os.replace(scratch, home / INDEX)
    named = {entry["version"] for entry in after.versions}
    for path in [path for path in home.iterdir() if path.is_dir()]:
        hidden = path.name.startswith(".")
        if _abandoned(path) if hidden else path.name not in named:
            shutil.rmtree(path, ignore_errors=hidden)
    return after


def _abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_S
    except FileNotFoundError:  # another process has just finished writing it
        return False


def _load_again(home: Path, choose: Callable[[Index], Mapping[str, str]]) -> dict[str, Trained]:
    try:
        with _only_one(home):
            return _read(home, choose(read_index_at(home)))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{error.filename} is missing; expected the files of a model. "
            f"Remove {home} and run: lodestar train {home.name}"
        ) from error


def require_whole(directory: Path) -> None:
    """Refuse a version whose files are not those that it was named by."""
    if not directory.is_dir():
        raise FileNotFoundError(2, "no such version", str(directory))
    if _content_sha256(directory)[:NAME_DIGITS] != directory.name:
        dataset = directory.parent.name
        raise ArtifactError(
            f"{directory} was changed after it was written; expected the files whose hash it is named by. Put another "
            f"version in use: lodestar models rollback {dataset}, or train again: lodestar train {dataset}"
        )


def _read(home: Path, versions: Mapping[str, str]) -> dict[str, Trained]:
    for version in sorted(set(versions.values())):
        require_whole(home / version)
    return {target: _read_target(home / version, target) for target, version in versions.items()}


def _read_target(directory: Path, target: str) -> Trained:
    record: dict[str, Any] = json.loads((directory / "records.json").read_text(encoding="utf-8"))[target]
    return Trained(LatencyModel.load(directory, target), LatencyModel.load(directory, f"{target}.held-out"), record)


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Keep other processes out; SQLite's lock works on every system, and ends with a process that is killed."""
    with contextlib.closing(sqlite3.connect(home / LOCK, timeout=LOCK_TIMEOUT_S, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def _write(directory: Path, trained: Mapping[str, Trained]) -> None:
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
