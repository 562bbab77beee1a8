"""One source into the canonical tables, part by part, in one transaction: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import duckdb
import polars as pl

from lodestar.data import schema as s
from lodestar.data.errors import ConfigError, DataError
from lodestar.data.reading import LINE, Reading
from lodestar.data.storing.parts import Target, insert_rejects, insert_rows, insert_samples, require_fit
from lodestar.data.storing.repeats import reject_duplicates, remove_failed_attempts, replace_earlier_version
from lodestar.data.storing.tally import Facts, Tally

__all__ = ["append_source", "is_stored", "with_policy"]

UNIFORM: Final = "random"


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
            require_fit(target, reading)
            tally = tallies[reading.partner]
            insert_rejects(target, reading, tally.facts)
            insert_rows(target, reading, times)
            insert_samples(target, reading, tally.facts, times)
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
    remove_failed_attempts(con, dataset, own.facts.sha256, own.facts.file)
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
