"""The ``llm_request`` spans that vLLM sends by OpenTelemetry: OTLP as JSON lines or protobuf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any, Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.formats.otlp_spans import Found, attributes, found_spans
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import Entry, Zero, converted, seconds_as_ms, text, whole
from lodestar.data.reading import Format, Reading, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

SPAN: Final = "llm_request"
SPAN_NAME_BYTES: Final = b"\x2a\x0bllm_request"  # field 5 of a span in protobuf, 11 bytes long
FIRST_PROMPT: Final = "-0"
#: What a row takes → the attributes that may hold it: vLLM's own name, then OpenTelemetry's later one.
ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    s.REQUEST_ID: ("gen_ai.request.id",),
    s.PROMPT_TOKENS: ("gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens"),
    s.OUTPUT_TOKENS: ("gen_ai.usage.completion_tokens", "gen_ai.usage.output_tokens"),
    s.CACHED_TOKENS: ("gen_ai.usage.cached_tokens", "gen_ai.usage.cache_read.input_tokens"),
    s.TTFT_MS: ("gen_ai.latency.time_to_first_token",),
    s.E2E_MS: ("gen_ai.latency.e2e",),
    s.QUEUE_MS: ("gen_ai.latency.time_in_queue",),
    s.PREFILL_MS: ("gen_ai.latency.time_in_model_prefill",),
    s.DECODE_MS: ("gen_ai.latency.time_in_model_decode",),
}
WANTED: Final = frozenset(name for names in ATTRIBUTES.values() for name in names)
INSTANCE_NAMES: Final = ("service.instance.id", "k8s.pod.name", "host.name", "service.name")
NANOSECONDS_A_MS: Final = 10**6
STATUSES: Final = {1: "ok", "STATUS_CODE_OK": "ok", 2: "error", "STATUS_CODE_ERROR": "error"}


def sniff(head: bytes) -> bool:
    """Tell by the envelope of OTLP with the name of the span in it."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"{"):
        return b'"resourceSpans"' in start and (b'"llm_request"' in start or b'"gen_ai.' in start)
    return SPAN_NAME_BYTES in head


def read(source: Source) -> Iterator[Reading]:
    """Read the spans; a row is a span named ``llm_request``, and others are counted.

    Arrival is the span's start; latencies are its attributes, in seconds. The instance is the first of the resource's
    service.instance.id, k8s.pod.name, host.name and service.name. Rows are numbered by span, since a line holds many.
    """
    zero, numbers = Zero(), count(1)
    for part in found_spans(source):
        counted: Counter[str] = Counter(one for one in part if isinstance(one, str))
        spans = [one for one in part if isinstance(one, Found)]
        rows = [one for one in spans if one.refused is not None or one.span.get("name") == SPAN]
        counted["spans of other names than llm_request"] += len(spans) - len(rows)
        numbered = list(zip(rows, numbers, strict=False))
        bad = [_reject(place, one, one.refused) for one, place in numbered if one.refused is not None]
        good = [
            Entry(place, one.place, {"span": one.span, "resource": one.resource}, one.raw)
            for one, place in numbered
            if one.refused is None
        ]
        reading = converted(good, _converter(zero, counted), pl.concat(bad) if bad else None)
        yield replace(
            reading,
            clock=None if zero.at_ns is None else "unix",
            zero_s=zero.at_s,
            counted={what: n for what, n in counted.items() if n},
        )


def _reject(place: int, found: Found, refused: Refused) -> pl.DataFrame:
    return rejects_of([place], refused.reason, [refused.detail], [found.raw], [found.place])


def _converter(zero: Zero, counted: Counter[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def convert(record: dict[str, Any]) -> dict[str, Any]:
        span = record["span"]
        told = _told(attributes(span.get("attributes"), WANTED))
        start_ns, end_ns = _nanoseconds(span, "startTimeUnixNano"), _nanoseconds(span, "endTimeUnixNano")
        if start_ns is None:
            raise Refused(Reason.MISSING, "startTimeUnixNano is missing")
        row: dict[str, Any] = {name: _as_count(told, name) for name in (s.PROMPT_TOKENS, s.OUTPUT_TOKENS)}
        row |= {name: _as_ms(told, name) for name in (s.TTFT_MS, s.E2E_MS, *s.PHASES)}
        if row[s.E2E_MS] is None:
            row[s.E2E_MS] = _length_ms(start_ns, end_ns, counted)
        row |= {
            s.REQUEST_ID: _request_id(told, counted),
            s.CACHED_TOKENS: _as_count(told, s.CACHED_TOKENS),
            s.STATUS: _status(span),
            s.INSTANCE: _instance(record["resource"], counted),
        }
        # Last, so that a refused span does not set the time from which all others count.
        return {**row, s.ARRIVED_AT_S: zero.seconds_since(start_ns)}

    return convert


def _told(found: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Return what each name of a row is told by: the attribute, and its value."""
    told = {}
    for name, keys in ATTRIBUTES.items():
        values = [(key, found[key]) for key in keys if found.get(key) is not None]
        if len(values) > 1 and values[0][1] != values[1][1]:
            detail = " and ".join(f"{key} {repr(value)[:80]}" for key, value in values)
            raise Refused(Reason.WRONG_VALUE, f"{detail} contradict each other")
        if values:
            told[name] = values[0]
    return told


def _as_count(told: dict[str, tuple[str, Any]], name: str) -> int | None:
    return whole(*_by_path(*told[name])) if name in told else None


def _as_ms(told: dict[str, tuple[str, Any]], name: str) -> float | None:
    return seconds_as_ms(*_by_path(*told[name])) if name in told else None


def _by_path(key: str, value: Any) -> tuple[dict[str, Any], str]:
    """Nest a value as the toolbox looks it up, since the names of attributes hold dots."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value, key


def _request_id(told: dict[str, tuple[str, Any]], counted: Counter[str]) -> str | None:
    """Return the id that the client was told: vLLM numbers the prompts of one completion request, from -0."""
    name = text(*_by_path(*told[s.REQUEST_ID])) if s.REQUEST_ID in told else None
    if name is not None and name.startswith("cmpl-") and name.endswith(FIRST_PROMPT):
        counted["request ids without the -0 that vLLM adds for a request's first prompt"] += 1
        return name.removesuffix(FIRST_PROMPT)
    return name


def _nanoseconds(span: dict[str, Any], key: str) -> int | None:
    """Return a time of the span, None where it is absent or 0; a text in OTLP's JSON, since it has 64 bits."""
    value = span.get(key)
    digits = str(value) if type(value) is int else value
    if value is None:
        return None
    if not isinstance(digits, str) or not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise Refused(Reason.WRONG_TYPE, f"{key}: {str(value)[:80]!r} is no count of nanoseconds")
    return int(digits) or None


def _length_ms(start_ns: int, end_ns: int | None, counted: Counter[str]) -> float | None:
    if end_ns is None:
        return None
    if end_ns < start_ns:
        raise Refused(Reason.BACKWARDS, f"endTimeUnixNano {end_ns} is before startTimeUnixNano {start_ns}")
    counted["spans without gen_ai.latency.e2e: e2e_ms taken from the span's length"] += 1
    return (end_ns - start_ns) / NANOSECONDS_A_MS


def _status(span: dict[str, Any]) -> str | None:
    status = span.get("status")
    code = status.get("code") if isinstance(status, dict) else None
    return STATUSES.get(code) if isinstance(code, int | str) else None


def _instance(resource: Any, counted: Counter[str]) -> str | None:
    found = attributes(resource, frozenset(INSTANCE_NAMES))
    for key in INSTANCE_NAMES:
        if found.get(key) not in (None, ""):
            counted[f"requests whose instance is named by {key}"] += 1
            return text(*_by_path(key, found[key]))
    return None


FORMAT: Final = Format(
    name="vllm-otlp",
    description="vLLM's llm_request spans in an OTLP file, JSON lines or protobuf",
    provides=("arrivals", "decisions", "outcomes"),
    sniff=sniff,
    read=read,
)
