"""The Azure LLM inference traces: arrival, prompt and output length, nothing else."""

from __future__ import annotations

from typing import Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.delimited import numbers, raw_of, split_csv
from lodestar.data.files import text_lines
from lodestar.data.reading import CANDIDATE_COLUMNS, LINE, ROW_COLUMNS, Format, Reading, as_columns, rejects_of

__all__ = ["FORMAT"]

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
HEADER: Final = ",".join(COLUMNS).encode()
ZONE: Final = r"(Z|[+-]\d\d:?\d\d)$"


def sniff(head: bytes) -> bool:
    """Tell by the header."""
    return head.lstrip(b"\xef\xbb\xbf").startswith(HEADER)


def read(content: bytes) -> Reading:
    """Read the rows; times without a zone are taken as UTC."""
    lines = text_lines(content)
    text, misshapen = split_csv(lines, COLUMNS)
    timed = text.with_columns(_utc(pl.col("TIMESTAMP")).alias("at"))
    untimed = timed.filter(pl.col("at").is_null())
    good, unreadable = numbers(timed.filter(pl.col("at").is_not_null()), list(COLUMNS[1:]), COLUMNS[1:])
    epoch_ns: list[int] = good["at"].dt.epoch("ns").to_list()
    first_ns = min(epoch_ns, default=0)
    rows = good.rename({"ContextTokens": s.PROMPT_TOKENS, "GeneratedTokens": s.OUTPUT_TOKENS}).with_columns(
        ((pl.col("at").dt.epoch("ns") - first_ns) / 1e9).alias(s.ARRIVED_AT_S)
    )
    no_zone = bool((~good["TIMESTAMP"].str.contains(ZONE)).any())
    reasons = untimed.select(pl.format("column 'TIMESTAMP': '{}' is no time", "TIMESTAMP")).to_series()
    return Reading(
        rows=as_columns(rows, ROW_COLUMNS),
        candidates=as_columns(rows.clear().select(LINE), CANDIDATE_COLUMNS),
        rejects=pl.concat([misshapen, unreadable, rejects_of(untimed[LINE], reasons)]),
        lines=len(lines) - 1,
        raw=raw_of(lines),
        clock="unix",
        zero_s=first_ns / 1e9,
        notes=("times carry no zone and are taken as UTC",) if no_zone else (),
    )


def _utc(column: pl.Expr) -> pl.Expr:
    text = column.str.replace("T", " ", literal=True).str.replace(r"Z$", "+00:00")
    naive = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False)
    zoned = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="ns", strict=False)
    return pl.coalesce(naive, zoned.dt.convert_time_zone("UTC").dt.replace_time_zone(None))


FORMAT: Final = Format(
    name="azure",
    description="Azure LLM inference trace, CSV of arrival, prompt and output tokens",
    provides=("arrivals",),
    sniff=sniff,
    read=read,
)
