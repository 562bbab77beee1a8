"""Requests of a benchmark of one vLLM engine with the engine's own timestamps; read together with its 1 s series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.formats import vllm_timeseries_meta, vllm_timeseries_series
from lodestar.data.formats.names import folder_named
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import NANOSECONDS, Zero, converted, entries, number, text, whole
from lodestar.data.reading import Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

STAMPS: Final = ("queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")
KEYS: Final = ("request_id", "input_toks", "output_toks", "arrival_time", *STAMPS)
LATEST_S: Final = 10**11
NOTES: Final = (
    "arrival_time is by the wall clock, the engine's timestamps by its monotonic clock: ttft_ms and e2e_ms count from "
    "queued_ts, so the way from the arrival to the engine's queue is not in them",
    "one engine, named by the folder of its files",
)


def sniff(head: bytes) -> bool:
    """Tell by the keys of the first record."""
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0]
    return first.startswith(b"{") and all(f'"{key}"'.encode() in first for key in KEYS)


def read(source: Source) -> Iterator[Reading]:
    """Read the requests, one a line, then the series beside them, one sample a line.

    Arrivals are arrival_time. All latencies are differences of the engine's timestamps, which share a clock: queue_ms
    to scheduled_ts, prefill_ms from there to first_token_ts, decode_ms from there to last_token_ts; ttft_ms and e2e_ms
    from queued_ts. The series has Unix times where the run's ``meta.json`` is there too, else a clock of its own.
    """
    instance, zero = folder_named(source.name), Zero()
    for found, bad in entries(source):
        reading = converted(found, lambda record: _row(record, instance, zero), bad, notes=NOTES)
        yield replace(reading, clock=None if zero.at_ns is None else "unix", zero_s=zero.at_s)
    partners = list(enumerate(source.companions, 1))
    metas = [(place, one) for place, one in partners if vllm_timeseries_meta.sniff(one.head())]
    started_ns = None
    for place, meta in metas:
        started_ns, reading = vllm_timeseries_meta.started(meta)
        yield replace(reading, partner=place)
    for place, series in partners:
        if (place, series) not in metas:
            for reading in vllm_timeseries_series.readings(series, instance, started_ns, zero):
                yield replace(reading, partner=place)


def _row(record: dict[str, Any], instance: str, zero: Zero) -> dict[str, Any]:
    arrived_s = number(record, "arrival_time", required=True) or 0.0
    if not 0 <= arrived_s < LATEST_S:
        raise Refused(Reason.OUT_OF_UNIT, f"arrival_time is {arrived_s:g}, expected Unix seconds")
    queued, scheduled, first, last = _in_order([number(record, key) for key in STAMPS])
    row = {
        s.REQUEST_ID: text(record, "request_id", required=True),
        s.PROMPT_TOKENS: whole(record, "input_toks"),
        s.OUTPUT_TOKENS: whole(record, "output_toks"),
        s.TTFT_MS: _between_ms(queued, first),
        s.E2E_MS: _between_ms(queued, last),
        s.QUEUE_MS: _between_ms(queued, scheduled),
        s.PREFILL_MS: _between_ms(scheduled, first),
        s.DECODE_MS: _between_ms(first, last),
        s.INSTANCE: instance,
    }
    return {**row, s.ARRIVED_AT_S: zero.seconds_since(_nanoseconds(arrived_s))}


def _nanoseconds(seconds: float) -> int:
    # In two parts, since a float holds the time since 1970 in nanoseconds to a quarter of a microsecond only.
    return int(seconds) * NANOSECONDS + round(seconds % 1 * NANOSECONDS)


def _in_order(stamps: list[float | None]) -> list[float | None]:
    told = [(key, stamp) for key, stamp in zip(STAMPS, stamps, strict=True) if stamp is not None]
    for (before, earlier), (after, later) in pairwise(told):
        if later < earlier:
            raise Refused(Reason.BACKWARDS, f"{after} {later} is before {before} {earlier}")
    return stamps


def _between_ms(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else (end_s - start_s) * 1e3


FORMAT: Final = Format(
    name="vllm-timeseries",
    description="requests of a benchmark of one vLLM engine with its own timestamps, JSON Lines",
    provides=("arrivals", "decisions", "outcomes"),
    sniff=sniff,
    read=read,
    companions=("vllm-timeseries-series", "vllm-timeseries-meta"),
)
