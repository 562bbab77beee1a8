"""Telling whether a file is the one it should be: its length, its hash, and the hash of the first download."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lodestar.data.errors import DataError
from lodestar.data.traces.catalogue import SHA256, Trace

__all__ = ["Expected", "expected_of", "hash_of", "is_stand_in", "record"]

# What servers send in place of a file: a page that asks to log in, or a pointer to where Git LFS keeps it.
STAND_INS: Final = (b"<!doctype html", b"<html", b"version https://git-lfs")


@dataclass(frozen=True, slots=True)
class Expected:
    """The hash a file must have, and who says so: the catalogue, or the record of the first download."""

    sha256: str
    by: str


def expected_of(trace: Trace, path: Path) -> Expected | None:
    """Return the hash that the file at `path` must have; None where none is known yet."""
    if trace.sha256:
        return Expected(trace.sha256, "the catalogue")
    recorded = record_of(path)
    if not recorded.exists():
        return None
    sha256 = recorded.read_text(encoding="utf-8", errors="replace").partition(" ")[0]
    if not SHA256.fullmatch(sha256):
        raise DataError(f"{recorded}: {sha256[:20]!r} is no SHA-256; expected 64 hexadecimal digits. Delete the file")
    return Expected(sha256, f"the first download ({recorded.name})")


def record(path: Path, sha256: str) -> None:
    """Write down the hash of a file beside it, as sha256sum does, so that later downloads must match."""
    new = path.with_name(f"{path.name}.sha256.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(f"{sha256}  {path.name}\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(record_of(path))


def record_of(path: Path) -> Path:
    """Return where the hash of a file is written down.

    >>> record_of(Path("trace.csv")).name
    'trace.csv.sha256'
    """
    return path.with_name(f"{path.name}.sha256")


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_stand_in(path: Path) -> bool:
    """Tell by its beginning whether a file is a web page or a pointer instead of a trace."""
    with path.open("rb") as file:
        return file.read(64).lstrip().lower().startswith(STAND_INS)
