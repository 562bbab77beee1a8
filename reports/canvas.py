"""What all figures share: plain ground, thin grid, units on the axes, axes that suit latencies."""

from __future__ import annotations

from html import escape
from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl
from numpy.typing import NDArray

from lodestar.reports.colours import GRID, INK, Look

__all__ = ["LOG_AXIS", "clock", "dressed", "finite", "latency_title", "policy_line"]

Floats = NDArray[np.float64]

LOG_AXIS: Final = {"type": "log", "dtick": "D2", "tickformat": "~s"}  # ticks at 1, 2, 5, 10, …
HOUR_S: Final = 3600.0


def dressed(figure: go.Figure, height: int, x: str = "", y: str = "") -> go.Figure:
    """Give a figure its height, axis titles and the common look, and return it."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 16, "t": 28, "b": 52},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    common = {"gridcolor": GRID, "zeroline": False, "automargin": True, "title": {"standoff": 8, "font": {"size": 13}}}
    figure.update_xaxes(**common)
    figure.update_yaxes(**common)
    if x:
        figure.update_xaxes(title={"text": x})
    if y:
        figure.update_yaxes(title={"text": y})
    return figure


def policy_line(policy: str, look: Look, x: Floats, y: Floats, hover: str) -> go.Scatter:
    """Return the line of one policy; single precision halves its size in the report."""
    return go.Scatter(
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        mode="lines",
        line={"color": look.colour, "dash": look.dash, "width": 2},
        name=escape(policy),
        legendgroup=escape(policy),
        hovertemplate=f"{hover}<extra>{escape(policy)}</extra>",
    )


def latency_title(latency: str) -> str:
    """Return how a latency is called in prose.

    >>> latency_title("ttft_ms")
    'TTFT'
    """
    return latency.removesuffix("_ms").upper()


def finite(values: pl.Series) -> Floats:
    """Return the values that are there: a request without a second token has no TPOT."""
    array = values.cast(pl.Float64).to_numpy()
    return np.asarray(array[np.isfinite(array)])


def clock(last_s: float) -> tuple[float, str]:
    """Return the seconds in a unit that suits a span, and its name.

    >>> clock(350.0), clock(7200.0)
    ((1.0, 's'), (60.0, 'min'))
    """
    if last_s > 48 * HOUR_S:
        return HOUR_S, "h"
    return (60.0, "min") if last_s > HOUR_S else (1.0, "s")
