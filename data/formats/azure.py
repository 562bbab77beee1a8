"""The Azure LLM inference traces of 2023 and 2024: arrival, prompt and output length, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.parsing.delimited import Fields, csv_parts, raw_of
from lodestar.data.reading import ROW_COLUMNS, Format, Reading, as_columns
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
FIELDS: Final = Fields(numbers=COLUMNS[1:], whole=COLUMNS[1:], times=COLUMNS[:1])
HEADER: Final = ",".join(COLUMNS).encode()


def sniff(head: bytes) -> bool:
    """Tell by the header."""
    return head.removeprefix(b"\xef\xbb\xbf").startswith(HEADER)


def read(source: Source) -> Iterator[Reading]:
    """Read the rows, one a line; times without a zone are taken as UTC."""
    zero_ns: int | None = None
    for part in csv_parts(source, FIELDS, COLUMNS):
        rows = part.columns
        if zero_ns is None and len(rows):
            zero_ns = int(rows["TIMESTAMP"][0])
        rows = rows.rename({"ContextTokens": s.PROMPT_TOKENS, "GeneratedTokens": s.OUTPUT_TOKENS}).with_columns(
            ((pl.col("TIMESTAMP") - (zero_ns or 0)) / 1e9).alias(s.ARRIVED_AT_S)
        )
        yield Reading(
            rows=as_columns(rows, ROW_COLUMNS),
            rejects=part.rejects,
            lines=part.lines,
            raw=raw_of(part.block),
            clock="unix",
            zero_s=(zero_ns or 0) / 1e9,
            notes=("times without a zone are taken as UTC",) if part.lacks_zone else (),
        )


FORMAT: Final = Format(
    name="azure",
    description="Azure LLM inference trace, CSV of arrival, prompt and output tokens",
    provides=("arrivals",),
    sniff=sniff,
    read=read,
)
