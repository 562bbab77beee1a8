"""The learning curves as a picture: one panel a cell, one line a policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from lodestar.reports.colours import GRID, INK, PALETTE
from lodestar.reports.headline import BASELINE, Document, Row, of_cell
from lodestar.reports.svg import svg, svg_text

__all__ = ["picture"]

_COLUMNS, _WIDTH, _HEIGHT = 3, 300, 210  # of a panel, in pixels
_LEFT, _TOP, _RIGHT, _BOTTOM, _HEAD = 46, 30, 10, 34, 70
#: Role of a curve → colour and width, in the order in which they are drawn.
_LOOKS: Final = {
    "baseline": (INK, 1.5),
    "best": (PALETTE[0], 1.5),
    "lodestar-published": (PALETTE[4], 1.5),
    "lodestar-published (README)": (PALETTE[2], 1.5),
    "lodestar-online": (PALETTE[1], 2.5),
}
_WORDS: Final = {"baseline": BASELINE, "best": "best heuristic of the cell"}


def picture(document: Document) -> str:
    """Return the picture as SVG."""
    panels = of_cell(document["curves"])
    rows = -(-len(panels) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, _HEAD + rows * _HEIGHT
    body = [*_head(document)]
    for place, ((workload, fleet, load), found) in enumerate(panels.items()):
        x, y = (place % _COLUMNS) * _WIDTH, _HEAD + (place // _COLUMNS) * _HEIGHT
        title = f"{workload}, {fleet.replace('eneous', '.')}, {100 * load:.0f} %"
        body += [f'<g transform="translate({x} {y})">', *_panel(title, found), "</g>"]
    return svg(width, height, "Learning curves", body)


def _head(document: Document) -> Iterator[str]:
    window = document["learning"][0]["window"]
    title = f"Mean TTFT of the last {window} requests, in ms, over seconds since the first arrival"
    yield svg_text(12, 24, title, "start", 'font-size="16" font-weight="600"')
    x = 12.0
    there = {row["role"] for row in document["curves"]}
    for role, (colour, width) in _LOOKS.items():
        if role in there:
            words = _WORDS.get(role, role)
            yield f'<path d="M{x:.0f} 46h22" stroke="{colour}" stroke-width="{width}"/>'
            yield svg_text(x + 28, 50, words, "start")
            x += 46 + 6.1 * len(words)


def _panel(title: str, found: Sequence[Row]) -> Iterator[str]:
    curves = {row["role"]: row for row in found}
    values = np.concatenate([row["mean_ms"] for row in found])
    low, high = float(values.min()) / 1.05, float(np.quantile(values, 0.995)) * 1.05
    last_s = max(row["at_s"][-1] for row in found)
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(at_s: float) -> float:
        return float(_LEFT + wide * at_s / last_s)

    def y(ms: float) -> float:
        return float(_TOP + tall * np.log(high / np.clip(ms, low, high)) / np.log(high / low))

    yield svg_text(_LEFT, 20, title, "start", 'font-weight="600"')
    for tick in _ticks(low, high):
        yield f'<path d="M{_LEFT} {y(tick):.1f}h{wide}" stroke="{GRID}"/>'
        yield svg_text(_LEFT - 5, y(tick) + 4, f"{tick:,.0f}", "end")
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        yield svg_text(x(share * last_s), _HEIGHT - 16, f"{share * last_s:.0f} s", anchor)
    changed_s = found[0]["changed_s"]
    if changed_s:
        yield f'<path d="M{x(changed_s):.1f} {_TOP}v{tall}" stroke="{INK}" stroke-dasharray="3 3"/>'
    for role, (colour, width) in _LOOKS.items():
        if role in curves:
            points = zip(curves[role]["at_s"], curves[role]["mean_ms"], strict=True)
            path = "L".join(f"{x(at_s):.1f} {y(ms):.1f}" for at_s, ms in points)
            yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers within a range, a few of them.

    >>> _ticks(450.0, 2100.0)
    [500.0, 1000.0, 2000.0]
    """
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        found = [float(step * 10**decade) for decade in decades for step in steps if low <= step * 10**decade <= high]
        if len(found) >= 2:
            return found
    return [low, high]
