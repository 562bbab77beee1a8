"""Files into the store: one transaction a file, nothing dropped, the same file never twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lodestar.data.append import Source, append_source, is_stored, with_policy
from lodestar.data.checks import checked
from lodestar.data.errors import ConfigError, DataError, unknown
from lodestar.data.files import decompressed, read_file, sha256_of
from lodestar.data.formats import formats
from lodestar.data.reading import Format, Reading
from lodestar.data.store import open_store
from lodestar.data.workspace import Workspace

__all__ = ["IngestReport", "SourceReport", "ingest"]

HEAD_BYTES: Final = 1 << 18
DATASET_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What became of one file: ``rows_read == rows_stored + rows_rejected``, all 0 for a file already stored.

    Attributes:
        file: as the user named it.
        format: its name.
        sha256: of the file as it lies on disk.
        rows_read: rows that the file holds.
        rows_stored: of these, in the tables now.
        rows_rejected: of these, in the table of rejects, each with its line and reason.
        already_stored: the dataset held this very file before, so nothing was added.
        notes: what a user should know of how it was read.
    """

    file: str
    format: str
    sha256: str
    rows_read: int
    rows_stored: int
    rows_rejected: int
    already_stored: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of all files of one call."""

    dataset: str
    sources: tuple[SourceReport, ...]

    @property
    def rows_read(self) -> int:
        """Rows in the files that were not stored before."""
        return sum(source.rows_read for source in self.sources)

    @property
    def rows_stored(self) -> int:
        """Rows added to the dataset."""
        return sum(source.rows_stored for source in self.sources)

    @property
    def rows_rejected(self) -> int:
        """Rows added to the rejects."""
        return sum(source.rows_rejected for source in self.sources)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        totals = {"rows_read": self.rows_read, "rows_stored": self.rows_stored, "rows_rejected": self.rows_rejected}
        return {"dataset": self.dataset, **totals, "sources": [asdict(source) for source in self.sources]}


def ingest(
    workspace: Workspace,
    paths: Sequence[Path],
    dataset: str,
    format: str | None = None,
    logging_policy: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> IngestReport:
    """Add files to a dataset, in the order given; a file that fails leaves those before it stored.

    Files of one dataset belong together: where a format counts time from a start of its own, or numbers prefix blocks
    on its own, all its files are taken to share that start and that numbering.
    With arrival times, the requests of all files are ordered by arrival; without, each file follows the one before.
    `logging_policy` names the policy that made the decisions; ``random`` also says that every candidate had the same
    chance. `progress` is told the rows of each file as it is stored.
    """
    if not DATASET_NAME.fullmatch(dataset):
        raise ConfigError(f"dataset {dataset!r} is no usable name; expected letters, digits and . _ -. Choose another")
    if not paths:
        raise ConfigError("no files to ingest; expected at least one path. Name the log files")
    forced = _known(format) if format is not None else None
    reports = [_ingest_one(workspace, path, dataset, forced, logging_policy, progress) for path in paths]
    return IngestReport(dataset, tuple(reports))


def _ingest_one(
    workspace: Workspace,
    path: Path,
    dataset: str,
    forced: Format | None,
    logging_policy: str | None,
    progress: Callable[[int], None] | None,
) -> SourceReport:
    on_disk = read_file(path)
    sha256, content = sha256_of(on_disk), decompressed(on_disk, str(path))
    if not content.strip():
        raise DataError(f"{path} is empty; expected a log. Check the file")
    format = forced or _sniffed(path, content)
    with open_store(workspace) as con:
        if is_stored(con, dataset, sha256):
            return SourceReport(str(path), format.name, sha256, 0, 0, 0, already_stored=True)
        reading = with_policy(checked(_read(path, format, content)), logging_policy)
        added = append_source(con, dataset, reading, Source(str(path), sha256, format.name), progress)
    return SourceReport(
        str(path), format.name, sha256, added.lines, len(added.rows), len(added.rejects), notes=added.notes
    )


def _known(name: str) -> Format:
    known = formats()
    if name not in known:
        raise unknown("format", name, known)
    return known[name]


def _sniffed(path: Path, content: bytes) -> Format:
    known = formats()
    for format in known.values():
        if format.sniff(content[:HEAD_BYTES]):
            return format
    first = content[:60].decode("utf-8", errors="replace")
    raise DataError(
        f"{path}: no known format starts with {first!r}; expected one of {', '.join(sorted(known))}. "
        "Name it with --format, or convert the log to native (its JSON Schema ships with lodestar)"
    )


def _read(path: Path, format: Format, content: bytes) -> Reading:
    try:
        reading = format.read(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if reading.lines == 0:
        raise DataError(f"{path}: no rows; expected at least one in format {format.name}. Check the file")
    return reading
