"""Getting a public trace into a workspace: resumable, verified, and never half there under its own name."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lodestar.data.errors import DataError
from lodestar.data.traces.catalogue import Trace
from lodestar.data.traces.checksum import expected_of, hash_of, is_stand_in, record
from lodestar.data.traces.lock import sole_user
from lodestar.data.traces.remote import Remote, address_of, chunks, open_remote
from lodestar.data.workspace import Workspace

__all__ = ["Fetched", "get", "trace_path"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A trace that is in the workspace: what was done for it and against what it was verified."""

    trace: str
    path: Path
    size_bytes: int
    sha256: str
    address: str | None
    downloaded_bytes: int
    resumed_from_bytes: int
    notes: tuple[str, ...]
    next: str

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {**asdict(self), "path": str(self.path), "notes": list(self.notes)}


def trace_path(workspace: Workspace, trace: Trace) -> Path:
    """Return where the file of a trace lies in a workspace.

    >>> from lodestar.data.traces.catalogue import find_trace
    >>> trace_path(Workspace(Path("w")), find_trace("mooncake-conversation")).as_posix()
    'w/traces/mooncake-conversation/conversation_trace.jsonl'
    """
    return workspace.home / "traces" / trace.name / trace.file


def get(
    workspace: Workspace, trace: Trace, source: str | None = None, update: Callable[..., None] | None = None
) -> Fetched:
    """Download a trace, from its URL or from `source` (a mirror, a URL or a path), unless it is there and right."""
    path = trace_path(workspace, trace)
    address = address_of(source, trace.name, trace.file) if source else trace.url
    path.parent.mkdir(parents=True, exist_ok=True)
    with sole_user(path.parent.with_name(f".{trace.name}.lock"), f"trace {trace.name!r}"):
        if not path.exists():
            return _download(trace, path, address, "", update or (lambda **_: None))
        problem, sha256 = _problem(trace, path, path)
        if problem:
            return _download(trace, path, address, problem, update or (lambda **_: None))
        there = _fetched(trace, path, path, sha256, None)
        return replace(there, notes=("it was there already; nothing was downloaded", *there.notes))


def _download(trace: Trace, path: Path, address: str, there: str, update: Callable[..., None]) -> Fetched:
    """Download a trace; `there` tells what is wrong with a file of its name that is there already."""
    part = path.with_name(f"{path.name}.part")
    what = "it" if address == trace.url else trace.url
    advice = f"Download {what} elsewhere and put it at {path}, or name a mirror or a copy with --from"
    if there:
        advice = f"The file at {path} is not it: {there}. {advice}"
    start_bytes, version = _kept(trace, part, address)
    with open_remote(address, start_bytes, version, advice) as remote:
        _require_length(trace, remote, address)
        if not remote.start_bytes:
            _begin(part, address, remote.version)
        _receive(trace, part, remote, address, update)
    problem, sha256 = _problem(trace, part, path)
    if problem:
        bad = _aside(part, path)
        _version_of(part).unlink(missing_ok=True)
        raise DataError(
            f"{address}: {problem}. What came is kept as {bad}; compare it with {trace.source}, or name another --from"
        )
    fetched = _fetched(trace, part, path, sha256, address)
    notes = (f"the file that was there is kept as {_aside(path, path).name}: {there}",) if there else ()
    part.replace(path)
    _sync(path.parent)
    _version_of(part).unlink(missing_ok=True)
    return replace(
        fetched,
        downloaded_bytes=fetched.size_bytes - remote.start_bytes,
        resumed_from_bytes=remote.start_bytes,
        notes=(*notes, *fetched.notes),
    )


def _kept(trace: Trace, part: Path, address: str) -> tuple[int, str | None]:
    """Return how much of an earlier download can be gone on from, and the version it belongs to.

    Without a version only a hash can tell two versions spliced together from the file itself.
    """
    known = _version_of(part)
    if not part.exists() or not known.exists():
        return 0, None
    came_from, _, version = known.read_text(encoding="utf-8").partition("\n")
    kept_bytes = part.stat().st_size
    too_long = trace.size_bytes is not None and kept_bytes >= trace.size_bytes
    if came_from != address or too_long or not (version or trace.sha256):
        return 0, None
    return kept_bytes, version or None


def _receive(trace: Trace, part: Path, remote: Remote, address: str, update: Callable[..., None]) -> None:
    total_bytes, done_bytes = remote.total_bytes or trace.size_bytes, remote.start_bytes
    pieces = chunks(remote, address, total_bytes)
    try:
        with part.open("ab") as file:
            for piece in pieces:
                file.write(piece)
                done_bytes += len(piece)
                _require_no_more(trace, done_bytes, address)
                update(done=done_bytes, of=total_bytes, what=f"{trace.name}, bytes")
            file.flush()
            if part.is_file():
                os.fsync(file.fileno())
    except OSError as error:
        full = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise DataError(
            f"{part}: {full} after {done_bytes:,} bytes; expected room for {total_bytes or 'more'}. "
            "Make room and run the same command again, which goes on where it ended"
        ) from error


def _require_length(trace: Trace, remote: Remote, address: str) -> None:
    offered, right = remote.total_bytes, trace.size_bytes
    if offered is None and right is None and trace.sha256 is None:
        raise DataError(
            f"{address}: the server does not say how long the file is, nor does the catalogue; expected a length, "
            "without which a broken download looks whole. Name another --from"
        )
    if offered is not None and right is not None and offered != right:
        raise DataError(
            f"{address}: the file has {offered:,} bytes; expected {right:,}. It is another file or another version: "
            f"compare it with {trace.source}, or name another --from"
        )


def _require_no_more(trace: Trace, done_bytes: int, address: str) -> None:
    if trace.size_bytes is not None and done_bytes > trace.size_bytes:
        raise DataError(f"{address}: more than the {trace.size_bytes:,} bytes expected came. Name another --from")


def _problem(trace: Trace, lies_at: Path, path: Path) -> tuple[str | None, str]:
    """Return what is wrong with a file that is to be `path`, or None, and its hash."""
    sha256, size_bytes, expected = hash_of(lies_at), lies_at.stat().st_size, expected_of(trace, path)
    if expected and sha256 != expected.sha256:
        return f"SHA-256 is {sha256}; expected {expected.sha256} by {expected.by}", sha256
    if trace.size_bytes not in (None, size_bytes):
        return f"it has {size_bytes:,} bytes; expected {trace.size_bytes:,}", sha256
    if not expected and is_stand_in(lies_at):
        return "it is a web page or a Git LFS pointer; expected a trace", sha256
    return None, sha256


def _fetched(trace: Trace, lies_at: Path, path: Path, sha256: str, address: str | None) -> Fetched:
    """Describe a file that was found right; the first one of a trace without a hash is recorded."""
    expected = expected_of(trace, path)
    if expected:
        checked = f"SHA-256 verified against {expected.by}"
    else:
        record(path, sha256)
        checked = f"the catalogue knows no checksum for it; recorded in {path.name}.sha256, later downloads must match"
    notes = (checked,) if trace.note is None else (checked, trace.note)
    step = (
        f"lodestar ingest {shlex.quote(str(path))} --dataset {trace.name}"
        if trace.format
        else "no format of lodestar reads it yet"
    )
    return Fetched(trace.name, path, lies_at.stat().st_size, sha256, address, 0, 0, notes, step)


def _aside(lies_at: Path, path: Path) -> Path:
    bad = path.with_name(f"{path.name}.bad")
    lies_at.replace(bad)
    return bad


def _version_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.from")


def _begin(part: Path, address: str, version: str | None) -> None:
    """Empty what an earlier download left before its version is replaced: never old bytes under a new version."""
    part.write_bytes(b"")
    _version_of(part).write_text(f"{address}\n{version or ''}", encoding="utf-8")


def _sync(directory: Path) -> None:
    """Make a rename last; where directories cannot be opened (Windows) the system does so itself."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
