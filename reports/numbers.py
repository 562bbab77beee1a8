"""How numbers are written: the same way in the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["MISSING", "decimals", "interval", "number", "percent", "plain", "within"]

MISSING = "–"


def decimals(values: Iterable[float | None], figures: int = 4) -> int:
    """Return how many decimals a column of numbers needs to show so many figures of its largest.

    >>> decimals([2731.2, 45.0]), decimals([38.21, 102.4]), decimals([0.0123])
    (0, 1, 4)
    """
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    before_point = math.floor(math.log10(largest)) + 1 if largest > 0 else 1
    return min(4, max(0, figures - max(before_point, 0)))


def number(value: float | None, places: int = 0, signed: bool = False) -> str:
    """Write a number with thousands separators and a real minus sign; a dash where there is none.

    >>> number(12337.4), number(-1415.2, signed=True), number(0.5, 2, signed=True), number(None)
    ('12,337', '−1,415', '+0.50', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:{'+' if signed else ''},.{places}f}"
    zero = not any(digit in text for digit in "123456789")
    return text.lstrip("+-") if zero else text.replace("-", "−")


def interval(bounds: Iterable[float] | None, places: int = 0, signed: bool = False) -> str:
    """Write the two ends of an interval.

    >>> interval([2650, 2810]), interval([-1490, -1340], signed=True)
    ('2,650–2,810', '−1,490 to −1,340')
    """
    if bounds is None:
        return MISSING
    return (" to " if signed else "–").join(number(bound, places, signed) for bound in bounds)


def percent(ratio: float | None, places: int = 1, signed: bool = False) -> str:
    """Write a ratio as percent, without the sign of the unit, which stands in the heading.

    >>> percent(0.4731), percent(-0.05, signed=True)
    ('47.3', '−5.0')
    """
    return number(None if ratio is None else 100 * ratio, places, signed)


def within(latency: str, limit_ms: float, heading: bool = False) -> str:
    r"""Write which requests are within a limit; a heading breaks before the number only.

    >>> within("ttft_ms", 2000.0), within("ttft_ms", 2000.0, heading=True).split(" ")
    ('TTFT ≤ 2,000 ms', ['TTFT\xa0≤', '2,000\xa0ms'])
    """
    glue = "\N{NO-BREAK SPACE}" if heading else " "
    return f"{latency.removesuffix('_ms').upper()}{glue}≤ {plain(float(limit_ms))}{glue}ms"


def plain(value: object) -> str:
    """Write any JSON value in a line: numbers short, lists with commas, a dash for nothing.

    >>> plain(1234.5678), plain(0.00012345), plain([1, 2]), plain(True), plain({"a": 1}), plain(None)
    ('1,235', '0.0001234', '1, 2', 'yes', 'a 1', '–')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−") if abs(value) < 1000 else number(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items()) or MISSING
    if isinstance(value, list | tuple):
        return ", ".join(plain(inner) for inner in value) or MISSING
    return str(value)
