"""Putting an artifact in its place: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.models.seal import MANIFEST, sealed
from lodestar.models.shipping.opened import open_artifact
from lodestar.models.shipping.remote import is_url, remote_names, upload_file, upload_folder
from lodestar.models.shipping.tarball import pack

__all__ = ["put_in_place", "require_replaceable", "scratch_for"]


def require_replaceable(place: str | Path) -> None:
    """Refuse a place that holds anything but an artifact.

    Raises:
        ConfigError: there is something else, or the place cannot be reached.
    """
    if is_url(place):
        _require_replaceable_url(str(place))
    elif _is_tar(place):
        _require_replaceable_tar(Path(place))
    else:
        _require_replaceable_directory(Path(place))


@contextlib.contextmanager
def scratch_for(place: str | Path) -> Iterator[Path]:
    """Yield an empty directory, beside a local place so that a rename is all it takes, and remove it afterwards."""
    if is_url(place):
        scratch = Path(tempfile.mkdtemp(prefix="lodestar-"))
    else:
        to = Path(place)
        to.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def put_in_place(scratch: Path, place: str | Path) -> None:
    """Move the artifact in `scratch` to a directory, a ``.tar``, or the URL of either, and replace what is there."""
    if not _is_tar(place):
        upload_folder(scratch, str(place)) if is_url(place) else _swap(scratch, Path(place))
        return
    packed = scratch.with_name(f"{scratch.name}.tar")
    try:
        pack(scratch, packed)
        upload_file(packed, str(place)) if is_url(place) else os.replace(packed, place)
    finally:
        packed.unlink(missing_ok=True)


def _is_tar(place: str | Path) -> bool:
    return str(place).endswith(".tar")


def _swap(scratch: Path, to: Path) -> None:
    """Move the old artifact aside and the new one in, and only then delete the old; put it back if that fails.

    No portable call swaps two directories: between the two renames, for microseconds, there is nothing at `to`, and a
    router that loads just then has to try again. Half an artifact is never there. A process killed at that moment
    leaves the old one beside it, in ``.<name>-old-…``.
    """
    scratch.chmod(0o755)  # a temporary directory is private to its user
    if not to.exists():
        scratch.rename(to)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{to.name}-old-", dir=to.parent))
    to.rename(aside / to.name)
    try:
        scratch.rename(to)
    except BaseException:
        (aside / to.name).rename(to)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def _require_replaceable_directory(to: Path) -> None:
    if to.exists() and not to.is_dir():
        raise ConfigError(f"{to} is a file; expected a directory, a name that ends in .tar, or nothing. Name another")
    if to.is_dir() and any(to.iterdir()) and not sealed(to):
        raise ConfigError(f"{to} holds files that are no artifact; expected an artifact or nothing. Name another one")


def _require_replaceable_tar(to: Path) -> None:
    if to.is_dir():
        raise ConfigError(f"{to} is a directory; expected a file that ends in .tar, or nothing. Name another one")
    if to.exists():
        _require_artifact(to)


def _require_replaceable_url(url: str) -> None:
    names = remote_names(url)
    if names is None and not _is_tar(url):
        raise ConfigError(f"{url} is a file; expected a folder, a name that ends in .tar, or nothing. Name another one")
    if names and _is_tar(url):
        raise ConfigError(f"{url} is a folder; expected a file that ends in .tar, or nothing. Name another one")
    if names and MANIFEST not in names:
        raise ConfigError(f"{url} holds files that are no artifact; expected an artifact or nothing. Name another one")
    if names is None:
        _require_artifact(url)


def _require_artifact(place: str | Path) -> None:
    try:
        with open_artifact(place) as directory:
            there = sealed(directory)
    except ArtifactError:
        there = False
    if not there:
        raise ConfigError(f"{place} is no artifact; expected an artifact or nothing there. Name another one")
