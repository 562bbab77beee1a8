"""An artifact at any place as a directory to read from: a directory itself, a ``.tar``, or the URL of either."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lodestar.data.errors import ArtifactError
from lodestar.models.shipping.remote import download, is_url
from lodestar.models.shipping.tarball import unpack

__all__ = ["open_artifact"]


@contextlib.contextmanager
def open_artifact(place: str | Path) -> Iterator[Path]:
    """Yield the directory with the files of an artifact; what had to be unpacked or fetched is gone afterwards.

    Nothing is verified yet but that a tar or a URL holds plain files, and no more than an artifact has.

    Raises:
        ArtifactError: there is nothing at the place, or it is not an artifact's tar.
        ConfigError: a URL cannot be reached, or its driver is not installed.

    >>> with open_artifact("nowhere.tar"):
    ...     pass
    Traceback (most recent call last):
    lodestar.data.errors.ArtifactError: nowhere.tar is missing; expected an artifact that `lodestar ship` wrote. ...
    """
    local = None if is_url(place) else Path(place)
    if local is not None and local.is_dir():
        yield local
        return
    if local is not None and not local.exists():
        raise ArtifactError(f"{place} is missing; expected an artifact that `lodestar ship` wrote. Name its place")
    with tempfile.TemporaryDirectory(prefix="lodestar-artifact-") as scratch:
        with _named(scratch, place):
            directory = _fetched(str(place), Path(scratch)) if local is None else _unpacked(local, Path(scratch))
        with _named(str(directory), place):
            yield directory


@contextlib.contextmanager
def _named(scratch: str, place: str | Path) -> Iterator[None]:
    """Let errors about the files in `scratch` name the place that they came from."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(scratch, str(place))) from error


def _fetched(url: str, scratch: Path) -> Path:
    into = scratch / "fetched"
    into.mkdir()
    found = download(url, into)
    return found if found.is_dir() else _unpacked(found, scratch)


def _unpacked(tar_file: Path, scratch: Path) -> Path:
    into = scratch / "files"
    into.mkdir()
    unpack(tar_file, into)
    return into
