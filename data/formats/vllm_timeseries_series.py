"""The state of one vLLM engine once a second, CSV, as a benchmark writes it beside its requests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.formats.names import folder_named
from lodestar.data.formats.vllm_timeseries_meta import started
from lodestar.data.parsing.delimited import Fields, csv_parts, header_of, raw_of
from lodestar.data.parsing.records import Zero
from lodestar.data.reading import LINE, SAMPLE_COLUMNS, Format, Reading, as_columns, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT", "readings"]

NAMES: Final = {
    "prompt_throughput": s.PREFILL_TOKENS_PER_S,
    "gen_throughput": s.DECODE_TOKENS_PER_S,
    "running": s.RUNNING_REQUESTS,
    "waiting": s.WAITING_REQUESTS,
    "kv_cache_pct": s.KV_USAGE_RATIO,
}
TIME: Final = "t"
FIELDS: Final = Fields(numbers=(TIME, *NAMES), whole=("running", "waiting"))
OWN_CLOCK: Final = "vllm-timeseries"
NO_START: Final = (
    "t counts from a start that only the run's meta.json tells: the samples have a clock of their own. Name it "
    "in the same call"
)
EMPTY_CACHE: Final = "samples with kv_cache_pct 0 while requests run, which cannot be: taken as not known"


def sniff(head: bytes) -> bool:
    """Tell by the header."""
    header = header_of(head.split(b"\n", 1)[0])
    return header[:1] == [TIME] and set(NAMES) <= set(header)


def read(source: Source) -> Iterator[Reading]:
    """Read a series without its requests; its times are Unix times where the run's ``meta.json`` is there too."""
    started_ns = None
    for place, meta in enumerate(source.companions, 1):
        started_ns, reading = started(meta)
        yield replace(reading, partner=place)
    yield from readings(source, folder_named(source.name), started_ns, Zero())


def readings(source: Source, instance: str, started_ns: int | None, zero: Zero) -> Iterator[Reading]:
    """Read a series, one sample a line, of an engine and a run whose start may be known.

    `kv_cache_pct` is a percentage, and throughputs are tokens in the second that ends at `t`.
    """
    clock = OWN_CLOCK if started_ns is None else "unix"
    started_s = 0.0 if started_ns is None else zero.seconds_since(started_ns)
    latest_s = -math.inf
    for part in csv_parts(source, FIELDS, (TIME, *NAMES)):
        told = part.columns.with_columns(pl.col(TIME).fill_null(-math.inf).cum_max().alias("latest"))
        told = told.with_columns(pl.col("latest").shift(fill_value=latest_s).clip(latest_s))
        back = pl.col(TIME) < pl.col("latest")
        # Polars 2.1 panics where it formats a column of which a chunk is empty, as `shift` and `filter` leave one.
        backwards = told.filter(back).rechunk()
        details = backwards.select(pl.format("t is {}, after a line of {}", TIME, "latest")).to_series()
        rows = told.filter(~back.fill_null(False))
        latest_s = max([latest_s, *rows[TIME].drop_nulls()])
        untrue = (pl.col("kv_cache_pct") == 0) & (pl.col("running") > 0)
        samples = rows.select(
            LINE,
            pl.lit(instance).alias(s.INSTANCE),
            (pl.col(TIME) + started_s).alias(s.SAMPLED_AT_S),
            *(pl.col(name).alias(column) for name, column in NAMES.items() if name != "kv_cache_pct"),
            pl.when(~untrue.fill_null(False)).then(pl.col("kv_cache_pct") / 100).alias(s.KV_USAGE_RATIO),
        )
        unknown = len(rows.filter(untrue))
        yield Reading(
            lines=part.lines,
            samples=as_columns(samples, SAMPLE_COLUMNS),
            rejects=pl.concat([part.rejects, rejects_of(backwards[LINE], Reason.BACKWARDS, details)]),
            raw=raw_of(part.block),
            clock=clock,
            zero_s=0.0 if started_ns is None else zero.at_s,
            notes=(NO_START,) if started_ns is None else (),
            counted={EMPTY_CACHE: unknown} if unknown else {},
        )


FORMAT: Final = Format(
    name="vllm-timeseries-series",
    description="state of one vLLM engine once a second, CSV, read with vllm-timeseries",
    provides=("engine samples",),
    sniff=sniff,
    read=read,
    companions=("vllm-timeseries-meta",),
)
