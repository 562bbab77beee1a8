"""What a log format is, and the canonical frames that its reader gives, a part of a source at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.reasons import Reason

if TYPE_CHECKING:
    from lodestar.data.sources.source import Source

__all__ = [
    "CANDIDATE_COLUMNS",
    "LINE",
    "RECORD",
    "REJECT_COLUMNS",
    "ROW_COLUMNS",
    "SAMPLE_COLUMNS",
    "Columns",
    "Format",
    "Reading",
    "as_columns",
    "empty",
    "no_rejects",
    "not_whole",
    "rejects_of",
]

LINE: Final = "line"
RECORD: Final = "record"
MOST_WHOLE: Final = 2**53

Columns = Mapping[str, type[pl.DataType] | pl.DataType]

#: One row a request: what the log says of the request, its decision and its outcome.
ROW_COLUMNS: Final[Columns] = {
    LINE: pl.Int64,  # the row's number in its source, unique: its line, or a count where a line holds many records
    RECORD: pl.String,  # where in the source a record that is no whole line stands, such as 'span 1f0a'
    s.DISPATCH_NUMBER: pl.Int64,  # place in the order of dispatch, where neither lines nor arrivals tell it
    s.REQUEST_ID: pl.String,
    s.ARRIVED_AT_S: pl.Float64,
    s.PROMPT_TOKENS: pl.Int64,
    s.OUTPUT_TOKENS: pl.Int64,
    s.BLOCK_IDS: pl.List(pl.Int64),
    s.SESSION_ID: pl.String,
    s.POLICY: pl.String,
    s.INSTANCE: pl.String,
    s.SNAPSHOT_AGE_MS: pl.Float64,
    s.MODEL_VERSION: pl.String,
    s.TTFT_MS: pl.Float64,
    s.TPOT_MS: pl.Float64,
    s.E2E_MS: pl.Float64,
    s.QUEUE_MS: pl.Float64,
    s.PREFILL_MS: pl.Float64,
    s.DECODE_MS: pl.Float64,
    s.CACHED_TOKENS: pl.Int64,
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
#: One row a time at which an engine told its state; `sampled_at_s` counts from `zero_s`, as arrivals do.
SAMPLE_COLUMNS: Final[Columns] = {
    LINE: pl.Int64,
    RECORD: pl.String,
    s.INSTANCE: pl.String,
    s.SAMPLED_AT_S: pl.Float64,
    **dict.fromkeys(s.SAMPLE_FIELDS, pl.Float64),
}
#: One row a row that is refused; where `raw` is NULL, `Reading.raw` finds it.
REJECT_COLUMNS: Final[Columns] = {
    LINE: pl.Int64,
    RECORD: pl.String,
    "reason": pl.String,
    "detail": pl.String,
    "raw": pl.String,
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


def empty(columns: Columns) -> pl.DataFrame:
    """Make a frame of these columns without rows."""
    return pl.DataFrame(schema=dict(columns))


def not_whole(column: str) -> pl.Expr:
    """Tell where a Float64 column holds what no count can be: a fraction, or more than a float counts exactly.

    >>> pl.DataFrame({"a": [1.0, 1.5, 1e300]}).select(not_whole("a")).to_series().to_list()
    [False, True, True]
    """
    return (pl.col(column) % 1 != 0) | (pl.col(column).abs() > MOST_WHOLE)


def rejects_of(
    lines: pl.Series | list[int],
    reason: Reason,
    details: pl.Series | list[str],
    raw: list[str] | None = None,
    record: pl.Series | list[str] | None = None,
) -> pl.DataFrame:
    """Make the frame of rows that are refused for one reason; see ``REJECT_COLUMNS``.

    >>> rejects_of([3], Reason.MISSING, ["no timestamp"]).rows()
    [(3, None, 'missing-key', 'no timestamp', None)]
    """
    nothing = [None] * len(lines)
    columns = {LINE: lines, RECORD: nothing if record is None else record, "reason": [str(reason)] * len(lines)}
    return pl.DataFrame(
        {**columns, "detail": details, "raw": nothing if raw is None else raw}, schema=dict(REJECT_COLUMNS)
    )


def no_rejects() -> pl.DataFrame:
    """Make the frame of rejects without rows."""
    return empty(REJECT_COLUMNS)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a part of a source says; a reader gives one after the other, each line in exactly one of them.

    Attributes:
        rows: see ``ROW_COLUMNS``; `arrived_at_s` counts from `zero_s`, the same in every part.
        candidates: see ``CANDIDATE_COLUMNS``.
        samples: see ``SAMPLE_COLUMNS``.
        rejects: see ``REJECT_COLUMNS``.
        lines: how many rows this part read: those in `rows`, `samples` and `rejects` together.
        raw: row numbers → their text.
        clock: 'unix', or the name of a clock that only files of this format share; None where no time is logged.
        zero_s: what the clock shows where `arrived_at_s` is 0.
        block_tokens: prompt tokens in one block, where blocks are logged.
        version: of the format, where the log shows it.
        gpu: instance → its GPU.
        notes: what a user should know of how the source was read.
        counted: the same with a number that adds up over the parts: sentence → how many.
        partner: 0 for the source itself, 1, 2, … for a companion of it whose lines this part accounts for.
    """

    lines: int
    rows: pl.DataFrame = field(default_factory=lambda: empty(ROW_COLUMNS))
    candidates: pl.DataFrame = field(default_factory=lambda: empty(CANDIDATE_COLUMNS))
    samples: pl.DataFrame = field(default_factory=lambda: empty(SAMPLE_COLUMNS))
    rejects: pl.DataFrame = field(default_factory=no_rejects)
    raw: Callable[[pl.Series], list[str | None]] = lambda lines: [None] * len(lines)
    clock: str | None = None
    zero_s: float = 0.0
    block_tokens: int | None = None
    version: str | None = None
    gpu: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)
    partner: int = 0


@dataclass(frozen=True, slots=True)
class Format:
    """A log format: its name, what it looks like, what it can tell, and its reader.

    Attributes:
        name: as ``--format`` takes it.
        description: one line.
        provides: which of arrivals, blocks, decisions, candidates, propensities, outcomes, engine samples it may hold.
        sniff: whether the first bytes of a source look like it.
        read: source → canonical frames, part by part.
        sample: what its tests read: 'real logs', or 'the documented schema' where there were none to be had.
        companions: formats whose files, named in the same call, are read together with a file of this one.
        key: what else than the content a reading depends on, such as the hash of a mapping file.
    """

    name: str
    description: str
    provides: tuple[str, ...]
    sniff: Callable[[bytes], bool]
    read: Callable[[Source], Iterator[Reading]]
    sample: str = "real logs"
    companions: tuple[str, ...] = ()
    key: str = ""
