"""Times and durations in records: to nanoseconds and milliseconds, or refused with the reason."""

from __future__ import annotations

import math
from typing import Any, Final

from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import number
from lodestar.data.reading import MOST_WHOLE
from lodestar.data.reasons import Reason

__all__ = ["MONOTONIC", "elapsed_ms", "moment_ns", "stamp_ns"]

LATEST_NS: Final = 2**63
NANOSECONDS: Final = 10**9
#: What a user should know of times that a benchmark's client took of a clock that is not the calendar's.
MONOTONIC: Final = (
    "start times are of the clock of the machine that ran the benchmark, which starts anew when the machine does: "
    "keep runs from other machines or after a restart in other datasets"
)


def moment_ns(record: dict[str, Any], path: str, required: bool = False) -> int | None:
    """Return a time that is logged in seconds, in nanoseconds.

    >>> moment_ns({"t": 1.5}, "t")
    1500000000
    """
    at_s = number(record, path, required)
    if at_s is None:
        return None
    if abs(at_s) >= LATEST_NS / NANOSECONDS:
        raise Refused(Reason.OUT_OF_UNIT, f"{path} is {at_s:g}, expected seconds")
    return round(at_s * NANOSECONDS)


def stamp_ns(record: dict[str, Any], path: str, required: bool = False) -> int | None:
    """Return a time that is logged in nanoseconds, without the rounding of a float.

    >>> stamp_ns({"at": {"ns": 1759522419159192408}}, "at.ns")
    1759522419159192408
    """
    about = number(record, path, required)
    if about is None:
        return None
    if abs(about) >= LATEST_NS or (abs(about) <= MOST_WHOLE and about % 1):
        raise Refused(Reason.OUT_OF_UNIT, f"{path} is {about:g}, expected whole nanoseconds")
    value: Any = record
    for key in path.split("."):
        value = value[key]
    return int(value)


def elapsed_ms(start_s: float | None, end_s: float | None, start: str, end: str) -> float | None:
    """Return the milliseconds between two times in seconds, None where one is not logged.

    >>> elapsed_ms(1.0, 1.25, "sent", "first token")
    250.0

    Raises:
        Refused: the end lies before the start.
    """
    if start_s is None or end_s is None:
        return None
    if end_s < start_s:
        raise Refused(Reason.BACKWARDS, f"{end} at {end_s:.10g} s is before {start} at {start_s:.10g} s")
    elapsed = (end_s - start_s) * 1e3
    if not math.isfinite(elapsed):
        raise Refused(Reason.NOT_FINITE, f"from {start} to {end} is too large a number")
    return elapsed
