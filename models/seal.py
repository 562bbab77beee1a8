"""Tamper evidence: a manifest that holds the hash of every file beside it, and its own."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

from lodestar.data.errors import ArtifactError

__all__ = ["MANIFEST", "SCHEMA_VERSION", "read_sealed", "sealed", "verify_files", "write_manifest"]

MANIFEST: Final = "manifest.json"
SCHEMA_VERSION: Final = 3
_BLANK: Final = "0" * 64
_OWN: Final = re.compile(r'"manifest_sha256": "([0-9a-f]{64})"')


def write_manifest(directory: Path, manifest: dict[str, Any]) -> str:
    """Write the manifest with the hashes of the files that are in `directory` now, and of itself; return its own."""
    files = {path.name: _sha256(path.read_bytes()) for path in sorted(directory.iterdir())}
    text = json.dumps({**manifest, "sha256": files, "manifest_sha256": _BLANK}, indent=2, allow_nan=False) + "\n"
    own = _sha256(text.encode())
    (directory / MANIFEST).write_bytes(_signed(text, own).encode())
    return own


def read_sealed(directory: Path) -> dict[str, Any]:
    """Return the manifest, after checking that none of its bytes has changed and that this version can read it."""
    path = directory / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; expected an artifact that `lodestar ship` wrote. Name its directory")
    content = path.read_bytes()
    text = content.decode("utf-8", errors="replace")
    own = _OWN.findall(text)
    if len(own) != 1 or text.encode() != content or _sha256(_signed(text, _BLANK).encode()) != own[0]:
        raise ArtifactError(f"{path} was changed after it was written; its hash does not fit. Ship it again")
    manifest: dict[str, Any] = json.loads(text)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema version {manifest.get('schema_version')!r}; expected {SCHEMA_VERSION}. "
            "Ship it again with this version of lodestar"
        )
    return manifest


def sealed(directory: Path) -> bool:
    """Say whether `directory` looks like an artifact, damaged or not."""
    path = directory / MANIFEST
    return path.is_file() and "manifest_sha256" in path.read_text(encoding="utf-8", errors="replace")


def verify_files(directory: Path, expected: dict[str, str]) -> None:
    """Check that exactly the files of the manifest are there, unchanged."""
    present = {path.name for path in directory.iterdir()} - {MANIFEST}
    for name in sorted(expected):
        if name not in present:
            raise ArtifactError(f"{directory / name} is missing; the manifest lists it. Ship it again")
        if _sha256((directory / name).read_bytes()) != expected[name]:
            raise ArtifactError(
                f"{directory / name} was changed after it was written; its hash does not fit. Ship it again"
            )
    for name in sorted(present - set(expected)):
        raise ArtifactError(f"{directory / name} is not in the manifest; expected no other file. Remove it")


def _signed(text: str, digest: str) -> str:
    return _OWN.sub(f'"manifest_sha256": "{digest}"', text)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
