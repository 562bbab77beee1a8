"""The results of ``vllm bench serve --save-result --save-detailed``: one JSON document a run, arrays over requests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.parsing.documents import documents, elements, shown, unread
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.moments import MONOTONIC, moment_ns
from lodestar.data.parsing.records import Zero, seconds_as_ms, text, whole
from lodestar.data.reading import Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

#: Array of the document → what its element is called.
NEEDED: Final = {"input_lens": "input_len", "output_lens": "output_len", "ttfts": "ttft", "itls": "itl"}
OPTIONAL: Final = {"errors": "error", "start_times": "start_time"}
CLOCK: Final = "vllm-bench"
E2E: Final = "e2e is ttft and the gaps between chunks; the time from the last chunk to the end is not in the file"


def sniff(head: bytes) -> bool:
    """Tell by the keys of a run's summary, which come first; whether it was saved in detail may show only later."""
    summary = all(key in head for key in (b'"request_throughput"', b'"total_input_tokens"'))
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and summary


def read(source: Source) -> Iterator[Reading]:
    """Read runs, one request a row: a document, or one a line where runs were appended to the same file.

    The gaps in `itls` are between chunks, which may hold several tokens: the time per output token is their sum over
    the tokens that follow the first. A request with an error text is one that failed; a TTFT of 0 is none.
    """
    zero, number, timed = Zero(), 0, None
    for run, document in enumerate(documents(source), 1):
        try:
            if document.bad is not None:
                raise document.bad
            requests = _requests(document.value)
        except Refused as error:
            number += 1
            yield unread(document, error, number, f"run {run}")
            continue
        has_times = isinstance(document.value.get("start_times"), list)
        timed = has_times if timed is None else timed
        convert = partial(_row, zero=zero if timed else None)
        reading = elements(requests, number, f"run {run}, request {{}}".format, convert, clock=CLOCK if timed else None)
        number += len(requests)
        yield replace(
            reading,
            zero_s=zero.at_s,
            notes=(E2E, MONOTONIC) if timed else (E2E,),
            counted={}
            if timed or not has_times
            else {"start times left out, as earlier runs have none": len(requests)},
        )


def _requests(run: Any) -> list[dict[str, Any]]:
    """Turn the arrays of a run into one dict a request, without the keys of arrays that end before it."""
    if not isinstance(run, dict):
        raise Refused(Reason.WRONG_TYPE, f"a {type(run).__name__}, expected an object with the results of a run")
    for name in NEEDED:
        if name not in run:
            raise Refused(Reason.MISSING, f"{name} is missing; only runs with --save-detailed tell of their requests")
    arrays = {ours: run[name] for name, ours in {**NEEDED, **OPTIONAL}.items() if run.get(name) is not None}
    for ours, values in arrays.items():
        if not isinstance(values, list):
            raise Refused(Reason.WRONG_TYPE, f"{ours}s is a {type(values).__name__}, expected an array")
    longest = max((len(values) for values in arrays.values()), default=0)
    return [{ours: values[i] for ours, values in arrays.items() if i < len(values)} for i in range(longest)]


def _row(request: dict[str, Any], zero: Zero | None) -> dict[str, Any]:
    output_tokens = whole(request, "output_len", required=True) or 0
    ttft_ms = seconds_as_ms(request, "ttft", required=True) or None
    gaps_ms = _gaps_ms(request)
    error = text(request, "error")
    at_ns = None if zero is None else moment_ns(request, "start_time", required=True)
    return {
        s.ARRIVED_AT_S: None if zero is None or at_ns is None else zero.seconds_since(at_ns),
        s.PROMPT_TOKENS: whole(request, "input_len", required=True),
        s.OUTPUT_TOKENS: output_tokens,
        s.TTFT_MS: ttft_ms,
        s.TPOT_MS: gaps_ms / (output_tokens - 1) if ttft_ms and not error and gaps_ms and output_tokens > 1 else None,
        s.E2E_MS: ttft_ms + gaps_ms if ttft_ms and not error else None,
        s.STATUS: None if error is None else "error" if error else "ok",
    }


def _gaps_ms(request: dict[str, Any]) -> float:
    gaps = request.get("itl")
    if gaps is None:
        raise Refused(Reason.MISSING, "itl is missing")
    if not isinstance(gaps, list) or not all(type(gap) in (int, float) for gap in gaps):
        raise Refused(Reason.WRONG_TYPE, f"itl: {shown(gaps)[:80]} is no array of numbers")
    negative = next((gap for gap in gaps if gap < 0), None)
    if negative is not None:
        raise Refused(Reason.NEGATIVE_LATENCY, f"itl holds {shown(negative)[:80]}, expected 0 or more")
    try:
        total = math.fsum(gaps) * 1e3
    except OverflowError:
        total = math.inf
    if not math.isfinite(total):
        raise Refused(Reason.NOT_FINITE, "itl sums up to too large a number")
    return total


FORMAT: Final = Format(
    name="vllm-bench",
    description="results of vllm bench serve --save-result --save-detailed, JSON",
    provides=("arrivals", "outcomes"),
    sniff=sniff,
    read=read,
)
