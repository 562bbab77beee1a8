"""Files into the store: one transaction a source, nothing dropped, the same content never twice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.reading import LINE, Format, Reading
from lodestar.data.schema import REQUEST_ID
from lodestar.data.sources.source import sources_of
from lodestar.data.store import open_store
from lodestar.data.storing.append import append_source, is_stored, with_policy
from lodestar.data.storing.checks import checked
from lodestar.data.storing.licence import licence_beside
from lodestar.data.storing.plan import Job, format_named, plan
from lodestar.data.storing.prefetch import prefetched
from lodestar.data.storing.tally import Facts, Tally
from lodestar.data.workspace import Workspace

__all__ = ["IngestReport", "Skipped", "SourceReport", "ingest"]

DATASET_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MEMORY_LIMIT: Final = "700MB"  # of the database; the parts in hand take about as much again
LOCK_WAIT_S: Final = 30.0
NOT_APPLIED: Final = "was stored before, so --logging-policy was not applied; lodestar drop the dataset to read it anew"


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What became of one source: ``rows_read == rows_stored + rows_rejected``, all 0 for one that is stored already.

    Attributes:
        file: as the user named it.
        format: its name.
        version: of the format, where the log shows it.
        sha256: of the content as it lies on disk.
        rows_read: rows that the source holds.
        rows_stored: of these, in the tables now.
        rows_rejected: of these, in the table of rejects, each with its place, reason and text.
        already_stored: the dataset held this very content before, so nothing was added.
        replaced: the earlier version of this source, whose rows are gone now.
        notes: what a user should know of how it was read.
    """

    file: str
    format: str
    sha256: str
    rows_read: int
    rows_stored: int
    rows_rejected: int
    already_stored: bool = False
    version: str | None = None
    replaced: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file found in a directory or archive that is no log, and why."""

    file: str
    why: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of all sources of one call."""

    dataset: str
    sources: tuple[SourceReport, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def rows_read(self) -> int:
        """Rows in the sources that were not stored before."""
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
        found = {"sources": [asdict(source) for source in self.sources], "skipped": list(map(asdict, self.skipped))}
        return {"dataset": self.dataset, **totals, **found}


def ingest(
    workspace: Workspace,
    paths: Sequence[Path],
    dataset: str,
    format: str | Format | None = None,
    logging_policy: str | None = None,
    progress: Callable[[int], None] | None = None,
    strict: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> IngestReport:
    """Add files, directories, archives, patterns or stdin (``-``) to a dataset.

    A source that fails leaves those before it stored.

    Files of one dataset belong together: where a format counts time from a start of its own, or numbers prefix blocks
    on its own, all its files are taken to share that start and that numbering.
    With arrival times, the requests of all files are ordered by arrival; without, each file follows the one before.
    A file that repeats at least half of the rows of one stored before is its new version and replaces it.

    Args:
        workspace: where the store lies.
        paths: what to read.
        dataset: name to keep it under.
        format: of all of it; None finds each one's out.
        logging_policy: names the policy that made the decisions; ``random`` also says that every candidate had the
            same chance.
        progress: is told the rows of each part as it is stored.
        strict: raise on the first row that is refused, and store nothing of its source.
        say: is told what a user should know meanwhile, such as that another process holds the store.
    """
    if not DATASET_NAME.fullmatch(dataset):
        raise ConfigError(f"dataset {dataset!r} is no usable name; expected letters, digits and . _ -. Choose another")
    if not paths:
        raise ConfigError("no files to ingest; expected at least one path. Name the log files")
    forced = format_named(format) if isinstance(format, str) else format
    reports: list[SourceReport] = []
    with sources_of(paths) as sources:
        jobs, skipped = plan(sources, forced)
        for job in jobs:
            reports += _ingested(workspace, job, dataset, logging_policy, progress, strict, say)
    left_out = tuple(Skipped(source.name, why.strip(": ")) for source, why in skipped)
    return IngestReport(dataset, tuple(reports), left_out)


def _ingested(
    workspace: Workspace,
    job: Job,
    dataset: str,
    logging_policy: str | None,
    progress: Callable[[int], None] | None,
    strict: bool,
    say: Callable[[str], None],
) -> list[SourceReport]:
    facts = _facts(job, dataset)
    with open_store(workspace, wait_s=LOCK_WAIT_S, say=say) as con:
        if is_stored(con, facts[0].source_id):
            told = (NOT_APPLIED,) if logging_policy is not None else ()
            return [
                SourceReport(each.file, each.format, each.sha256, 0, 0, 0, already_stored=True, notes=told)
                for each in facts
            ]
        con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")

        def read() -> Iterator[Reading]:
            for reading in _readings(job):
                if strict and len(reading.rejects):
                    raise _refusal(job, reading)
                yield with_policy(reading, logging_policy)

        try:
            tallies = append_source(con, dataset, lambda: prefetched(read()), facts, progress)
        except DataError as error:
            named = str(error).startswith(job.source.name)
            raise error if named else DataError(f"{job.source.name}: {error}") from error
        except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.TransactionException) as error:
            said = str(error).splitlines()[0][:300]
            raise DataError(
                f"{job.source.name}: the store cannot be written ({said}); nothing of it was kept. "
                "Make room, or name another --home"
            ) from error
    return [_report(tally) for tally in tallies]


def _facts(job: Job, dataset: str) -> list[Facts]:
    found = []
    for source, format in ((job.source, job.format), *job.companions):
        sha256, size = source.sha256()
        identity = f"{dataset}/{sha256[:16]}{format.key and '-' + format.key}"
        found.append(Facts(identity, source.name, sha256, format.name, size, licence_beside(source.path)))
    if len(found) > 1:
        # With other companions the same content tells something else.
        together = hashlib.sha256("".join(facts.sha256 for facts in found).encode()).hexdigest()
        return [replace(facts, source_id=f"{dataset}/{together[:16]}-{k}") for k, facts in enumerate(found)]
    return found


def _readings(job: Job) -> Iterator[Reading]:
    """Read and check a source; lines that could not be read at all count as rows that are refused."""
    everyone = (job.source, *job.source.companions)
    for source in everyone:
        source.aside.clear()
    named = False
    for reading in job.format.read(job.source):
        sound = checked(reading, named)
        named |= sound.rows[REQUEST_ID].null_count() < len(sound.rows)
        yield sound
        for partner, source in enumerate(everyone):
            if source.aside:
                aside = pl.concat(source.aside)
                source.aside.clear()
                yield Reading(lines=len(aside), rejects=aside, partner=partner)


def _refusal(job: Job, reading: Reading) -> DataError:
    source = (job.source, *job.source.companions)[reading.partner]
    first = reading.rejects.sort(LINE).row(0, named=True)
    place = first["record"] or f"line {first[LINE]}"
    return DataError(
        f"{source.name}, {place}: {first['reason']}, {first['detail']}; expected no refused row with --strict. "
        "Mend the row, or leave --strict out to keep it aside"
    )


def _report(tally: Tally) -> SourceReport:
    facts = tally.facts
    return SourceReport(
        facts.file,
        facts.format,
        facts.sha256,
        tally.rows,
        tally.stored,
        tally.rejected,
        version=tally.version,
        replaced=tally.replaced,
        notes=tally.sentences(),
    )
