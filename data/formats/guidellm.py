"""The JSON report of GuideLLM: benchmarks, each with its successful, incomplete and errored requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.parsing.documents import Document, elements, inside, object_of, shown, unread, whole_document
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.moments import elapsed_ms, moment_ns
from lodestar.data.parsing.records import Zero, number, text, whole
from lodestar.data.reading import Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

MARKS: Final = (b'"guidellm_version"', b'"generative_benchmark"')
#: Group of requests → what became of them. What the end of a run cut off was not served in full.
STATUSES: Final = {"successful": "ok", "incomplete": "cancelled", "errored": "error"}
# Where a fact stands, in the order in which the places are looked at: since version 0.4, and before it.
STARTS: Final = ("request_start_time", "info.timings.request_start", "start_time")
ENDS: Final = ("info.timings.request_end", "end_time")
PROMPT: Final = ("prompt_tokens", "input_metrics.total_tokens", "input_metrics.text_tokens")
OUTPUT: Final = ("output_tokens", "output_metrics.total_tokens", "output_metrics.text_tokens")
CACHED: Final = ("cached_tokens", "input_metrics.cached_tokens")
MADE: Final = ("metrics.request_totals", "request_totals", "run_stats.requests_made")


def sniff(head: bytes) -> bool:
    """Tell by the version or the type that a report names at its start."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(b"{") and b'"benchmarks"' in head and any(mark in head for mark in MARKS)


def read(source: Source) -> Iterator[Reading]:
    """Read a report, one request a row, benchmark after benchmark.

    The time per output token is `inter_token_latency_ms`: what GuideLLM names `time_per_output_token_ms` counts the
    first token in. A report may list a sample of the requests that were made; how many it leaves out is counted.
    """
    document = whole_document(source)
    listed = document.value.get("benchmarks") if isinstance(document.value, dict) else None
    if not isinstance(listed, list):
        missing = Refused(Reason.MISSING, "benchmarks is no array; expected a whole GuideLLM report")
        yield unread(document, document.bad or missing, 1, "report")
        return
    zero, number_of_rows = Zero(), 0
    for k, benchmark in enumerate(listed, 1):
        for reading in _groups(benchmark, number_of_rows, f"benchmark {k}", zero):
            number_of_rows += reading.lines
            yield replace(reading, version=_version(document.value))


def _groups(benchmark: Any, before: int, place: str, zero: Zero) -> Iterator[Reading]:
    """Read the groups of a benchmark; what is no group of requests is one row, refused."""
    requests = benchmark.get("requests") if isinstance(benchmark, dict) else None
    if not isinstance(requests, dict):
        yield unread(Document(benchmark), Refused(Reason.MISSING, "requests is no object"), before + 1, place)
        return
    for group, status in STATUSES.items():
        listed = [] if requests.get(group) is None else requests[group]
        if not isinstance(listed, list):
            told = Refused(Reason.WRONG_TYPE, f"requests.{group}: {shown(listed)[:80]} is no array")
            yield unread(Document(listed), told, before + 1, f"{place}, {group}")
            before += 1
            continue
        left_out = _made(benchmark, group) - len(listed)
        convert = partial(_row, zero=zero, status=status)
        reading = elements(listed, before, f"{place}, {group} request {{}}".format, convert, clock="unix")
        before += len(listed)
        yield replace(
            reading,
            zero_s=zero.at_s,
            counted={"requests made that the report does not list": left_out} if left_out > 0 else {},
        )


def _row(request: Any, zero: Zero, status: str) -> dict[str, Any]:
    request = object_of(request)
    start, end = _place(request, STARTS), _place(request, ENDS)
    start_ns = moment_ns(request, start, required=True) or 0
    output_tokens = whole(request, _place(request, OUTPUT))
    return {
        s.REQUEST_ID: text(request, "request_id"),
        s.SESSION_ID: text(request, "info.conversation_id"),
        s.ARRIVED_AT_S: zero.seconds_since(start_ns),
        s.PROMPT_TOKENS: whole(request, _place(request, PROMPT)),
        s.OUTPUT_TOKENS: output_tokens,
        s.CACHED_TOKENS: whole(request, _place(request, CACHED)),
        s.TTFT_MS: number(request, "time_to_first_token_ms"),
        s.TPOT_MS: number(request, "inter_token_latency_ms") if (output_tokens or 0) > 1 else None,
        s.E2E_MS: elapsed_ms(number(request, start), number(request, end), start, end),
        s.STATUS: status,
    }


def _place(record: dict[str, Any], paths: tuple[str, ...]) -> str:
    """Return the first path at which something stands, the first of all where nothing does."""
    return next((path for path in paths if inside(record, path) is not None), paths[0])


def _made(benchmark: dict[str, Any], group: str) -> int:
    made = next((inside(benchmark, f"{path}.{group}") for path in MADE if inside(benchmark, path) is not None), None)
    return made if type(made) is int else 0


def _version(report: dict[str, Any]) -> str | None:
    version = inside(report, "metadata.guidellm_version")
    return version if isinstance(version, str) else None


FORMAT: Final = Format(
    name="guidellm",
    description="GuideLLM benchmark report, JSON",
    provides=("arrivals", "outcomes"),
    sniff=sniff,
    read=read,
    sample="the documented schema",
)
