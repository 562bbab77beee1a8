"""Where logs come from: files, zip members, directories, globs and stdin, each a source that can be read twice."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import polars as pl

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.sources.blocks import Block, blocks
from lodestar.data.sources.unpack import DAMAGE, guarded, refuse_bomb, unpacked

__all__ = ["STDIN", "Source", "from_bytes", "printable", "sources_of"]

STDIN: Final = Path("-")
ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")  # the latter of an archive without members
HEAD_BYTES: Final = 1 << 18
MOST_DOCUMENT_BYTES: Final = 1 << 28
COPY_BYTES: Final = 1 << 20
ENCRYPTED: Final = 0x1


@dataclass(slots=True)
class Source:
    """A log as its bytes on disk, and as the text that they unpack to.

    Attributes:
        name: as the user named it; a zip member as ``archive.zip!member``.
        path: where it lies.
        packed: opens it as it lies on disk.
        found: it was found in a directory or archive, rather than named.
        companions: sources read together with this one, see `Format.companions`.
        aside: `rejects` of lines that cannot be read, since they were last taken.
    """

    name: str
    path: Path
    packed: Callable[[], IO[bytes]]
    found: bool = False
    companions: tuple[Source, ...] = ()
    aside: list[pl.DataFrame] = field(default_factory=list)

    def sha256(self) -> tuple[str, int]:
        """Name the content as it lies on disk, and count its bytes."""
        with self._opened(self.packed) as stream:
            digest, size = hashlib.sha256(), 0
            while part := stream.read(COPY_BYTES):
                digest.update(part)
                size += len(part)
        return digest.hexdigest(), size

    def stream(self) -> AbstractContextManager[IO[bytes]]:
        """Open the content, unpacked."""
        return self._opened(lambda: unpacked(self.packed(), self.name))

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """Read the first bytes of the content."""
        with self.stream() as stream:
            return stream.read(size)

    def blocks(self) -> Iterator[Block]:
        """Read the content in blocks of whole lines; lines that cannot be read go to `aside`."""
        with self.stream() as stream:
            for block in blocks(stream):
                if len(block.aside):
                    self.aside.append(block.aside)
                yield block

    def document(self) -> bytes:
        """Read a content that only makes sense as a whole, such as one JSON document."""
        with self.stream() as stream:
            content = stream.read(MOST_DOCUMENT_BYTES + 1)
        if len(content) > MOST_DOCUMENT_BYTES:
            raise DataError(
                f"{self.name}: one document of more than {MOST_DOCUMENT_BYTES >> 20} MiB; expected less, since it is "
                "read as a whole. Split it, or write it as JSON Lines"
            )
        return content

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Give a path to the unpacked content, for readers that jump about in it."""
        with tempfile.NamedTemporaryFile(prefix="lodestar-") as copy, self.stream() as stream:
            try:
                shutil.copyfileobj(stream, copy, COPY_BYTES)
                copy.flush()
            except OSError as error:
                raise DataError(
                    f"{self.name}: no room to unpack it ({error.strerror}). Make some, or set TMPDIR"
                ) from error
            yield Path(copy.name)

    @contextmanager
    def _opened(self, make: Callable[[], IO[bytes]]) -> Iterator[IO[bytes]]:
        try:
            stream = make()
        except DAMAGE as error:
            said = getattr(error, "strerror", None) or error
            raise DataError(f"{self.name}: {said}; expected a log file that can be read. Check the path") from error
        with stream:
            yield stream


def from_bytes(content: bytes, name: str = "content") -> Source:
    """Make a source of bytes in memory.

    >>> from_bytes(b"a,b").head()
    b'a,b'
    """
    import io

    return Source(name, Path(name), lambda: io.BytesIO(content))


def printable(text: Path | str) -> str:
    r"""Write a name in one line that every store can hold: names may have line ends, and bytes that are no characters.

    >>> print(printable("a\nb"))
    a\nb
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


@contextmanager
def sources_of(paths: Sequence[Path]) -> Iterator[list[Source]]:
    """Find every source that these paths name: files, zip archives, directories, patterns, and ``-`` for stdin.

    Directories are searched to any depth, in the order of names, leaving out hidden files, links to directories, and
    what can be no log: pipes, sockets and devices.
    """
    with tempfile.TemporaryDirectory(prefix="lodestar-stdin-") as spool:
        yield [source for path in paths for source in _sources(path, Path(spool))]


def _sources(path: Path, spool: Path) -> Iterator[Source]:
    kind = _kind(path)
    if path == STDIN:
        yield from _file(_spooled(spool), "stdin", found=False)
    elif stat.S_ISDIR(kind):
        yield from _directory(path)
    elif not kind and glob.has_magic(str(path)):
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise DataError(f"{printable(path)}: no file matches; expected at least one. Check the pattern")
        for match in matches:
            yield from _sources(Path(match), spool)
    elif stat.S_ISFIFO(kind):
        raise DataError(
            f"{printable(path)} is a pipe, which cannot be read twice; expected a file. Pipe it to `lodestar ingest -`"
        )
    else:
        yield from _file(path, printable(path), found=False)


def _kind(path: Path) -> int:
    """Tell what lies at a path; 0 is nothing, or nothing that may be looked at."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _directory(path: Path) -> Iterator[Source]:
    empty = True
    for folder, below, names in os.walk(path, onerror=_unreadable):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            found = Path(folder) / name
            # Of 0 is a link that leads nowhere: that it cannot be read is said.
            if _kind(found) == 0 or stat.S_ISREG(_kind(found)):
                empty = False
                yield from _file(found, printable(found), found=True)
    if empty:
        raise DataError(f"{printable(path)}: an empty directory; expected log files in it. Check the path")


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"{printable(error.filename)}: {error.strerror}; expected a directory that can be read. Check its permissions"
    ) from error


def _file(path: Path, name: str, found: bool) -> Iterator[Source]:
    plain = Source(name, path, lambda: path.open("rb"), found)
    if not plain.head(4).startswith(ZIP_MAGIC):
        yield plain
        return
    for member in _members(path, name):
        yield Source(_member_name(name, member), path, _opener(path, name, member), found=True)


def _members(path: Path, name: str) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{name}: damaged zip archive ({error}); expected a whole one. Copy it again") from error
    if not members:
        raise DataError(f"{name}: an empty zip archive; expected log files in it. Check the file")
    for member in members:
        told = _member_name(name, member)
        if member.flag_bits & ENCRYPTED:
            raise DataError(f"{told} is encrypted; expected a plain member. Unpack the archive by hand")
        # Python unpacks other methods without a limit to what a part of them may grow to.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{told} is compressed by method {member.compress_type}; expected deflate. Unpack the archive by hand"
            )
        refuse_bomb(told, member.compress_size, member.file_size)
    return members


def _member_name(name: str, member: zipfile.ZipInfo) -> str:
    return f"{name}!{printable(member.filename)}"


def _opener(path: Path, name: str, member: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    # Members are read where they lie and never written to disk, so a path that climbs out is but a name.
    return lambda: guarded(zipfile.ZipFile(path).open(member), _member_name(name, member))


def _spooled(spool: Path) -> Path:
    if sys.stdin is None:
        raise ConfigError("- reads the log from stdin, which is closed; expected a pipe or file. Name a file")
    if sys.stdin.isatty():
        raise ConfigError("- reads the log from stdin, which is a terminal; expected a pipe or file. Name a file")
    copy = spool / "stdin"
    if not copy.exists():
        try:
            with copy.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file, COPY_BYTES)
        except OSError as error:
            raise DataError(
                f"stdin: it cannot be kept in {spool} ({error.strerror}). Make room, or set TMPDIR"
            ) from error
    return copy
