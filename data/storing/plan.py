"""Which sources to read, by which format, and which of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from lodestar.data.errors import DataError, unknown
from lodestar.data.formats import formats
from lodestar.data.reading import Format
from lodestar.data.sources.source import Source

__all__ = ["Job", "format_named", "plan"]


@dataclass(frozen=True, slots=True)
class Job:
    """A source, with its companions, and the format that reads it."""

    source: Source
    format: Format
    companions: tuple[tuple[Source, Format], ...] = ()


def plan(sources: Sequence[Source], forced: Format | None = None) -> tuple[list[Job], list[tuple[Source, str]]]:
    """Find each source's format, and put companions together; return the jobs, and what was skipped and why.

    A source that the user named must be a log; one that was found in a directory or archive may be something else.
    """
    jobs, skipped = [], []
    for source in sources:
        format, why = _format_of(source, forced)
        if format is not None:
            jobs.append(Job(source, format))
        elif source.found:
            skipped.append((source, why))
        else:
            raise DataError(f"{source.name}{why}")
    if not jobs and skipped:
        first, why = skipped[0]
        raise DataError(
            f"{first.name}{why}, nor in the {len(skipped)} files there; expected a log among them. `lodestar formats` "
            "lists what is known; --map reads any other table"
        )
    return _joined(jobs), skipped


def format_named(name: str) -> Format:
    """Return the format that ``--format`` names."""
    known = formats()
    if name not in known:
        raise unknown("format", name, known)
    return known[name]


def _format_of(source: Source, forced: Format | None) -> tuple[Format | None, str]:
    head = source.head()
    if not head.strip():
        return None, " is empty; expected a log. Check the file"
    if forced is not None:
        return forced, ""
    for format in formats().values():
        if format.sniff(head):
            return format, ""
    first = head[:60].decode("utf-8", errors="replace")
    if source.found:
        return None, ": no known format"
    return None, (
        f": no known format starts with {first!r}; `lodestar formats` lists those that are known. "
        "Name it with --format, or say with --map what its columns mean (--suggest-map makes a draft)"
    )


def _joined(jobs: list[Job]) -> list[Job]:
    """Give each source its companions: those of the same folder, or of the whole call if it is the only one."""
    # A companion may take companions of its own where its main is not there, so mains go first.
    partners_of = {name for job in jobs for name in job.format.companions}
    mains = sorted((job for job in jobs if job.format.companions), key=lambda job: job.format.name in partners_of)
    taken: set[int] = set()
    joined = {}
    for main in mains:
        if id(main) in taken:
            continue
        alone = sum(job.format == main.format for job in mains) == 1
        partners = [
            job
            for job in jobs
            if job.format.name in main.format.companions
            and id(job) not in taken
            and (alone or PurePath(job.source.name).parent == PurePath(main.source.name).parent)
        ]
        taken |= {id(job) for job in partners}
        found = tuple((job.source, job.format) for job in partners)
        main.source.companions = tuple(source for source, _ in found)
        joined[id(main)] = replace(main, companions=found)
    return [joined.get(id(job), job) for job in jobs if id(job) not in taken]
