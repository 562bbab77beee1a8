"""An artifact as one ``.tar``: the same content makes the same bytes, and nothing but plain files comes out of one.

A tar from elsewhere is not trusted: a name with a folder in it, a link, a device, the same name twice, more files or
bytes than any artifact has, or a compressed archive (whose bytes do not tell how much comes out) is refused before
anything of it is written.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import IO, Final

from lodestar.data.errors import ArtifactError

__all__ = ["MAX_BYTES", "MAX_FILES", "pack", "plain_name", "unpack"]

MAX_BYTES: Final = 256 << 20  # of all files; three models of 1,000 trees of 63 leaves take 20 MiB
MAX_FILES: Final = 1000
_MODE: Final = 0o644
_BLOCK_BYTES: Final = 1 << 20


def pack(directory: Path, to: Path) -> None:
    """Write the files of a directory as a tar, by name, without their times and owners.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder = Path(name) / "artifact"
    ...     folder.mkdir()
    ...     _ = (folder / "b.txt").write_text("2"), (folder / "a.txt").write_text("1")
    ...     pack(folder, Path(name) / "x.tar")
    ...     tarfile.open(Path(name) / "x.tar").getnames()
    ['a.txt', 'b.txt']
    """
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(directory.iterdir()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(path.name)  # no owner, and the time 0
            entry.size, entry.mode = len(content), _MODE
            tar.addfile(entry, io.BytesIO(content))


def unpack(tar_file: Path, directory: Path) -> None:
    """Write the files of a tar into an empty directory.

    Raises:
        ArtifactError: it is no tar that `pack` could have written; nothing was written then, unless it ends early.
    """
    try:
        with tarfile.open(tar_file, "r:") as tar:
            for entry in _members(tar, tar_file):
                _extract(tar, entry, directory / _name(entry))
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:  # what tarfile makes of damaged headers
        raise ArtifactError(
            f"{tar_file} cannot be read as a tar ({error or type(error).__name__}); expected one that `lodestar ship` "
            "wrote, not compressed. Ship it again"
        ) from error


def plain_name(name: str) -> bool:
    """Say whether a file may be called so: no folder, on any system, and not hidden.

    >>> [plain_name(name) for name in ("ttft_ms@V100.txt", "../x", "a/b", "C:x", ".x", "")]
    [True, False, False, False, False, False]
    """
    return name.isprintable() and not set("/\\:") & set(name) and name[:1] not in ("", ".")


def _members(tar: tarfile.TarFile, tar_file: Path) -> list[tarfile.TarInfo]:
    """Return the files of a tar, all of them looked at."""
    found: dict[str, tarfile.TarInfo] = {}
    total_bytes = 0
    for number, entry in enumerate(tar):
        if entry.isdir() and entry.name in (".", "./", ""):  # as `tar -C artifact -cf x.tar .` writes
            continue
        name, total_bytes = _name(entry), total_bytes + entry.size
        refused = _refused(entry, name, name in found)
        if number >= MAX_FILES or total_bytes > MAX_BYTES:
            refused = f"more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB"
        if refused:
            raise ArtifactError(
                f"{tar_file}: {entry.name!r} is {refused}; expected the plain files of an artifact. Ship it again"
            )
        found[name] = entry
    return list(found.values())


def _refused(entry: tarfile.TarInfo, name: str, again: bool) -> str:
    """Say what is wrong with a member; nothing where it may be written."""
    if entry.islnk() or entry.issym():
        return f"a link to {entry.linkname!r}"
    if not entry.isreg() or entry.issparse():
        return "no plain file"
    if not plain_name(name):
        return "in a folder, or hidden"
    return "there twice" if again else ""


def _name(entry: tarfile.TarInfo) -> str:
    return entry.name.removeprefix("./")


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, to: Path) -> None:
    source: IO[bytes] | None = tar.extractfile(entry)
    if source is None:
        raise tarfile.ReadError(f"{entry.name} has no content")
    with source, to.open("xb") as target:
        shutil.copyfileobj(source, target, _BLOCK_BYTES)
    if to.stat().st_size != entry.size:
        raise tarfile.ReadError(f"{entry.name} ends early")
