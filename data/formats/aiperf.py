"""The per-request records of NVIDIA AIPerf, ``profile_export.jsonl``: metrics with their units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.moments import stamp_ns
from lodestar.data.parsing.records import Entry, Zero, converted, entries, number, text, whole
from lodestar.data.reading import Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

MARKS: Final = (b'"metadata"', b'"metrics"', b'"record_processor_id"')
TIME_UNITS_MS: Final = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "sec": 1e3}
COUNT_UNITS: Final = ("tokens", "token")
# Names in the order in which they are looked for: newer ones first.
STARTS: Final = ("request_start_ns", "timestamp_ns")
PHASES: Final = ("benchmark_phase", "credit_phase")
PROMPT: Final = ("input_sequence_length", "error_isl")
TTFT: Final = ("time_to_first_token", "ttft")
CANCELLED_CODE: Final = 499


def sniff(head: bytes) -> bool:
    """Tell by the keys of the first record."""
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0]
    return first.startswith(b"{") and all(mark in first for mark in MARKS)


def read(source: Source) -> Iterator[Reading]:
    """Read the records, one request a line, in the order of completion.

    A session is what `x_correlation_id` names, one user's conversation; `conversation_id` names the prompts that it
    took from the benchmark's data, which other sessions may take too. Requests that were cancelled or failed have no
    prompt length in older builds, and are refused for that. The requests of the warm-up are kept, and counted: they
    load the engines as any other does.
    """
    zero = Zero()
    for found, bad in entries(source):
        warm = sum(_first_text(each, "metadata", PHASES) == "warmup" for each in found)
        yield replace(
            converted(found, partial(_row, zero=zero), bad, clock="unix"),
            zero_s=zero.at_s,
            counted={"requests of the warm-up, kept": warm} if warm else {},
        )


def _first_text(entry: Entry, within: str, names: tuple[str, ...]) -> object:
    inner = entry.value.get(within)
    return next((inner[name] for name in names if name in inner), None) if isinstance(inner, dict) else None


def _row(record: dict[str, Any], zero: Zero) -> dict[str, Any]:
    start = next((f"metadata.{name}" for name in STARTS if _has(record, "metadata", name)), f"metadata.{STARTS[0]}")
    start_ns = stamp_ns(record, start, required=True)
    end_ns = stamp_ns(record, "metadata.request_end_ns")
    if start_ns is not None and end_ns is not None and end_ns < start_ns:
        raise Refused(Reason.BACKWARDS, f"metadata.request_end_ns {end_ns} is before {start} {start_ns}")
    output_tokens = _tokens(record, "output_sequence_length")
    return {
        s.REQUEST_ID: text(record, "metadata.x_request_id"),
        s.SESSION_ID: text(record, "metadata.x_correlation_id") or text(record, "metadata.conversation_id"),
        s.ARRIVED_AT_S: None if start_ns is None else zero.seconds_since(start_ns),
        s.PROMPT_TOKENS: _prompt_tokens(record),
        s.OUTPUT_TOKENS: output_tokens,
        s.TTFT_MS: _ms(record, _named(record, TTFT)),
        s.TPOT_MS: _ms(record, "inter_token_latency") if (output_tokens or 0) > 1 else None,
        s.E2E_MS: _ms(record, "request_latency"),
        s.STATUS: _status(record),
    }


def _has(record: dict[str, Any], within: str, name: str) -> bool:
    inner = record.get(within)
    return isinstance(inner, dict) and inner.get(name) is not None


def _named(record: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if _has(record, "metrics", name)), names[0])


def _prompt_tokens(record: dict[str, Any]) -> int:
    tokens = _tokens(record, _named(record, PROMPT))
    if tokens is None:
        raise Refused(
            Reason.MISSING,
            "metrics.input_sequence_length is missing: this build writes no prompt length for a request that was "
            "cancelled or failed",
        )
    return tokens


def _tokens(record: dict[str, Any], name: str) -> int | None:
    value = whole(record, f"metrics.{name}.value")
    unit = text(record, f"metrics.{name}.unit")
    if value is not None and unit not in COUNT_UNITS:
        raise Refused(Reason.WRONG_VALUE, f"metrics.{name}.unit is {unit!r:.80}, expected tokens")
    return value


def _ms(record: dict[str, Any], name: str) -> float | None:
    value = number(record, f"metrics.{name}.value")
    unit = text(record, f"metrics.{name}.unit")
    if value is None:
        return None
    if unit not in TIME_UNITS_MS:
        raise Refused(
            Reason.WRONG_VALUE, f"metrics.{name}.unit is {unit!r:.80}, expected one of {', '.join(TIME_UNITS_MS)}"
        )
    return value * TIME_UNITS_MS[unit]


def _status(record: dict[str, Any]) -> str:
    error = record.get("error")
    cancelled = _has(record, "metadata", "was_cancelled") and record["metadata"]["was_cancelled"] is True
    if error is None:
        return "cancelled" if cancelled else "ok"
    told = number(record, "error.code") == CANCELLED_CODE or "Cancel" in (text(record, "error.type") or "")
    return "cancelled" if cancelled or told else "error"


FORMAT: Final = Format(
    name="aiperf",
    description="AIPerf profile_export.jsonl, one record a request with metrics and units",
    provides=("arrivals", "outcomes"),
    sniff=sniff,
    read=read,
)
