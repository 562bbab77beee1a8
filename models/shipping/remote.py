"""Object stores and other places with a URL, through fsspec: ``s3://``, ``gs://``, ``file://``, ``memory://``.

Nothing is read from a place that is half written: a file gets its name when it is whole, and in a folder the manifest
is taken away first and comes back last.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lodestar.data.errors import ArtifactError, ConfigError, LodestarError, unknown
from lodestar.models.seal import MANIFEST
from lodestar.models.shipping.tarball import MAX_BYTES, MAX_FILES, plain_name

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["download", "is_url", "remote_names", "upload_file", "upload_folder"]

_BLOCK_BYTES: Final = 1 << 20


def is_url(place: str | Path) -> bool:
    """Say whether a place has a scheme.

    >>> is_url("s3://bucket/x.tar"), is_url("./x.tar")
    (True, False)
    """
    return "://" in str(place)


def upload_file(file: Path, url: str) -> None:
    """Write one file to a URL: under another name first, read back, then moved, so that no reader sees half of it."""
    with _at(url) as (fs, path):
        folder, _, name = path.rpartition("/")
        scratch = f"{folder}/.{name}.{secrets.token_hex(6)}.uploading"
        try:
            fs.put_file(str(file), scratch)
            _require_arrived(fs, scratch, file, url)
            fs.mv(scratch, path)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell of
                fs.rm_file(scratch)
            raise


def upload_folder(directory: Path, url: str) -> None:
    """Write the files of an artifact below a URL; the old manifest goes first, and the new one comes last.

    In between there is no artifact, and a reader is told so; one ``.tar`` has no such moment.
    """
    with _at(url) as (fs, path):
        old = _listed(fs, path, url)
        if MANIFEST in old:
            fs.rm_file(f"{path}/{MANIFEST}")
        new = {file.name: file for file in directory.iterdir() if file.name != MANIFEST}
        for name in sorted(set(old) - set(new) - {MANIFEST}):
            fs.rm_file(f"{path}/{name}")
        for name, file in sorted(new.items()):
            fs.put_file(str(file), f"{path}/{name}")
            _require_arrived(fs, f"{path}/{name}", file, url)
    upload_file(directory / MANIFEST, f"{url.rstrip('/')}/{MANIFEST}")


def remote_names(url: str) -> list[str] | None:
    """Return the names below a URL; empty where nothing is there, None where the URL is one file."""
    with _at(url) as (fs, path):
        return None if fs.isfile(path) else sorted(_listed(fs, path, url))


def download(url: str, directory: Path) -> Path:
    """Copy what is at a URL into an empty directory; return the file, or the directory if the URL is a folder.

    Raises:
        ArtifactError: nothing is there, or more than an artifact has.
        ConfigError: it cannot be reached.
    """
    with _at(url) as (fs, path):
        if fs.isfile(path):
            _fetch(fs, path, directory / "artifact.tar", MAX_BYTES, url)
            return directory / "artifact.tar"
        sizes = _listed(fs, path, url)
        if not sizes:
            raise ArtifactError(f"{url} is missing; expected an artifact that `lodestar ship` wrote. Name its place")
        left_bytes = MAX_BYTES
        for name in sizes:
            left_bytes -= _fetch(fs, f"{path}/{name}", directory / name, left_bytes, url)
    return directory


@contextlib.contextmanager
def _at(url: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """Yield the file system behind a URL and the path in it; what goes wrong there is one line that names the URL."""
    fs, path = _file_system(url)
    try:
        yield fs, path
    except LodestarError:
        raise
    except Exception as error:  # every driver has errors of its own: no credentials, no bucket, no network
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{url} cannot be used ({said}); expected a place that can be read and written with the credentials that "
            "are set. Check both"
        ) from error


def _file_system(url: str) -> tuple[AbstractFileSystem, str]:
    import fsspec
    from fsspec.registry import known_implementations

    protocol = url.partition("://")[0]
    schemes = {*known_implementations, *fsspec.registry}
    if protocol not in schemes:
        raise unknown("scheme", protocol, schemes)
    options = {"auto_mkdir": True} if protocol in ("file", "local") else {}
    try:
        fs, path = fsspec.url_to_fs(url, **options)
    except ImportError as error:
        package = _package(known_implementations[protocol]["class"], error)
        raise ConfigError(
            f"{url}: {protocol}:// needs the package {package}, which is not installed; expected it beside lodestar. "
            f"Run: pip install {package}"
        ) from error
    fs.invalidate_cache()  # a process that lives long must see what was shipped meanwhile
    return fs, path.rstrip("/")


def _package(implementation: str, error: ImportError) -> str:
    """Name the package that a scheme needs: the one that holds its class, or what fsspec's own class misses."""
    own = implementation.partition(".")[0]
    missing = error.__cause__.name if isinstance(error.__cause__, ImportError) else error.name
    return str(missing or implementation) if own == "fsspec" else own


def _listed(fs: AbstractFileSystem, path: str, url: str) -> dict[str, int]:
    """Return the files of a folder with their bytes; empty where there is none."""
    try:
        entries: list[dict[str, Any]] = fs.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    files = {
        entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in entries if entry["name"].rstrip("/") != path
    }
    unfit = [name for name, entry in files.items() if entry["type"] != "file" or not plain_name(name)]
    unfit = [name for name in unfit if not name.endswith(".uploading")]
    if unfit or len(files) > MAX_FILES:
        what = repr(unfit[0]) if unfit else f"more than {MAX_FILES} files"
        raise ArtifactError(f"{url} holds {what}; expected the plain files of an artifact. Name another place")
    return {name: int(entry["size"] or 0) for name, entry in sorted(files.items()) if plain_name(name)}


def _fetch(fs: AbstractFileSystem, path: str, to: Path, at_most_bytes: int, url: str) -> int:
    """Copy a file block by block, whatever size the store states, and return its bytes."""
    copied = 0
    with fs.open(path, "rb") as source, to.open("xb") as target:
        while block := source.read(_BLOCK_BYTES):
            copied += len(block)
            if copied > at_most_bytes:
                raise ArtifactError(
                    f"{url} has more than {MAX_BYTES >> 20} MiB; expected an artifact. Name another place"
                )
            target.write(block)
    return copied


def _require_arrived(fs: AbstractFileSystem, path: str, file: Path, url: str) -> None:
    """Read back what was written: a store that cut it short, or changed it, is found out before a router reads it."""
    arrived = hashlib.sha256()
    with fs.open(path, "rb") as source:
        while block := source.read(_BLOCK_BYTES):
            arrived.update(block)
    if arrived.digest() != hashlib.sha256(file.read_bytes()).digest():
        raise ArtifactError(f"{url}: {file.name} did not arrive as it was written; expected the same bytes. Try again")
