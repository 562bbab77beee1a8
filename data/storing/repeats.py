"""Rows that a dataset holds already: a corrected file replaces its earlier version, other repeats are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import duckdb
import polars as pl

from lodestar.data.reading import LINE, Reading, rejects_of
from lodestar.data.reasons import Reason

__all__ = ["FIRST_OF_JOINED", "reject_duplicates", "remove_failed_attempts", "remove_source", "replace_earlier_version"]

#: How the id of a source ends that was read together with companions; theirs end in -1, -2, and so on.
FIRST_OF_JOINED: Final = "-0"
#: Of the rows of a source that a later one must repeat to be its new version.
REPEATED_SHARE: Final = 0.5
HANGING: Final = ("blocks", "sessions", "dispatches", "decisions", "candidates", "outcomes", "phases")

# A request is known again by all that it says of itself. A new version may tell of a decision or a latency that the
# earlier one left out, but not another one: the same requests under another router are no new version.
REPEATED_REQUESTS: Final = """
WITH told AS (
    SELECT r.request_index, r.request_id, r.prompt_tokens, r.output_tokens,
        round(r.arrived_at_s * 1e5) AS arrived, d.instance_index, o.ttft_ms, o.e2e_ms
    FROM requests r
    LEFT JOIN decisions d USING (request_index)
    LEFT JOIN outcomes o USING (request_index)
    WHERE r.dataset = $dataset)
SELECT sources.source_id, count(DISTINCT old.request_index) FROM told old JOIN told new
    ON old.prompt_tokens = new.prompt_tokens
    AND old.output_tokens IS NOT DISTINCT FROM new.output_tokens
    AND old.request_id IS NOT DISTINCT FROM new.request_id
    AND old.arrived IS NOT DISTINCT FROM new.arrived
JOIN sources ON old.request_index BETWEEN sources.first_request_index AND sources.last_request_index
WHERE old.request_index < $first AND new.request_index >= $first AND sources.source_id IN (SELECT unnest($among))
    AND coalesce(old.instance_index = new.instance_index, true)
    AND coalesce(abs(old.ttft_ms - new.ttft_ms) < 0.01, true)
    AND coalesce(abs(old.e2e_ms - new.e2e_ms) < 0.01, true)
GROUP BY sources.source_id
"""
REPEATED_SAMPLES: Final = """
SELECT old.source_id, count(DISTINCT old.rowid) FROM engine_samples old JOIN engine_samples new
    ON old.instance_index IS NOT DISTINCT FROM new.instance_index AND old.sampled_at_s = new.sampled_at_s
    AND old.running_requests IS NOT DISTINCT FROM new.running_requests
WHERE old.dataset = $dataset AND new.dataset = $dataset
    AND new.source_id = $source_id AND old.source_id IN (SELECT unnest($among))
GROUP BY old.source_id
"""


def replace_earlier_version(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    source_id: str,
    format: str,
    first: int,
    span: tuple[float, float] | None,
) -> tuple[int, str] | None:
    """Remove the source of which the rows from index `first` on are a new version; return its number and what it was.

    That is a source of the same format at least half of whose rows come again. Only sources whose times overlap
    `span` can be one, so logs that follow each other cost nothing.
    """
    among = con.execute(
        """SELECT source_id FROM sources WHERE dataset = ? AND format = ?
        AND (first_at_s IS NULL OR ? IS NULL OR (first_at_s <= ? AND last_at_s >= ?))""",
        [dataset, format, span and span[0], span and span[1], span and span[0]],
    ).fetchall()
    if not among:
        return None
    given = {"dataset": dataset, "among": [name for (name,) in among]}
    repeated = con.execute(REPEATED_REQUESTS, {**given, "first": first}).fetchall()
    repeated += con.execute(REPEATED_SAMPLES, {**given, "source_id": source_id}).fetchall()
    count: dict[str, int] = {}
    for name, rows in repeated:
        count[name] = count.get(name, 0) + rows
    for name in given["among"]:
        number, file, sha256, stored = con.execute(
            'SELECT number, "file", sha256, stored FROM sources WHERE source_id = ?', [name]
        ).fetchall()[0]
        if count.get(name, 0) >= max(REPEATED_SHARE * stored, 1):
            remove_source(con, name)
            return number, f"{file} ({sha256[:8]}, {stored} rows stored)"
    return None


def remove_failed_attempts(con: duckdb.DuckDBPyConnection, dataset: str, sha256: str, file: str) -> None:
    """Remove earlier attempts at this very file that stored nothing, with the rows that they refused."""
    failed = con.execute(
        """SELECT source_id FROM sources WHERE dataset = ? AND stored = 0 AND rows > 0
        AND (sha256 = ? OR "file" = ?)""",
        [dataset, sha256, file],
    ).fetchall()
    for (name,) in failed:
        remove_source(con, name)


def remove_source(con: duckdb.DuckDBPyConnection, source_id: str) -> None:
    """Remove a source with all that it owns, and the companions that were read together with it."""
    first, last = con.execute(
        "SELECT first_request_index, last_request_index FROM sources WHERE source_id = ?", [source_id]
    ).fetchall()[0]
    for table in ("requests", *HANGING):
        con.execute(f"DELETE FROM {table} WHERE request_index BETWEEN ? AND ?", [first, last])
    together = source_id.removesuffix(FIRST_OF_JOINED) + "-" if source_id.endswith(FIRST_OF_JOINED) else source_id
    for table in ("engine_samples", "rejects", "sources"):
        con.execute(f"DELETE FROM {table} WHERE source_id = $1 OR starts_with(source_id, $2)", [source_id, together])


def reject_duplicates(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    source_id: str,
    file: str,
    first: int,
    read: Callable[[], Iterable[Reading]],
) -> int:
    """Move the rows from index `first` on whose request id the dataset has already to the rejects; return how many."""
    (repeated,) = con.execute(
        "SELECT count(request_id) - count(DISTINCT request_id) FROM requests WHERE dataset = ?", [dataset]
    ).fetchall()[0]
    if not repeated:
        return 0
    # An index is larger the later its row came, so the first row of an id is the one with the smallest.
    again: pl.DataFrame = con.sql(
        """SELECT request_index, line, request_id FROM requests WHERE dataset = $1 AND request_index >= $2
        AND request_id IS NOT NULL
        QUALIFY request_index > min(request_index) OVER (PARTITION BY request_id)
        UNION
        SELECT request_index, line, request_id FROM requests WHERE dataset = $1 AND request_index >= $2
        AND request_id IN (SELECT request_id FROM requests WHERE dataset = $1 AND request_index < $2)
        ORDER BY line""",
        params=[dataset, first],
    ).pl()
    con.register("again", again.to_arrow())
    for table in ("requests", *HANGING):
        con.execute(f"DELETE FROM {table} WHERE request_index IN (SELECT request_index FROM again)")
    con.unregister("again")
    details = [f"request_id {name[:80]!r} is there already" for name in again["request_id"]]
    rejects = rejects_of(again[LINE], Reason.DUPLICATE, details, _texts(again[LINE], read))
    con.register("refused", rejects.to_arrow())
    con.execute(
        "INSERT INTO rejects BY NAME SELECT ? AS dataset, ? AS source_id, ? AS file, * FROM refused",
        [dataset, source_id, file],
    )
    con.unregister("refused")
    return len(again)


def _texts(lines: pl.Series, read: Callable[[], Iterable[Reading]]) -> list[str]:
    """Read the source once more for the text of some of its lines: keeping all texts would take memory."""
    wanted = lines.to_list()
    found: dict[int, str | None] = {}
    for reading in read():
        if reading.partner == 0 and len(reading.rows):
            here = reading.rows[LINE].filter(reading.rows[LINE].is_in(wanted))
            found.update(zip(here, reading.raw(here), strict=True))
    return [found.get(line) or "" for line in lines]
