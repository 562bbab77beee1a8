"""The picture of `lodestar validate`: what is said of each policy over what is true of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from lodestar.reports.colours import GRID, INK, PALETTE
from lodestar.reports.svg import svg, svg_text

__all__ = ["picture"]

_WIDTH, _ROW, _LEFT, _RIGHT, _HEAD, _TITLE = 920, 24, 300, 30, 64, 34
_FARTHEST: Final = 4.0  # times the truth, either way; what lies beyond stands at the edge
#: What → words, colour, radius.
_LOOKS: Final = {
    "replayed": ("closed loop, replayed from the log", PALETTE[0], 5.0),
    "one_step": ("one step (dr), read as a performance", PALETTE[1], 4.0),
}


class _Line(NamedTuple):
    """One policy or arm: what is said of it, over the truth; None where nothing is."""

    name: str
    replayed: float | None
    one_step: float | None
    trusted: bool = True


def picture(document: Mapping[str, Any]) -> str:
    """Return the picture as SVG: one panel a part, one line a policy, the truth a vertical line."""
    panels = [(title, lines) for title, lines in _panels(document) if lines]
    height = _HEAD + sum(_TITLE + _ROW * len(lines) for _, lines in panels) + 30
    body = [*_head()]
    y = float(_HEAD)
    for title, lines in panels:
        body += _panel(title, lines, y)
        y += _TITLE + _ROW * len(lines)
    body += [svg_text(_x(ratio), y + 18, f"{ratio:g} ×") for ratio in (0.25, 0.5, 1, 2, 4)]
    return svg(_WIDTH, height, "What is said over what is true", body)


def _head() -> Iterator[str]:
    yield svg_text(12, 24, "Mean TTFT as foretold, over the true one", "start", 'font-size="16" font-weight="600"')
    x = 12.0
    for words, colour, radius in _LOOKS.values():
        yield f'<circle cx="{x + 6}" cy="46" r="{radius}" fill="{colour}"/>'
        yield svg_text(x + 18, 50, words, "start")
        x += 46 + 6.4 * len(words)
    yield svg_text(x, 50, "hollow: its trust gates said untrusted", "start")


def _panels(document: Mapping[str, Any]) -> Iterator[tuple[str, list[_Line]]]:
    if found := document.get("queueing"):
        lines = [
            _Line(
                f"{row['policy']}{_state(row)}",
                row["replayed"]["mean_ms"] / row["truth_mean_ms"],
                _over(row["estimators"]["dr"]["value_ms"], row["truth_mean_ms"]),
            )
            for row in found["rows"]
        ]
        yield "Queueing world with prefix caches", lines
    if found := document.get("own-logs"):
        steps = {
            (row["world"], row["log"], row["policy"]): row["value_ms"]
            for row in found["one_step"]
            if row["estimator"] == "dr"
        }
        first = [row for row in found["closed_loop"] if row["log"] == found["closed_loop"][0]["log"]]
        lines = [
            _Line(
                f"{row['world']}: {row['policy']}",
                row["mean_ms"] / row["truth_mean_ms"],
                _over(steps.get((row["world"], row["log"], row["policy"])), row["truth_mean_ms"]),
            )
            for row in first
        ]
        yield "The replay's own logs", lines
    if found := document.get("measured-arms"):
        verdict = {row["cluster"]: row["verdict"] for row in found["summary"]}
        lines = [
            _Line(
                f"{row['cluster']}: {row['arm']}, {row['replayed']}",
                _over(row["predicted_mean_ms"], row["measured_mean_ms"]),
                None if row["one_step_error"].get("dr") is None else 1 + row["one_step_error"]["dr"],
                verdict[row["cluster"]] != "untrusted",
            )
            for row in found["rows"]
        ]
        yield "Measured arms of real clusters", lines


def _panel(title: str, lines: Sequence[_Line], y: float) -> Iterator[str]:
    yield svg_text(12, y + 20, title, "start", 'font-weight="600"')
    top, bottom = y + _TITLE - 6, y + _TITLE - 6 + _ROW * len(lines)
    for ratio in (0.25, 0.5, 1, 2, 4):
        width, colour = (1.5, INK) if ratio == 1 else (1, GRID)
        yield f'<path d="M{_x(ratio):.1f} {top:.1f}V{bottom:.1f}" stroke="{colour}" stroke-width="{width}"/>'
    for place, line in enumerate(lines):
        at = y + _TITLE + _ROW * (place + 0.5) - 6
        yield svg_text(_LEFT - 14, at + 4, line.name, "end")
        for name in ("one_step", "replayed"):
            ratio = getattr(line, name)
            if ratio is not None:
                _, colour, radius = _LOOKS[name]
                hollow = name == "replayed" and not line.trusted
                look = f'fill="none" stroke="{colour}" stroke-width="2"' if hollow else f'fill="{colour}"'
                yield f'<circle cx="{_x(ratio):.1f}" cy="{at:.1f}" r="{radius}" {look}/>'
                if not 1 / _FARTHEST <= ratio <= _FARTHEST:  # it stands at the edge, and further out in truth
                    inwards = 10 if ratio < 1 else -10
                    anchor = "start" if ratio < 1 else "end"
                    yield svg_text(_x(ratio) + inwards, at + 4, f"{ratio:.2g} ×", anchor)


def _x(ratio: float) -> float:
    """Return the place of a ratio, in pixels, on a logarithmic axis."""
    share = (np.log(np.clip(ratio, 1 / _FARTHEST, _FARTHEST)) / np.log(_FARTHEST) + 1) / 2
    return float(_LEFT + share * (_WIDTH - _LEFT - _RIGHT))


def _state(row: Mapping[str, Any]) -> str:
    return " (unstable)" if row["truth_unstable"] else " (path-dependent)" if row["truth_path_dependent"] else ""


def _over(value: float | None, truth: float) -> float | None:
    return None if value is None else value / truth
