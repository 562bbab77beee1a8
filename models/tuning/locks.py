"""File locks that the system lets go when their process ends, however it ends: the proof that a process lives.

No process id, host name or clock is compared: these are reused, differ between containers, or drift. The lock has to
reach all processes that share the file: on one machine it always does, on NFS from version 4 on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

__all__ = ["claim", "is_held", "locked", "sole"]

if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[bytes], wait: bool) -> None:
        file.seek(0)
        while True:
            try:
                return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError:  # it gives up after ten seconds
                if not wait:
                    raise

else:
    import fcntl

    def _take(file: IO[bytes], wait: bool) -> None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def locked(path: Path) -> IO[bytes]:
    """Wait for the lock of file `path` and return the file: closing it, or dying, lets the lock go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        _take(file, wait=True)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def sole(path: Path) -> Iterator[None]:
    """Wait until no other process is inside, then go in."""
    with locked(path):
        yield


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of file `path`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "lock"
    >>> with sole(path):
    ...     is_held(path)
    True
    >>> is_held(path)
    False
    """
    try:
        with path.open("ab" if path.exists() else "rb") as file:
            _take(file, wait=False)
    except FileNotFoundError:
        return False
    except (BlockingIOError, PermissionError):
        return True
    return False


@contextmanager
def claim(directory: Path) -> Iterator[str]:
    """Hold a file of a new name in `directory` as long as this process works; yield the name.

    Whoever reads the name finds out by `is_held` whether its process still lives.
    """
    name = uuid4().hex
    with sole(directory / name):
        try:
            yield name
        finally:
            (directory / name).unlink(missing_ok=True)
