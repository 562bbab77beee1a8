"""The times of lines in an engine's log: with a year or without, with a zone or without."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import Zero
from lodestar.data.reasons import Reason

__all__ = ["LineTimes", "stamp", "unix_ns"]

DATED: Final = re.compile(r"\b(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,](\d{1,6})\d*)?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
DAY_ONLY: Final = re.compile(r"\b(\d\d-\d\d \d\d:\d\d:\d\d)\b", re.ASCII)
OWN_CLOCK: Final = "vllm-log"
HALF_A_YEAR: Final = timedelta(days=183)
LEAP_YEAR: Final = datetime(2000, 1, 1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
NO_YEAR: Final = "times have neither year nor zone: the samples have a clock of their own, which counts from 1 January"
NO_ZONE: Final = (
    "times have no zone: taken for UTC, so that the samples stand whole hours off the requests where the engine's "
    "host had another"
)


@dataclass(slots=True)
class LineTimes:
    """The clock of a log, as far as its lines have told.

    Attributes:
        zero: the first time.
        dated: whether times have a year, which the first of them decides.
        zoned: whether every time so far had a zone.
        years: what the years that have passed since the start amount to, where times have none.
        leap: whether this year has shown a 29 February.
        last: instance → its last time.
    """

    zero: Zero = field(default_factory=Zero)
    dated: bool | None = None
    zoned: bool = True
    years: timedelta = timedelta()
    leap: bool = False
    last: dict[str, timedelta] = field(default_factory=dict)

    @property
    def clock(self) -> str | None:
        """Name the clock, None as long as no line has told a time."""
        return None if self.zero.at_ns is None else "unix" if self.dated else OWN_CLOCK

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what the times leave out."""
        if self.dated is None or (self.dated and self.zoned):
            return ()
        return (NO_ZONE,) if self.dated else (NO_YEAR,)

    def seconds_at(self, instance: str, raw: str) -> float:
        """Return the time of a line, in seconds from the first.

        >>> times = LineTimes()
        >>> times.seconds_at("a", "INFO 12-31 23:59:50 x"), times.seconds_at("a", "INFO 01-01 00:00:10 x")
        (0.0, 20.0)

        Raises:
            Refused: it has none, or one before the instance's last.
        """
        now, last = self._time(raw), self.last.get(instance)
        if last is not None and not self.dated and last - now > HALF_A_YEAR:
            year = timedelta(days=366 if self.leap else 365)
            now, self.years, self.leap = now + year, self.years + year, False
        if last is not None and now < last:
            seconds = (last - now) / timedelta(seconds=1)
            raise Refused(Reason.BACKWARDS, f"{stamp(raw)} is {seconds:g} s before the line before it of {instance}")
        self.last[instance] = now
        return self.zero.seconds_since(now // MICROSECOND * 1000)

    def _time(self, raw: str) -> timedelta:
        found = DATED.search(raw)
        if self.dated is None:
            self.dated = found is not None
        if (found is not None) != self.dated:
            raise Refused(Reason.WRONG_VALUE, "a time with a year among times without one, or the other way round")
        try:
            return self._with_year(found) if found is not None else self._without_year(raw)
        except (ValueError, OverflowError) as error:
            raise Refused(Reason.BAD_TEXT, f"no time: {error}") from None

    def _with_year(self, found: re.Match[str]) -> timedelta:
        self.zoned = self.zoned and found[3] is not None
        return _since_epoch(found)

    def _without_year(self, raw: str) -> timedelta:
        found = DAY_ONLY.search(raw)
        if found is None:
            raise ValueError("neither '2026-01-20 07:24:11' nor '01-20 07:24:11' is in the line")
        time = datetime.strptime(f"{LEAP_YEAR.year}-{found[1]}", "%Y-%m-%d %H:%M:%S")
        self.leap = self.leap or (time.month, time.day) == (2, 29)
        # Most years have no 29 February: only one that shows it is taken for longer.
        too_late = timedelta(days=0 if self.leap or time.month < 3 else 1)
        return time - LEAP_YEAR - too_late + self.years


def unix_ns(text: str) -> tuple[int, bool] | None:
    """Return the first time with a year in a text, as Unix time in nanoseconds, and whether it has a zone.

    >>> unix_ns("# at 2026-01-20T07:24:11.5Z"), unix_ns("# HELP")
    ((1768893851500000000, True), None)
    """
    found = DATED.search(text)
    try:
        return None if found is None else (_since_epoch(found) // MICROSECOND * 1000, found[3] is not None)
    except (ValueError, OverflowError):
        return None


def _since_epoch(found: re.Match[str]) -> timedelta:
    day, fraction, zone = found.groups()
    return datetime.fromisoformat(f"{day}.{fraction or '0':0<6}{zone or 'Z'}") - EPOCH


def stamp(raw: str) -> str | None:
    """Return the time of a line as it is written, without parts of a second.

    >>> stamp("INFO 02-28 16:25:24 metrics.py:467] Avg")
    '02-28 16:25:24'
    """
    found = DATED.search(raw) or DAY_ONLY.search(raw)
    return found[1] if found else None
