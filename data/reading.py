"""What a log format is, and the canonical frames that its reader returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from lodestar.data import schema as s

__all__ = [
    "CANDIDATE_COLUMNS",
    "LINE",
    "ROW_COLUMNS",
    "Columns",
    "Format",
    "Reading",
    "as_columns",
    "not_whole",
    "rejects_of",
]

LINE: Final = "line"
MOST_WHOLE: Final = 2**53

Columns = Mapping[str, type[pl.DataType] | pl.DataType]

#: One row a request: what the log says of the request, its decision and its outcome.
ROW_COLUMNS: Final[Columns] = {
    LINE: pl.Int64,
    s.REQUEST_ID: pl.String,
    s.ARRIVED_AT_S: pl.Float64,
    s.PROMPT_TOKENS: pl.Int64,
    s.OUTPUT_TOKENS: pl.Int64,
    s.BLOCK_IDS: pl.List(pl.Int64),
    s.POLICY: pl.String,
    s.INSTANCE: pl.String,
    s.SNAPSHOT_AGE_MS: pl.Float64,
    s.MODEL_VERSION: pl.String,
    s.TTFT_MS: pl.Float64,
    s.TPOT_MS: pl.Float64,
    s.E2E_MS: pl.Float64,
    s.STATUS: pl.String,
}
#: One row a candidate, joined to its request by line.
CANDIDATE_COLUMNS: Final[Columns] = {
    LINE: pl.Int64,
    s.INSTANCE: pl.String,
    **dict.fromkeys(s.SNAPSHOT_FIELDS, pl.Float64),
    s.SCORE: pl.Float64,
    s.PROBABILITY: pl.Float64,
}


def as_columns(frame: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """Bring a frame to the declared columns, with NULL for those that it lacks and for NaN.

    >>> as_columns(pl.DataFrame({"line": [1]}), {"line": pl.Int64, "instance": pl.String}).rows()
    [(1, None)]
    """
    exprs = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in columns.items()
    ]
    return frame.select(exprs).with_columns(pl.selectors.float().fill_nan(None))


def not_whole(column: str) -> pl.Expr:
    """Tell where a Float64 column holds what no count can be: a fraction, or more than a float counts exactly.

    >>> pl.DataFrame({"a": [1.0, 1.5, 1e300]}).select(not_whole("a")).to_series().to_list()
    [False, True, True]
    """
    return (pl.col(column) % 1 != 0) | (pl.col(column).abs() > MOST_WHOLE)


def rejects_of(lines: pl.Series | list[int], reasons: pl.Series | list[str]) -> pl.DataFrame:
    """Make the frame of rejected lines: `line`, `reason`."""
    return pl.DataFrame({LINE: lines, "reason": reasons}, schema={LINE: pl.Int64, "reason": pl.String})


@dataclass(frozen=True, slots=True)
class Reading:
    """What one file says, row by row, in the order of dispatch where the format knows it.

    Attributes:
        rows: see ``ROW_COLUMNS``; `arrived_at_s` counts from `zero_s`.
        candidates: see ``CANDIDATE_COLUMNS``.
        rejects: `line`, `reason` of the lines that are no rows.
        lines: how many lines the file has, rows and rejects together.
        raw: line numbers → their text.
        clock: 'unix', or the name of a clock that only files of this format share; None where no time is logged.
        zero_s: what the clock shows where `arrived_at_s` is 0.
        block_tokens: prompt tokens in one block, where blocks are logged.
        gpu: instance → its GPU.
        notes: what a user should know of how the file was read.
    """

    rows: pl.DataFrame
    candidates: pl.DataFrame
    rejects: pl.DataFrame
    lines: int
    raw: Callable[[pl.Series], list[str]]
    clock: str | None = None
    zero_s: float = 0.0
    block_tokens: int | None = None
    gpu: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """A log format: its name, what it looks like, what it can tell, and its reader.

    Attributes:
        name: as ``--format`` takes it.
        description: one line.
        provides: which of arrivals, blocks, decisions, candidates, propensities, outcomes it may hold.
        sniff: whether the first bytes of a file look like it.
        read: content → canonical frames.
    """

    name: str
    description: str
    provides: tuple[str, ...]
    sniff: Callable[[bytes], bool]
    read: Callable[[bytes], Reading]
