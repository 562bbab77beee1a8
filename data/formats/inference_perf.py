"""The per-request report of inference-perf, ``per_request_lifecycle_metrics.json``: an array of requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.parsing.documents import elements, inside, object_of, shown, unread, whole_document
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.moments import MONOTONIC, elapsed_ms, moment_ns
from lodestar.data.parsing.records import Zero, number, whole
from lodestar.data.reading import Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

CLOCK: Final = "inference-perf"
START: Final = re.compile(rb'\s*\[\s*\{\s*"start_time"\s*:\s*[-0-9.eE+]+\s*,\s*"end_time"')
SERVER: Final = "info.response_metrics.server_usage"
# Where a count stands: as the server told it, as newer builds counted it, as older ones did.
PROMPT: Final = (f"{SERVER}.prompt_tokens", "info.request_metrics.text.input_tokens", "info.input_tokens")
OUTPUT: Final = (f"{SERVER}.completion_tokens", "info.response_metrics.output_tokens", "info.output_tokens")
CACHED: Final = f"{SERVER}.prompt_tokens_details.cached_tokens"
TIMES: Final = ("info.response_metrics.output_token_times", "info.output_token_times")
COUNTS: Final = "token counts are the server's where it told them, else the client's"


def sniff(head: bytes) -> bool:
    """Tell by the keys with which the first request starts."""
    return START.match(head.removeprefix(b"\xef\xbb\xbf")) is not None


def read(source: Source) -> Iterator[Reading]:
    """Read the array, one request a row.

    Times are seconds of the client's own clock. As inference-perf itself has it, a request with two token times or
    more was streamed: its TTFT is up to the first of them, and its time per output token is what lies between the
    first and the last over the tokens that follow the first, since one time may stand for several tokens or for none.
    """
    document = whole_document(source)
    if not isinstance(document.value, list):
        told = Refused(Reason.WRONG_TYPE, f"a {type(document.value).__name__}, expected an array of requests")
        yield unread(document, document.bad or told, 1, "report")
        return
    zero = Zero()
    convert = partial(_row, zero=zero)
    reading = elements(document.value, 0, "request {}".format, convert, clock=CLOCK, notes=(MONOTONIC, COUNTS))
    yield replace(reading, zero_s=zero.at_s)


def _row(request: Any, zero: Zero) -> dict[str, Any]:
    request = object_of(request)
    start_ns = moment_ns(request, "start_time", required=True) or 0
    start_s, end_s = number(request, "start_time"), number(request, "end_time", required=True)
    error = request.get("error")
    if error is not None and not isinstance(error, dict):
        raise Refused(Reason.WRONG_TYPE, f"error: {shown(error)[:80]} is neither null nor an object")
    output_tokens = _first(request, OUTPUT)
    times = _token_times(request)
    streamed = elapsed_ms(times[0], times[-1], "the first token", "the last token") if len(times) > 1 else None
    return {
        s.ARRIVED_AT_S: zero.seconds_since(start_ns),
        s.PROMPT_TOKENS: _first(request, PROMPT),
        s.OUTPUT_TOKENS: output_tokens,
        s.CACHED_TOKENS: whole(request, CACHED),
        s.TTFT_MS: elapsed_ms(start_s, times[0], "start_time", "the first token") if len(times) > 1 else None,
        s.TPOT_MS: streamed / (output_tokens - 1) if streamed and output_tokens and output_tokens > 1 else None,
        s.E2E_MS: elapsed_ms(start_s, end_s, "start_time", "end_time"),
        s.STATUS: "ok" if error is None else "error",
    }


def _first(request: dict[str, Any], paths: tuple[str, ...]) -> int | None:
    return next((count for count in (whole(request, path) for path in paths) if count is not None), None)


def _token_times(request: dict[str, Any]) -> list[float]:
    times: Any = next((found for found in (inside(request, path) for path in TIMES) if found is not None), [])
    if not isinstance(times, list) or not all(type(at) in (int, float) for at in times):
        raise Refused(Reason.WRONG_TYPE, f"output_token_times: {shown(times)[:80]} is no array of numbers")
    try:
        return [float(at) for at in times]
    except OverflowError:
        raise Refused(Reason.NOT_FINITE, "output_token_times holds too large a number") from None


FORMAT: Final = Format(
    name="inference-perf",
    description="inference-perf per_request_lifecycle_metrics.json",
    provides=("arrivals", "outcomes"),
    sniff=sniff,
    read=read,
    sample="the documented schema",
)
