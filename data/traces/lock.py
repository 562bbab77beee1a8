"""One download of a trace at a time: a lock that the system lets go when its process ends, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lodestar.data.errors import ConfigError

__all__ = ["sole_user"]


@contextmanager
def sole_user(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`; another process that holds it is an error, not a wait.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "lock"
    >>> with sole_user(path, "trace a"), sole_user(path, "trace a"):
    ...     pass
    Traceback (most recent call last):
    lodestar.data.errors.ConfigError: trace a is being downloaded by another process; expected one. Wait until it ends
    """
    with path.open("ab") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(
                f"{what} is being downloaded by another process; expected one. Wait until it ends"
            ) from error
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
