"""The figure of a tuning: what each policy's settings are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import plotly.graph_objects as go

from lodestar.reports.canvas import dressed
from lodestar.reports.colours import INK, Look
from lodestar.reports.numbers import decimals, number

__all__ = ["tuning_figure"]

SYMBOLS: Final = {"default": "circle-open", "tuned": "circle", "hindsight": "line-ns-open"}


def tuning_figure(rows: Sequence[Mapping[str, Any]], objective: str, look: Mapping[str, Look]) -> go.Figure:
    """Draw the variants of each policy on one line: a ring for the default, a dot for tuned, a stroke for hindsight."""
    name = f"ttft_{objective}"
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    places = decimals([row[f"{name}_ms"] for row in rows])
    title = f"{'P99' if objective == 'p99' else 'mean'} TTFT (ms)"
    figure = dressed(go.Figure(), 110 + 44 * len(policies), title)
    for row in rows:
        value, low, high = (row[f"{name}{end}_ms"] for end in ("", "_low", "_high"))
        if value is None:
            continue
        hover = f"{row['variant']}: {number(value, places)} ms<br>{escape(row['settings'])}<extra></extra>"
        colour = look[row["policy"]].colour if row["policy"] in look else INK
        low, high = (value, value) if low is None else (low, high)  # of one seed
        error = {"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low]}
        figure.add_trace(
            go.Scatter(
                x=[value],
                y=[escape(row["policy"])],
                error_x={**error, "thickness": 1.5, "width": 4, "visible": row["variant"] == "tuned"},
                mode="markers",
                marker={"color": colour, "size": 12, "symbol": SYMBOLS[row["variant"]], "line": {"width": 2}},
                name=escape(row["policy"]),
                hovertemplate=hover,
            )
        )
    figure.update_xaxes(rangemode="tozero", tickformat=",")
    figure.update_yaxes(autorange="reversed", showgrid=True)
    return figure
