"""The figures of an evaluation: reliability, coverage, what the model leans on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from lodestar.models.evaluation.shap import ShapPoints
from lodestar.models.evaluation.spearman import midranks
from lodestar.reports.canvas import LOG_AXIS, dressed, latency_title
from lodestar.reports.colours import INK, PALETTE

__all__ = ["calibration_curve", "coverage_figure", "evaluation_figures", "permutation_figure", "reliability_figure",
           "shap_figure"]  # fmt: skip

Floats = NDArray[np.float64]

MOST_FEATURES: Final = 14
MOST_POINTS: Final = 300  # a feature
BLUE, ORANGE = PALETTE[0], PALETTE[1]


def evaluation_figures(target: str, found: Mapping[str, Any], shap: ShapPoints | None) -> dict[str, go.Figure]:
    """Return the figures of one target by what they show.

    Args:
        target: such as ``ttft_ms``.
        found: what `models.evaluation.target.evaluate_target` returns.
        shap: contributions row by row, if at hand.
    """
    figures = {"reliability": reliability_figure(found["reliability"], latency_title(target))}
    if found["quantiles"]:
        figures["calibration"] = calibration_curve(found["quantiles"])
        figures["coverage"] = coverage_figure(found["slices"])
    figures["permutation"] = permutation_figure(found["permutation"])
    if shap is not None:
        figures["shap"] = shap_figure(shap)
    return figures


def reliability_figure(rows: Sequence[Mapping[str, Any]], latency: str) -> go.Figure:
    """Draw the measured mean of each tenth of the rows by prediction over its predicted mean."""
    figure = dressed(go.Figure(), 380, f"predicted mean {latency} (ms)", f"measured mean {latency} (ms)")
    x = [row["predicted_ms"] for row in rows]
    ends = [min(x), max(x)]
    figure.add_trace(_line(ends, ends))
    figure.add_trace(_points(x, [row["measured_ms"] for row in rows], "%{y:,.0f} ms where %{x:,.0f} are predicted"))
    figure.update_xaxes(**LOG_AXIS)
    figure.update_yaxes(**LOG_AXIS)
    return figure


def calibration_curve(quantiles: Mapping[str, Any]) -> go.Figure:
    """Draw the share of latencies below each stated quantile over the share that it claims."""
    figure = dressed(go.Figure(), 380, "claimed (%)", "covered (%)")
    x = [100.0 * row["share"] for row in quantiles.values()]
    figure.add_trace(_line([0.0, 100.0], [0.0, 100.0]))
    for name, colour, told in (("frozen_coverage", ORANGE, "frozen"), ("coverage", BLUE, "following its errors")):
        if all(row[name] for row in quantiles.values()):
            cells = [_percent(row[name]) for row in quantiles.values()]
            figure.add_trace(_points(x, cells, f"%{{y:.1f}} % below P%{{x:.0f}}, {told}", colour, told))
    figure.update_xaxes(tickvals=[0, 25, *x], range=[0, 102])
    figure.update_yaxes(tickvals=[0, 25, *x], range=[0, 102])
    return figure


def coverage_figure(slices: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Draw the coverage of the P90 in every slice, with its interval."""
    shown = [row for row in slices if row["p90_coverage"] and row["p90_coverage"]["value"] is not None]
    names = [escape(f"{row['by']}: {row['slice']}") for row in shown]
    figure = dressed(go.Figure(), 110 + 26 * len(shown), "covered by the stated P90 (%)")
    cells = [_percent(row["p90_coverage"]) for row in shown]
    figure.add_trace(
        go.Scatter(
            x=[each["value"] for each in cells],
            y=names,
            error_x=_error(cells),
            mode="markers",
            marker={"color": BLUE, "size": 8},
            text=[f"{row['rows']:,} rows" for row in shown],
            hovertemplate="%{y}: %{x:.1f} %, %{text}<extra></extra>",
        )
    )
    figure.add_vline(90.0, line={"color": INK, "dash": "dot", "width": 1.5})
    figure.update_yaxes(autorange="reversed")
    return figure


def permutation_figure(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Draw by how much the error grows where features are put in random order."""
    shown = [row for row in rows if row["mae_growth_ms"]["value"] is not None][:MOST_FEATURES]
    figure = dressed(go.Figure(), 110 + 26 * len(shown), "MAE grows by (ms): the whole model, baseline and trees")
    growth = [row["mae_growth_ms"] for row in shown]
    figure.add_trace(
        go.Bar(
            x=[each["value"] for each in growth],
            y=[_short(row["features"]) for row in shown],
            orientation="h",
            marker={"color": [ORANGE if len(row["features"]) > 1 else BLUE for row in shown]},
            error_x=_error(growth),
            text=["<br>".join(row["features"]) for row in shown],
            textposition="none",
            hovertemplate="%{x:,.1f} ms<extra>%{text}</extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    return figure


def shap_figure(points: ShapPoints) -> go.Figure:
    """Draw the contribution of each feature in each row, coloured by the feature's value: low blue, high orange."""
    weight = np.abs(points.contributions).mean(axis=0)
    order = [column for column in np.argsort(-weight, kind="stable") if weight[column] > 0.0][:MOST_FEATURES]
    figure = dressed(go.Figure(), 130 + 34 * len(order), "contribution to log(latency / baseline): the trees alone")
    at = np.linspace(0, len(points.values) - 1, min(len(points.values), MOST_POINTS)).astype(np.int64)
    for row, column in enumerate(order):
        x, values = points.contributions[at, column], points.values[at, column]
        figure.add_trace(
            go.Scatter(
                x=x.astype(np.float32),
                y=(row + _swarm(x)).astype(np.float32),
                mode="markers",
                marker={
                    "size": 4,
                    "color": _shades(values),
                    "cmin": 0.0,
                    "cmax": 1.0,
                    "colorscale": [[0, BLUE], [1, ORANGE]],
                },
                text=[f"{value:,.4g}" for value in values],
                hovertemplate=f"{escape(points.names[column])} = %{{text}}: %{{x:+.3f}}<extra></extra>",
            )
        )
    figure.add_vline(0.0, line={"color": INK, "width": 1})
    figure.update_yaxes(
        tickvals=list(range(len(order))), ticktext=[escape(points.names[c]) for c in order], autorange="reversed"
    )
    return figure


def _shades(values: Floats) -> Floats:
    """Return the place of each value among the known ones; a missing one stands in the middle."""
    known = ~np.isnan(values)
    shades = np.full(len(values), 0.5)
    shades[known] = midranks(values[known])
    return shades.astype(np.float32).astype(np.float64)


def _swarm(x: Floats, bins: int = 60) -> Floats:
    """Return heights within ±0.4 that spread points where many lie, in turn above and below the line."""
    span = float(np.ptp(x)) or 1.0
    place = ((x - x.min()) / span * (bins - 1)).astype(np.int64)
    counts = np.bincount(place, minlength=bins)
    order = np.argsort(place, kind="stable")
    within = np.empty(len(x))
    within[order] = np.arange(len(x)) - np.repeat(np.cumsum(counts) - counts, counts)
    side = np.where(within % 2 == 0, 1.0, -1.0)
    return np.asarray(side * np.ceil(within / 2.0) / max(counts.max() / 2.0, 1.0) * 0.4)


def _points(
    x: Sequence[float], found: Sequence[Mapping[str, Any]], hover: str, colour: str = BLUE, name: str = ""
) -> go.Scatter:
    return go.Scatter(
        x=list(x),
        y=[each["value"] for each in found],
        error_y=_error(found),
        mode="markers",
        marker={"color": colour, "size": 8},
        name=name,
        hovertemplate=f"{hover}<extra></extra>",
    )


def _error(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the bars from low to high; none where an interval is not known."""
    known = [each if each["low"] is not None and each["high"] is not None else None for each in found]
    above = [0.0 if each is None else each["high"] - each["value"] for each in known]
    below = [0.0 if each is None else each["value"] - each["low"] for each in known]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.5, "width": 4,
            "color": INK}  # fmt: skip


def _percent(found: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: None if found[name] is None else 100.0 * found[name] for name in ("value", "low", "high")}


def _line(x: Sequence[float], y: Sequence[float]) -> go.Scatter:
    line = {"color": INK, "dash": "dot", "width": 1.5}
    return go.Scatter(x=list(x), y=list(y), mode="lines", line=line, hoverinfo="skip")


def _short(features: Sequence[str]) -> str:
    return features[0] if len(features) == 1 else f"{features[0]} and {len(features) - 1} more"
