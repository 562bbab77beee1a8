"""One source into the canonical tables, part by part, in one transaction: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import duckdb
import numpy as np
import polars as pl

from lodestar.data import schema as s
from lodestar.data.errors import ConfigError, DataError
from lodestar.data.log import Ints
from lodestar.data.reading import LINE, Reading
from lodestar.data.storing.inserts import Inserts
from lodestar.data.storing.instances import Instances
from lodestar.data.storing.repeats import reject_duplicates, replace_earlier_version

__all__ = ["Facts", "Tally", "append_source", "is_stored", "with_policy"]

UNIFORM: Final = "random"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a source before it is read.

    Attributes:
        source_id: names its content within the store.
        file: as the user named it.
        sha256: of the content as it lies on disk.
        format: its name.
        size: in bytes, as it lies on disk.
        licence: of the log, where one lies beside it.
    """

    source_id: str
    file: str
    sha256: str
    format: str
    size: int
    licence: str | None = None


@dataclass(slots=True)
class Tally:
    """What became of a source so far."""

    facts: Facts
    rows: int = 0
    rejected: int = 0
    notes: list[str] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    version: str | None = None
    clock: str | None = None
    replaced: str | None = None

    @property
    def stored(self) -> int:
        """Rows in the tables; those of a companion are part of the rows that they were joined to."""
        return self.rows - self.rejected

    def add(self, reading: Reading, rejected: int) -> None:
        """Count a part."""
        self.rows += reading.lines
        self.rejected += rejected
        self.version, self.clock = self.version or reading.version, self.clock or reading.clock
        self.notes += [note for note in reading.notes if note not in self.notes]
        for said, count in reading.counted.items():
            self.counted[said] = self.counted.get(said, 0) + count

    def sentences(self) -> tuple[str, ...]:
        """Return the notes, those that count with their number."""
        return (*self.notes, *(f"{count} {said}" for said, count in self.counted.items() if count))


@dataclass(slots=True)
class Target:
    """The dataset that a source is appended to."""

    con: duckdb.DuckDBPyConnection
    dataset: str
    instances: Instances
    inserts: Inserts
    clock: str | None
    clock_start_s: float | None
    block_tokens: int | None
    is_empty: bool
    next_index: int

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, dataset: str) -> Target:
        """Read what the store knows of it."""
        known = con.execute(
            "SELECT clock, clock_start_s, block_tokens FROM datasets WHERE dataset = ?", [dataset]
        ).fetchall()
        (last,) = con.execute("SELECT coalesce(max(last_request_index), -1) FROM sources").fetchall()[0]
        (owned,) = con.execute("SELECT count(last_request_index) FROM sources WHERE dataset = ?", [dataset]).fetchall()[
            0
        ]
        clock, start, block_tokens = known[0] if known else (None, None, None)
        instances, inserts = Instances.of(con, dataset), Inserts(con, dataset)
        return cls(con, dataset, instances, inserts, clock, start, block_tokens, not owned, last + 1)


def is_stored(con: duckdb.DuckDBPyConnection, source_id: str) -> bool:
    """Tell whether the store holds this very content."""
    return bool(con.execute("SELECT count(*) FROM sources WHERE source_id = ?", [source_id]).fetchall()[0][0])


def with_policy(reading: Reading, policy: str | None) -> Reading:
    """Name the logging policy; ``random`` gives every candidate of a decision the same probability."""
    if policy is None:
        return reading
    others = reading.rows[s.POLICY].drop_nulls().unique().to_list()
    if others and others != [policy]:
        raise ConfigError(
            f"logging policy {policy!r} contradicts the log, which says {others[0]!r}; "
            "expected the same. Leave the option out"
        )
    rows = reading.rows.with_columns(pl.lit(policy).alias(s.POLICY))
    if policy != UNIFORM:
        return replace(reading, rows=rows)
    share = pl.coalesce(s.PROBABILITY, 1.0 / pl.len().over(LINE)).alias(s.PROBABILITY)
    return replace(reading, rows=rows, candidates=reading.candidates.with_columns(share))


def append_source(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    read: Callable[[], Iterable[Reading]],
    sources: list[Facts],
    progress: Callable[[int], None] | None = None,
) -> list[Tally]:
    """Store what a source and its companions say; return what became of each.

    `read` gives the parts, and is called again where the text of a row is needed that another row made a reject.
    If the process ends half way, or a part raises, the store is as it was before.
    """
    tallies = [Tally(facts) for facts in sources]
    with _transaction(con):
        target = Target.of(con, dataset)
        first = target.next_index
        times: list[float] = []
        for reading in read():
            _require_fit(target, reading)
            tally = tallies[reading.partner]
            _insert_rejects(target, reading, tally.facts)
            _insert_rows(target, reading, times)
            _insert_samples(target, reading, tally.facts, times)
            target.instances.learn(reading.gpu)
            tally.add(reading, len(reading.rejects))
            if progress is not None:
                progress(reading.lines)
        if not sum(tally.rows for tally in tallies):
            raise DataError(f"no rows; expected at least one in format {sources[0].format}. Check the file")
        target.inserts.flush()
        target.instances.store()
        _finish(target, tallies, first, times, read)
    return tallies


@contextmanager
def _transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    con.execute("BEGIN")
    try:
        yield
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def _require_fit(target: Target, reading: Reading) -> None:
    """Take the clock and the block size of the first rows; refuse rows of another clock or size."""
    if len(reading.rows):
        if target.is_empty:
            target.clock, target.is_empty = reading.clock, False
        if reading.clock != target.clock:
            raise DataError(
                f"dataset {target.dataset!r} has its arrivals by clock {target.clock or 'none'!r}, this file by "
                f"{reading.clock or 'none'!r}; expected the same. Ingest the file into another dataset"
            )
    if reading.block_tokens is not None and target.block_tokens not in (None, reading.block_tokens):
        raise DataError(
            f"dataset {target.dataset!r} has blocks of {target.block_tokens} tokens, this file of "
            f"{reading.block_tokens}; expected the same. Ingest the file into another dataset"
        )
    target.block_tokens = target.block_tokens or reading.block_tokens


def _insert_rejects(target: Target, reading: Reading, facts: Facts) -> None:
    rejects = reading.rejects
    if rejects.is_empty():
        return
    lacking = rejects["raw"].is_null()
    if lacking.any():
        found = pl.Series("raw", reading.raw(rejects[LINE].filter(lacking)), dtype=pl.String)
        filled = pl.concat([rejects.filter(~lacking), rejects.filter(lacking).with_columns(found)])
        rejects = filled.sort(LINE)
    of_source = {s.SOURCE_ID: facts.source_id, "file": facts.file}
    target.inserts.add("rejects", rejects.with_columns(pl.lit(value).alias(name) for name, value in of_source.items()))


def _insert_rows(target: Target, reading: Reading, times: list[float]) -> None:
    rows = reading.rows
    if rows.is_empty():
        return
    if not rows[LINE].is_sorted():
        rows = rows.sort(LINE)
    if target.clock is not None:
        first, last = float(rows[s.ARRIVED_AT_S].min()), float(rows[s.ARRIVED_AT_S].max())  # type: ignore[arg-type]
        times += [reading.zero_s + first, reading.zero_s + last]
        if target.clock_start_s is None:
            target.clock_start_s = reading.zero_s + first
        rows = rows.with_columns(pl.col(s.ARRIVED_AT_S) - (target.clock_start_s - reading.zero_s))
    index = np.arange(target.next_index, target.next_index + len(rows))
    target.next_index += len(rows)
    rows = rows.with_columns(pl.Series(s.REQUEST_INDEX, index))
    inserts = target.inserts
    inserts.add("requests", rows)
    inserts.add("blocks", _where(rows, s.BLOCK_IDS))
    inserts.add("sessions", _where(rows, s.SESSION_ID))
    inserts.add("dispatches", _where(rows, s.DISPATCH_NUMBER))
    inserts.add("outcomes", _where(rows, *s.OUTCOMES_LATENCIES, s.STATUS))
    inserts.add("phases", _where(rows, *s.PHASES, s.CACHED_TOKENS))
    if rows[s.INSTANCE].null_count() < len(rows) or len(reading.candidates):
        _insert_decisions(target, rows, reading.candidates, index)


def _insert_decisions(target: Target, rows: pl.DataFrame, candidates: pl.DataFrame, index: Ints) -> None:
    chosen = target.instances.numbers(rows[s.INSTANCE])
    candidates, propensity = _candidates(target, candidates, rows[LINE].to_numpy(), index, chosen)
    decided = chosen >= 0
    numbered = [pl.Series(s.INSTANCE_INDEX, chosen), pl.Series(s.PROPENSITY, propensity).fill_nan(None)]
    rows = rows.with_columns(numbered)
    target.inserts.add("decisions", rows if decided.all() else rows.filter(pl.Series(decided)))
    target.inserts.add("candidates", candidates)


def _where(rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Keep the rows that have at least one of these columns."""
    told = [name for name in columns if rows[name].null_count() < len(rows)]
    if any(rows[name].null_count() == 0 for name in told):
        return rows
    return rows.filter(pl.any_horizontal(pl.col(*told).is_not_null())) if told else rows.clear()


def _candidates(
    target: Target, candidates: pl.DataFrame, lines: Ints, index: Ints, chosen: Ints
) -> tuple[pl.DataFrame, np.ndarray[Any, np.dtype[np.float64]]]:
    """Give the candidates their numbers, and each row the probability of the one that was chosen."""
    propensity = np.full(len(lines), np.nan)
    if candidates.is_empty():
        return candidates, propensity
    if not candidates[LINE].is_sorted():
        candidates = candidates.sort(LINE, maintain_order=True)
    own = candidates[LINE].to_numpy()
    start = np.concatenate([[0], np.flatnonzero(np.diff(own)) + 1])
    row = np.repeat(np.searchsorted(lines, own[start]), np.diff(np.append(start, len(own))))
    number = target.instances.numbers(candidates[s.INSTANCE])
    if candidates[s.PROBABILITY].null_count() < len(candidates):
        taken = number == chosen[row]
        propensity[row[taken]] = candidates[s.PROBABILITY].to_numpy()[taken]
    numbered = [pl.Series(s.REQUEST_INDEX, index[row]), pl.Series(s.INSTANCE_INDEX, number)]
    return candidates.with_columns(numbered), propensity


def _insert_samples(target: Target, reading: Reading, facts: Facts, times: list[float]) -> None:
    samples = reading.samples
    if samples.is_empty():
        return
    at = (pl.col(s.SAMPLED_AT_S) + reading.zero_s).alias(s.SAMPLED_AT_S)
    names = samples[s.INSTANCE].replace(
        {name: target.instances.full_name(name) for name in samples[s.INSTANCE].unique()}
    )
    number = pl.Series(s.INSTANCE_INDEX, target.instances.numbers(names))
    number = number.set(number < 0, None)
    samples = samples.with_columns(at, number)
    times += [float(samples[s.SAMPLED_AT_S].min()), float(samples[s.SAMPLED_AT_S].max())]  # type: ignore[arg-type]
    of_source = {s.SOURCE_ID: facts.source_id, "clock": reading.clock}
    named = (pl.lit(value, dtype=pl.String).alias(name) for name, value in of_source.items())
    target.inserts.add("engine_samples", samples.with_columns(named))


def _finish(
    target: Target, tallies: list[Tally], first: int, times: list[float], read: Callable[[], Iterable[Reading]]
) -> None:
    con, dataset, own = target.con, target.dataset, tallies[0]
    con.execute(
        "INSERT INTO datasets SELECT ?, now(), NULL, ?, ?, ?, NULL WHERE NOT EXISTS (FROM datasets WHERE dataset = ?)",
        [dataset, target.clock, target.clock_start_s, target.block_tokens, dataset],
    )
    con.execute(
        "UPDATE datasets SET clock = $clock, clock_start_s = $start, block_tokens = $block WHERE dataset = $dataset",
        {"clock": target.clock, "start": target.clock_start_s, "block": target.block_tokens, "dataset": dataset},
    )
    span = (min(times), max(times)) if times else None
    number = None
    earlier = replace_earlier_version(con, dataset, own.facts.source_id, own.facts.format, first, span)
    if earlier is not None:
        number, own.replaced = earlier
    own.rejected += reject_duplicates(con, dataset, own.facts.source_id, own.facts.file, first, read)
    _count_from_first_arrival(con, dataset)
    if number is None:
        (number,) = con.execute(
            "SELECT coalesce(max(number) + 1, 0) FROM sources WHERE dataset = ?", [dataset]
        ).fetchall()[0]
    for tally in tallies:
        clock = tally.clock or own.clock if span else None
        _insert_source(target, tally, tally is own, number, first, span, clock)
    _set_policy(con, dataset)


def _insert_source(
    target: Target,
    tally: Tally,
    is_main: bool,
    number: int,
    first: int,
    span: tuple[float, float] | None,
    clock: str | None,
) -> None:
    facts, owns = tally.facts, is_main and target.next_index > first
    values: dict[str, Any] = {
        "source_id": facts.source_id,
        "dataset": target.dataset,
        "number": number,
        "file": facts.file,
        "sha256": facts.sha256,
        "format": facts.format,
        "version": tally.version,
        "bytes": facts.size,
        "licence": facts.licence,
        "rows": tally.rows,
        "stored": tally.stored,
        "rejected": tally.rejected,
        "first_request_index": first if owns else None,
        "last_request_index": target.next_index - 1 if owns else None,
        "clock": clock,
        "first_at_s": span[0] if span else None,
        "last_at_s": span[1] if span else None,
        "notes": "\n".join(tally.sentences()) or None,
    }
    columns = ", ".join(f'? AS "{name}"' for name in values)
    target.con.execute(f"INSERT INTO sources BY NAME SELECT {columns}, now() AS ingested_at", list(values.values()))


def _count_from_first_arrival(con: duckdb.DuckDBPyConnection, dataset: str) -> None:
    """Move the arrivals so that the first of all sources is 0, whatever the order in which they came."""
    (first,) = con.execute("SELECT min(arrived_at_s) FROM requests WHERE dataset = ?", [dataset]).fetchall()[0]
    if first:
        con.execute("UPDATE requests SET arrived_at_s = arrived_at_s - ? WHERE dataset = ?", [first, dataset])
    con.execute(
        """UPDATE datasets SET clock_start_s = clock_start_s + $first,
        origin_s = CASE WHEN clock = 'unix' THEN clock_start_s + $first END WHERE dataset = $dataset""",
        {"first": first or 0.0, "dataset": dataset},
    )


def _set_policy(con: duckdb.DuckDBPyConnection, dataset: str) -> None:
    con.execute(
        """UPDATE datasets SET policy = (
            SELECT CASE WHEN count(DISTINCT coalesce(policy, '')) = 1 THEN any_value(policy) END
        FROM decisions JOIN requests USING (request_index) WHERE requests.dataset = $dataset)
        WHERE dataset = $dataset""",
        {"dataset": dataset},
    )
