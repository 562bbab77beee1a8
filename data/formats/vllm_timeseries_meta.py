"""The description of a benchmark run of one vLLM engine: it holds no rows, and tells when the run started."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from lodestar.data.formats.line_times import unix_ns
from lodestar.data.parsing.json_lines import Refused, load_json
from lodestar.data.parsing.records import text
from lodestar.data.reading import Format, Reading, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT", "started"]

KEYS: Final = ("vllm_version", "started_at", "tick_seconds")
SHOWN: Final = 1000


def sniff(head: bytes) -> bool:
    """Tell by its keys."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and all(f'"{key}"'.encode() in head for key in KEYS)


def read(source: Source) -> Iterator[Reading]:
    """Read it on its own, which gives no rows."""
    yield started(source)[1]


def started(source: Source) -> tuple[int | None, Reading]:
    """Return when the run started, in Unix nanoseconds, and the reading; an unusable document is a reject."""
    content = source.document()
    try:
        record = load_json(content)
        if not isinstance(record, dict):
            raise Refused(Reason.WRONG_TYPE, f"a {type(record).__name__}, expected an object")
        at_ns, version = _start(record), text(record, "vllm_version")
    except Refused as error:
        raw = content[:SHOWN].decode("utf-8", errors="backslashreplace")
        return None, Reading(lines=1, rejects=rejects_of([1], error.reason, [error.detail], [raw]))
    at = datetime.fromtimestamp(at_ns // 10**9, UTC).isoformat()
    note = f"the run's meta.json has no rows; the series counts from its started_at, {at}"
    return at_ns, Reading(lines=0, version=None if version is None else f"vLLM {version}", notes=(note,))


def _start(record: dict[str, Any]) -> int:
    at = text(record, "started_at", required=True) or ""
    found = unix_ns(at)
    if found is None or not found[1]:
        raise Refused(Reason.WRONG_VALUE, f"started_at is {at[:80]!r}, expected a time with date and zone")
    return found[0]


FORMAT: Final = Format(
    name="vllm-timeseries-meta",
    description="description of a benchmark run of one vLLM engine, JSON, read with vllm-timeseries",
    provides=(),
    sniff=sniff,
    read=read,
)
