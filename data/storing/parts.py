"""A part of a source into the tables of its dataset: numbered, in the dataset's time, and only what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import polars as pl

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.log import Ints
from lodestar.data.reading import LINE, Reading
from lodestar.data.storing.inserts import Inserts
from lodestar.data.storing.instances import Instances
from lodestar.data.storing.tally import Facts

__all__ = ["Target", "insert_rejects", "insert_rows", "insert_samples", "require_fit"]


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


def require_fit(target: Target, reading: Reading) -> None:
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


def insert_rejects(target: Target, reading: Reading, facts: Facts) -> None:
    """Store the rows that are refused, each with its text."""
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


def insert_rows(target: Target, reading: Reading, times: list[float]) -> None:
    """Store the requests and what is known of each; add their first and last time, by the clock, to `times`."""
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


def insert_samples(target: Target, reading: Reading, facts: Facts, times: list[float]) -> None:
    """Store what engines said of themselves; add their first and last time, by the clock, to `times`."""
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
