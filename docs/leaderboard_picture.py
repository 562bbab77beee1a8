"""The picture of the leaderboard: a row a policy, a dot a cell, a mark for the geometric mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import polars as pl
from leaderboard_ranking import Place, Standing, cells_of, geometric_mean, standings
from leaderboard_runs import REFERENCE
from numpy.typing import NDArray

from lodestar.reports.colours import GRID, INK, PALETTE

__all__ = ["picture"]

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 900, 238, 74, 92, 25
_LOW, _HIGH = 0.4, 5.0  # what is beyond stands at the edge
_TICKS: Final = (0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
#: What a policy goes by → its colour and words.
_KINDS: Final = {
    "": (PALETTE[0], "rule"),
    "learned": (PALETTE[1], "learned"),
    "engines": (PALETTE[3], "knows the engines: not ranked"),
    "oracle": (PALETTE[2], "oracle: not ranked"),
    "session": (INK, "needs sessions: fallback"),
}


def picture(frame: pl.DataFrame) -> str:
    """Return the picture as SVG."""
    places, every = cells_of(frame), standings(frame)
    rows = sorted(every, key=lambda standing: not standing.ranked)
    height = _TOP + _ROW * len(rows) + 46
    body = [*_head(rows, places), *_axis(len(rows))]
    above = _TOP + _ROW * sum(standing.ranked for standing in rows)
    body.append(f'<path d="M16 {above}H{_WIDTH - 14}" stroke="{GRID}" stroke-width="2"/>')
    for number, standing in enumerate(rows):
        body += _policy(standing, places, _TOP + _ROW * (number + 0.5))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="system-ui, sans-serif" '
        f'font-size="14" fill="{INK}">\n<title>Mean TTFT of every policy over that of {REFERENCE}</title>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _head(rows: Sequence[Standing], places: Sequence[Place]) -> Iterator[str]:
    yield _text(
        16, 24, f"Mean TTFT over that of {REFERENCE} in the same cell", "start", 'font-size="17" font-weight="600"'
    )
    fleets = list(dict.fromkeys(place[1] for place in places))
    dots = f" ({fleets[0]} fleet above, {fleets[1]} below)" if len(fleets) == 2 else ""
    yield _text(16, 46, f"small: {len(places)} cells, tuned{dots} · large: geometric mean, ○ default, ● tuned", "start")
    yield _text(_WIDTH - 14, _TOP - 6, "mean", "end")
    x = 16.0
    for mark, (colour, words) in _KINDS.items():
        if any(row.mark == mark for row in rows):
            yield f'<circle cx="{x + 5:.0f}" cy="63" r="5" fill="{colour}"/>'
            yield _text(x + 15, 68, words, "start")
            x += 36 + 7.4 * len(words)


def _axis(rows: int) -> Iterator[str]:
    bottom = _TOP + _ROW * rows
    for tick in _TICKS:
        x, strong = _x(tick), tick == 1.0
        colour, width = (INK, 1.5) if strong else (GRID, 1)
        yield f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="{colour}" stroke-width="{width}"/>'
        yield _text(x, bottom + 18, f"{tick:g}")
    yield _text(_x(1.0) - 8, bottom + 38, "← faster than the baseline", "end")
    yield _text(_x(1.0) + 8, bottom + 38, "slower →", "start")


def _policy(standing: Standing, places: Sequence[Place], y: float) -> Iterator[str]:
    colour = _KINDS[standing.mark][0]
    tuned = standing.mean["tuned"]
    before, after = geometric_mean(standing.mean["default"]), standing.score
    weight = ' font-weight="600"' if standing.policy == REFERENCE else ""
    yield _text(_LEFT - 14, y + 5, standing.policy, "end", f'fill="{colour}"{weight}')
    dots = _dots(tuned, places, y)
    yield f'<path d="{dots}" stroke="{colour}" stroke-width="4" stroke-linecap="round" opacity="0.5"/>'
    if standing.searched:
        yield f'<path d="M{_x(before):.1f} {y:.1f}H{_x(after):.1f}" stroke="{colour}" stroke-width="2"/>'
        yield f'<circle cx="{_x(before):.1f}" cy="{y:.1f}" r="5" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield f'<circle cx="{_x(after):.1f}" cy="{y:.1f}" r="5.5" fill="{colour}"/>'
    else:
        yield f'<circle cx="{_x(before):.1f}" cy="{y:.1f}" r="5" fill="none" stroke="{colour}" stroke-width="2"/>'
    shown = f"{after:.2f}" if after < 10 else f"{after:.0f} →"
    yield _text(_WIDTH - 14, y + 5, shown, "end", f'fill="{colour}"')


def _dots(ratios: NDArray[np.float64], places: Sequence[Place], y: float) -> str:
    """Draw each cell as a line of no length, whose round ends are a dot."""
    fleets = list(dict.fromkeys(place[1] for place in places))
    height = dict(zip(fleets, np.linspace(-6, 6, len(fleets)) if len(fleets) > 1 else [0.0], strict=True))
    return "".join(
        f"M{_x(ratio):.1f} {y + height[place[1]]:.1f}h0" for ratio, place in zip(ratios, places, strict=True)
    )


def _x(ratio: float) -> float:
    """Return where a ratio stands; what is off the axis stands at its end."""
    share = np.log(np.clip(ratio, _LOW, _HIGH) / _LOW) / np.log(_HIGH / _LOW)
    return float(_LEFT + share * (_WIDTH - _RIGHT - _LEFT))


def _text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{" " + more if more else ""}>{words}</text>'
