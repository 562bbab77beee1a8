"""All parts that a format's reader gives of a source, put together for tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lodestar.data.reading import ROW_COLUMNS as ROWS
from lodestar.data.reading import Format, empty, no_rejects
from lodestar.data.sources.source import Source, from_bytes, sources_of
from lodestar.data.storing.checks import checked


@dataclass(frozen=True)
class Read:
    """Rows and rejects of all parts, the sums of what was counted, and the facts of the last part."""

    rows: pl.DataFrame
    rejects: pl.DataFrame
    lines: int
    counted: Counter[str]
    notes: set[str]
    clock: str | None
    zero_s: float
    block_tokens: int | None
    version: str | None

    @property
    def reasons(self) -> dict[int, str]:
        """Row number → why it was refused."""
        return dict(self.rejects.select("line", "reason").iter_rows())


def read_all(format: Format, log: bytes | str | Path, name: str = "log") -> Read:
    """Read a source with the checks that every row passes; each row is in exactly one place."""
    if isinstance(log, Path):
        with sources_of([log]) as sources:
            return _read(format, sources[0])
    return _read(format, from_bytes(log.encode() if isinstance(log, str) else log, name))


def _read(format: Format, source: Source) -> Read:
    parts = [checked(part) for part in format.read(source)]
    rows = pl.concat([empty(ROWS), *(part.rows for part in parts)])
    rejects = pl.concat([no_rejects(), *(part.rejects for part in parts)])
    lines = sum(part.lines for part in parts)
    samples = sum(len(part.samples) for part in parts)
    assert lines == len(rows) + len(rejects) + samples
    numbers = [*rows["line"], *rejects["line"]]
    assert len(set(numbers)) == len(numbers)
    counted: Counter[str] = Counter()
    for part in parts:
        counted.update(part.counted)
    last = parts[-1] if parts else None
    return Read(
        rows=rows,
        rejects=rejects,
        lines=lines,
        counted=counted,
        notes={note for part in parts for note in part.notes},
        clock=last.clock if last else None,
        zero_s=last.zero_s if last else 0.0,
        block_tokens=last.block_tokens if last else None,
        version=last.version if last else None,
    )
