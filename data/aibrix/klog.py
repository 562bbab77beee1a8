"""The lines of Kubernetes components: a time without a year, a place in the code, a message with key=value pairs."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from lodestar.data.parsing.json_lines import Refused, load_json

__all__ = ["KLOG", "KlogLine", "duration_ms", "klog_line", "mapping", "names", "pairs"]

KLOG: Final = re.compile(r"[IWEF](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{6})\s+\d+ ([\w.-]+):\d+\] (.*)", re.DOTALL)
PAIR: Final = re.compile(r'([A-Za-z_][\w-]*)=("(?:[^"\\]|\\.)*"|map\[[^\]]*\]|\{[^{}]*\}|\[[^\]]*\]|\S+)')
GO_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|µs|us|ns)")
MS_OF: Final = {"h": 3_600_000.0, "m": 60_000.0, "s": 1e3, "ms": 1.0, "µs": 1e-3, "us": 1e-3, "ns": 1e-6}
# A leap year, so that every date a log can show is a date; without a year nothing tells which it was.
SOME_YEAR: Final = datetime(2000, 1, 1, tzinfo=UTC)


class KlogLine(NamedTuple):
    """A line: microseconds since its year began, its file of code and its message."""

    at_us: int
    file: str
    message: str


def klog_line(raw: str) -> KlogLine | None:
    """Take a line apart; None where it is no such line.

    >>> klog_line('I0102 00:00:01.000002       1 gateway.go:207] "request start" requestID="a"')
    KlogLine(at_us=86401000002, file='gateway.go', message='"request start" requestID="a"')
    """
    found = KLOG.match(raw)
    if found is None:
        return None
    month, day, hour, minute, second, micro = (int(part) for part in found.groups()[:6])
    try:
        at = datetime(SOME_YEAR.year, month, day, hour, minute, second, micro, tzinfo=UTC)
    except ValueError:
        return None
    return KlogLine((at - SOME_YEAR) // timedelta(microseconds=1), found[7], found[8])


def pairs(message: str) -> dict[str, str]:
    r"""Find the key=value pairs of a structured message, without the quotes around a value.

    >>> pairs('"request_end" request_id="a" prompt_tokens=7 total_time_taken="1.2s"')
    {'request_id': 'a', 'prompt_tokens': '7', 'total_time_taken': '1.2s'}
    """
    return {key: _unquoted(value) for key, value in PAIR.findall(message)}


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        said = json.loads(value)
    except ValueError:  # Go quotes a few characters in ways of its own
        return value[1:-1]
    return str(said)


def names(value: str) -> list[str] | None:
    """Read a list of names as it is logged; None where it is none.

    >>> names('["10.0.0.1","10.0.0.2"]'), names("null"), names("7")
    (['10.0.0.1', '10.0.0.2'], [], None)
    """
    found = _json(value)
    if found is None and value == "null":
        return []
    return found if isinstance(found, list) and all(isinstance(name, str) for name in found) else None


def mapping(value: str) -> dict[str, float] | None:
    """Read a map of numbers, as JSON or as Go prints it; None where it is none.

    >>> mapping('{"pod-a":100,"pod-b":0}'), mapping("map[pod-a:50]"), mapping("7")
    ({'pod-a': 100.0, 'pod-b': 0.0}, {'pod-a': 50.0}, None)
    """
    if value.startswith("map[") and value.endswith("]"):
        found: Any = dict(part.rsplit(":", 1) for part in value[4:-1].split() if ":" in part)
    else:
        found = _json(value)
    if not isinstance(found, dict) or any(type(number) not in (int, float, str) for number in found.values()):
        return None
    try:
        numbers = {name: float(number) for name, number in found.items()}
    except (ValueError, OverflowError):
        return None
    return numbers if all(math.isfinite(number) for number in numbers.values()) else None


def _json(value: str) -> Any:
    try:
        return load_json(value)
    except Refused:
        return None


def duration_ms(text: str) -> float | None:
    """Read a duration as Go prints it, in milliseconds; None where it is none.

    >>> duration_ms("1m20.5s"), duration_ms("722.6µs"), duration_ms("soon")
    (80500.0, 0.7226, None)
    """
    parts = GO_DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * MS_OF[unit] for number, unit in parts)
