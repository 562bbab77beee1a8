"""What the pictures of the docs share."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from lodestar.reports.colours import INK

__all__ = ["svg", "svg_text"]


def svg(width: int, height: int, title: str, body: Iterable[str]) -> str:
    """Return a whole picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        f'font-size="12" fill="{INK}">\n<title>{escape(title)}</title>\n' + "\n".join(body) + "\n</svg>\n"
    )


def svg_text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    """Return words at a place, in pixels.

    >>> svg_text(1.0, 2.0, "a < b", "start")
    '<text x="1.0" y="2.0" text-anchor="start">a &lt; b</text>'
    """
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{" " + more if more else ""}>{escape(words)}</text>'
