"""What of a dataset was read before, and what is new since: told by the sources, without reading the requests again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import duckdb
import numpy as np

from lodestar.data.log import Ints

__all__ = ["News", "Seen", "SourceSeen", "names_of", "news_since", "seen_now"]

CONTEXT_REQUESTS: Final = 2000  # earlier ones that show what kind of counters a log has
#: A request by its line, name and length: what a log that has grown must still begin with. Outcomes may come later.
_DIGEST: Final = """SELECT count(*), coalesce(max(line), 0), coalesce(bit_xor(md5_number(
    line || ':' || coalesce(request_id, '') || ':' || coalesce(prompt_tokens, -1)))::VARCHAR, ''),
    count(*) FILTER (WHERE coalesce(ttft_ms, tpot_ms, e2e_ms) IS NOT NULL)
    FROM requests LEFT JOIN outcomes USING (request_index) WHERE request_index BETWEEN ? AND ? AND line <= ?"""
_EVERY_LINE: Final = 2**62


@dataclass(frozen=True, slots=True)
class SourceSeen:
    """A source as it was read: its rows, its last line, a digest of its requests, and how many had an outcome."""

    source_id: str
    number: int
    rows: int
    last_line: int
    digest: str
    outcomes: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A dataset as it was read.

    Attributes:
        sources: that own requests, in the order in which they came.
        requests: of all of them.
        clock_start_s: what the clock showed at the first arrival; None without arrivals.
        newest_at_s: the last arrival; None without arrivals.
        longest_s: from arrival to finish of the longest request.
    """

    sources: tuple[SourceSeen, ...]
    requests: int
    clock_start_s: float | None
    newest_at_s: float | None
    longest_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Seen:
        """Read what `to_dict` wrote."""
        return cls(**values | {"sources": tuple(SourceSeen(**source) for source in values["sources"])})


@dataclass(frozen=True, slots=True)
class News:
    """What came since.

    Attributes:
        new: numbers of the new requests in the store.
        context: numbers of these and of the earlier requests that what they found depends on.
        broken: why the dataset is no continuation of what was read; None where it is.
        late_outcomes: how many requests that were read without an outcome have one now.
    """

    new: Ints
    context: Ints
    broken: str | None = None
    late_outcomes: int = 0

    @property
    def notes(self) -> dict[str, str]:
        """What is new and is not among the new requests, in words."""
        if not self.late_outcomes:
            return {}
        told = f"{self.late_outcomes} requests that were read before have one only now: only a full train learns them"
        return {"late outcomes": told}


def seen_now(con: duckdb.DuckDBPyConnection, dataset: str, longest_s: float, before: Seen | None = None) -> Seen:
    """Describe a dataset as it is now; the sources that `before` knows are not read again."""
    known = {source.source_id: source for source in before.sources} if before else {}
    sources = [known.get(name) or _described(con, name, number, span) for name, number, *span in _owners(con, dataset)]
    requests, newest_at_s = con.execute(
        "SELECT count(*), max(arrived_at_s) FROM requests WHERE dataset = ?", [dataset]
    ).fetchall()[0]
    return Seen(tuple(sources), requests, _clock_start_s(con, dataset), newest_at_s, longest_s)


def news_since(con: duckdb.DuckDBPyConnection, dataset: str, seen: Seen) -> News:
    """Compare a dataset with what was read of it.

    It goes on where all sources that were read are still there, or were replaced by a version that begins with the very
    same lines, and where no new request came before the seen ones. One that came a little earlier than the last seen,
    by no more than the longest request takes, is not older: logs are written when requests finish.
    """
    spans, late, broken = _new_spans(con, dataset, seen)
    if broken:
        return _broken(broken)
    new = _numbers(con, spans)
    if not len(new) or seen.newest_at_s is None:
        return News(new, new, late_outcomes=late)
    (first_at_s,) = con.execute(
        "SELECT min(arrived_at_s) FROM requests WHERE request_index IN (SELECT unnest(?))", [new]
    ).fetchall()[0]
    if first_at_s < seen.newest_at_s - seen.longest_s:
        return _broken(
            f"new requests came before the seen ones: {seen.newest_at_s - first_at_s:.0f} s before the last of them, "
            f"more than the {seen.longest_s:.0f} s that the longest request took"
        )
    if (start_s := _clock_start_s(con, dataset)) != seen.clock_start_s:
        return _broken(
            f"the times of the seen requests changed: the first arrival was at {seen.clock_start_s} s "
            f"of the log's clock and is at {start_s} s now"
        )
    return News(new, _context(con, dataset, first_at_s - seen.longest_s), late_outcomes=late)


def names_of(con: duckdb.DuckDBPyConnection, numbers: Ints) -> list[str]:
    """Return the ids of requests, as `load_log` names them."""
    found = con.execute(
        """SELECT coalesce(r.request_id, sources.sha256[:8] || ':' || r.line) FROM requests r JOIN sources
        ON sources.dataset = r.dataset
        AND r.request_index BETWEEN sources.first_request_index AND sources.last_request_index
        WHERE r.request_index IN (SELECT unnest($1::BIGINT[]))""",
        [numbers],
    ).fetchall()
    return [name for (name,) in found]


def _broken(why: str) -> News:
    nothing = np.zeros(0, dtype=np.int64)
    return News(nothing, nothing, why)


def _new_spans(
    con: duckdb.DuckDBPyConnection, dataset: str, seen: Seen
) -> tuple[list[tuple[int, int, int]], int, str | None]:
    """Return first and last number and last seen line of all that hold new requests; or why nothing can be told.

    Between the two: how many seen requests have their outcome only now.
    """
    owners = {name: (number, first, last) for name, number, first, last in _owners(con, dataset)}
    fresh = {number: (first, last) for name, (number, first, last) in owners.items() if name not in _names(seen)}
    spans: list[tuple[int, int, int]] = []
    late = 0
    for source in seen.sources:
        if source.source_id in owners:
            continue
        if source.number not in fresh:
            return [], 0, f"a source that was seen is gone: number {source.number}, {source.rows} requests"
        first, last = fresh.pop(source.number)
        *found, outcomes = con.execute(_DIGEST, [first, last, source.last_line]).fetchall()[0]
        if found != [source.rows, source.last_line, source.digest]:
            return (
                [],
                0,
                f"source number {source.number} was replaced by one that does not begin with the same requests",
            )
        if seen.newest_at_s is None and source is not seen.sources[-1]:
            return [], 0, f"source number {source.number} grew, and without arrivals later sources follow it"
        late += max(0, outcomes - source.outcomes)
        spans.append((first, last, source.last_line))
    return spans + [(first, last, 0) for first, last in fresh.values()], late, None


def _names(seen: Seen) -> set[str]:
    return {source.source_id for source in seen.sources}


def _owners(con: duckdb.DuckDBPyConnection, dataset: str) -> list[tuple[str, int, int, int]]:
    """List the sources that own requests: id, number, first and last request."""
    found: list[tuple[str, int, int, int]] = con.execute(
        """SELECT source_id, number, first_request_index, last_request_index FROM sources
        WHERE dataset = ? AND first_request_index IS NOT NULL ORDER BY number, source_id""",
        [dataset],
    ).fetchall()
    return found


def _described(con: duckdb.DuckDBPyConnection, name: str, number: int, span: list[int]) -> SourceSeen:
    rows, last_line, digest, outcomes = con.execute(_DIGEST, [*span, _EVERY_LINE]).fetchall()[0]
    return SourceSeen(name, number, rows, last_line, digest, outcomes)


def _numbers(con: duckdb.DuckDBPyConnection, spans: list[tuple[int, int, int]]) -> Ints:
    """Return the requests of these spans beyond a line."""
    found = [
        con.execute(
            "SELECT request_index FROM requests WHERE request_index BETWEEN ? AND ? AND line > ?", list(span)
        ).fetchnumpy()["request_index"]
        for span in spans
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *found]).astype(np.int64)


def _context(con: duckdb.DuckDBPyConnection, dataset: str, from_s: float) -> Ints:
    """Return the requests that arrived from then on, and at least as many as show what a log is like."""
    found = con.execute(
        """SELECT request_index FROM requests WHERE dataset = $dataset AND arrived_at_s >= least($from_s, (
            SELECT min(arrived_at_s) FROM (
                SELECT arrived_at_s FROM requests WHERE dataset = $dataset AND arrived_at_s < $from_s
                ORDER BY arrived_at_s DESC LIMIT $most)))""",
        {"dataset": dataset, "from_s": from_s, "most": CONTEXT_REQUESTS},
    ).fetchnumpy()
    return np.asarray(found["request_index"], dtype=np.int64)


def _clock_start_s(con: duckdb.DuckDBPyConnection, dataset: str) -> float | None:
    ((start,),) = con.execute("SELECT clock_start_s FROM datasets WHERE dataset = ?", [dataset]).fetchall() or [(None,)]
    return None if start is None else float(start)
