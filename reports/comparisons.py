"""Figures that set one number against another: policy and baseline, predicted and measured."""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go
import polars as pl
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.reports.canvas import LOG_AXIS, dressed, latency_title
from lodestar.reports.colours import INK, Look
from lodestar.reports.numbers import decimals, interval, number
from lodestar.reports.result import LatencyName, Measured, QuantileName, Result

__all__ = ["calibration_figure", "difference_figure", "measured_figure"]

Floats = NDArray[np.float64]


def difference_figure(result: Result, latency: LatencyName, look: dict[str, Look]) -> go.Figure:
    """Draw each policy's mean difference to the baseline with its 95 % interval, if any; left of zero is faster."""
    found = [
        (p["policy"], (mean, p["difference"][latency]["ci95"]))
        for p in result["policies"]
        if p["difference"] is not None and (mean := p["difference"][latency]["mean"]) is not None
    ]
    places = decimals([mean for _, (mean, _) in found], figures=3)
    title = f"{latency_title(latency)}, policy − {escape(result['baseline'])} (ms)"
    figure = dressed(go.Figure(), 120 + 46 * len(found), title)
    for policy, (mean, ci95) in found:
        low, high = ci95 or (mean, mean)
        error = {"type": "data", "symmetric": False, "array": [high - mean], "arrayminus": [mean - low]}
        ends = f"95 %: {interval(ci95, places, signed=True)}" if ci95 else "no interval of one seed"
        figure.add_trace(
            go.Scatter(
                x=[mean],
                y=[escape(policy)],
                error_x={**error, "thickness": 2, "width": 6},
                mode="markers+text",
                text=[number(mean, places, signed=True)],
                textposition="top center",
                marker={"color": look[policy].colour, "size": 10},
                name=escape(policy),
                cliponaxis=False,
                hovertemplate=f"%{{text}} ms, {ends}<extra></extra>",
            )
        )
    figure.add_vline(0, line={"color": INK, "width": 1.5})
    figure.update_xaxes(rangemode="tozero", nticks=5, tickformat=",")
    figure.update_yaxes(range=[len(found) - 0.5, -0.8], showgrid=False)  # downwards, with room for the first label
    return figure


def calibration_figure(rows: pl.DataFrame, target: str) -> go.Figure:
    """Draw measured against predicted latency by decile of the prediction, on rows held out from training.

    A dot is the mean of a decile, for the model predicts means, and its bar P10 to P90 of what was measured; dots on
    the dotted line are right.
    """
    predicted, measured = (rows[column].cast(pl.Float64).to_numpy() for column in ("predicted_ms", "measured_ms"))
    if not (np.isfinite(predicted).all() and np.isfinite(measured).all() and len(rows)):
        raise DataError(f"calibration of {target} has a value that is not finite; run `lodestar replay` again")
    deciles = np.array_split(np.argsort(predicted, kind="stable"), min(10, len(rows)))
    x, y = (np.array([values[part].mean() for part in deciles]) for values in (predicted, measured))
    low, high = np.array([np.quantile(measured[part], [0.1, 0.9]) for part in deciles]).T
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    name = latency_title(target)
    figure = dressed(go.Figure(), 340, f"predicted {name} (ms)", f"measured {name} (ms)")
    dotted, bar = {"color": INK, "dash": "dot", "width": 1.5}, {"color": INK, "width": 1.5}
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=dotted, name="exact", hoverinfo="skip"))
    bars_x, bars_y = _segments(x, x), _segments(low, high)
    figure.add_trace(go.Scatter(x=bars_x, y=bars_y, mode="lines", line=bar, name="P10 to P90", hoverinfo="skip"))
    hover = "predicted %{x:,.4~g} ms, measured %{y:,.4~g} ms<extra></extra>"
    dots = go.Scatter(x=x, y=y, mode="markers", marker={"color": INK, "size": 9}, name="mean", hovertemplate=hover)
    figure.add_trace(dots)
    figure.update_xaxes(**LOG_AXIS)
    figure.update_yaxes(**LOG_AXIS)
    return figure


def measured_figure(rows: list[Measured], quantile: QuantileName, look: dict[str, Look]) -> go.Figure:
    """Draw replayed TTFT as bars and what was measured in each dataset as a dotted line across them."""
    label = quantile if quantile == "mean" else quantile.upper()
    figure = dressed(go.Figure(), 340, y=f"{label} TTFT (ms)")
    replayed = [row["predicted_ttft_ms"][quantile] for row in rows]
    figure.add_trace(
        go.Bar(
            x=[escape(row["policy"]) for row in rows],
            y=replayed,
            text=[number(value) for value in replayed],
            textposition="inside",
            insidetextanchor="start",
            textfont={"color": "white"},
            name="replayed",
            marker={"color": [look[row["policy"]].colour if row["policy"] in look else INK for row in rows]},
            hovertemplate="%{x}, replayed: %{y:,.0f} ms<extra></extra>",
        )
    )
    measured = {row["measured_dataset"]: row["ttft_ms"][quantile] for row in rows}
    for value in measured.values():
        figure.add_hline(value, line={"color": INK, "dash": "dot", "width": 2})
    legend = "<br>".join(f"dotted: {number(value)} ms in {escape(dataset)}" for dataset, value in measured.items())
    place = {"xref": "paper", "yref": "paper", "x": 1, "y": 1, "xanchor": "right", "yanchor": "bottom"}
    figure.add_annotation(text=legend, showarrow=False, align="right", **place)
    heights = [value for value in (*replayed, *measured.values()) if value is not None]
    figure.update_yaxes(tickformat=",", range=[0, 1.06 * max(heights)])
    return figure


def _segments(starts: Floats, ends: Floats) -> Floats:
    """Return start, end, gap, start, end, gap, … for lines that do not touch."""
    return np.column_stack([starts, ends, np.full(len(starts), np.nan)]).ravel()
