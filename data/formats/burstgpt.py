"""The BurstGPT traces: requests to ChatGPT and GPT-4 over months, in newer releases with sessions and durations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.parsing.delimited import Fields, csv_parts, header_of, raw_of
from lodestar.data.reading import ROW_COLUMNS, Format, Reading, as_columns
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

TIME: Final = "Timestamp"
PROMPT: Final = "Request tokens"
OUTPUT: Final = "Response tokens"
SESSION: Final = "Session ID"
DURATION: Final = "Elapsed time"
REQUIRED: Final = (TIME, "Model", PROMPT, OUTPUT, "Log Type")
FIELDS: Final = Fields(texts=(SESSION, "Model"), numbers=(TIME, PROMPT, OUTPUT, DURATION), whole=(PROMPT, OUTPUT))
FAILED: Final = "requests without response tokens, which the trace's authors name failures: status 'error'"
NOTES: Final = (
    "times are seconds from midnight of the first day, in a time zone that is not named",
    "requests to several models, ChatGPT and GPT-4, lie in one trace; the tables do not tell them apart",
)
WHOLE: Final = "durations are logged in whole seconds"


def sniff(head: bytes) -> bool:
    """Tell by the names of the columns."""
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    return first.startswith(TIME.encode()) and set(REQUIRED) <= set(header_of(first))


def read(source: Source) -> Iterator[Reading]:
    """Read the rows, one a line.

    `Elapsed time` is from the submission to the complete answer. A row with 0 response tokens is a request that
    failed: it is kept, for it loads a cluster as it arrives, with 0 output tokens and the status 'error'. Rows with
    0 request tokens are refused, as they are in every format.
    """
    zero_s: float | None = None
    for part in csv_parts(source, FIELDS, REQUIRED):
        columns = part.columns
        if zero_s is None and columns[TIME].is_not_null().any():
            zero_s = float(columns[TIME].drop_nulls()[0])
        rows = columns.select(pl.all(), *_derived(columns.columns, zero_s or 0.0))
        failed = len(rows.filter(pl.col(OUTPUT) == 0, pl.col(PROMPT) > 0))
        yield Reading(
            rows=as_columns(rows, ROW_COLUMNS),
            rejects=part.rejects,
            lines=part.lines,
            raw=raw_of(part.block),
            clock="burstgpt",
            zero_s=zero_s or 0.0,
            notes=(*NOTES, WHOLE) if _in_whole_seconds(columns) else NOTES,
            counted={FAILED: failed} if failed else {},
        )


def _in_whole_seconds(columns: pl.DataFrame) -> bool:
    told = columns[DURATION].drop_nulls() if DURATION in columns.columns else pl.Series(dtype=pl.Float64)
    return len(told) > 0 and bool((told % 1 == 0).all())


def _derived(columns: list[str], zero_s: float) -> Iterator[pl.Expr]:
    yield (pl.col(TIME) - zero_s).alias(s.ARRIVED_AT_S)
    yield pl.col(PROMPT).alias(s.PROMPT_TOKENS)
    yield pl.col(OUTPUT).alias(s.OUTPUT_TOKENS)
    yield pl.when(pl.col(OUTPUT) == 0).then(pl.lit("error")).when(pl.col(OUTPUT) > 0).then(pl.lit("ok")).alias(s.STATUS)
    if SESSION in columns:
        # Only conversations have a session; calls of the API leave it empty.
        yield pl.when(pl.col(SESSION) != "").then(SESSION).alias(s.SESSION_ID)
    if DURATION in columns:
        yield (pl.col(DURATION) * 1e3).alias(s.E2E_MS)


FORMAT: Final = Format(
    name="burstgpt",
    description="BurstGPT trace, CSV of arrivals, lengths and, in newer releases, sessions and durations",
    provides=("arrivals", "outcomes"),
    sniff=sniff,
    read=read,
    sample="the documented schema",
)
