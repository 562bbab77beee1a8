"""Figures of a replay. Points are thinned before they are drawn, so that a report stays small."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from lodestar.data.schema import (
    ARRIVED_AT_S,
    INSTANCE_INDEX,
    POLICY,
    TTFT_MS,
    WAITING_REQUESTS,
)
from lodestar.reports.colours import GRID, INK, Look, looks
from lodestar.reports.numbers import decimals, number, percent
from lodestar.reports.result import LATENCIES, LatencyName, Measured, QuantileName, Result

__all__ = [
    "calibration_figure",
    "cdf_figure",
    "difference_figure",
    "measured_figure",
    "queue_figure",
    "replay_figures",
    "ttft_over_time_figure",
]

Floats = NDArray[np.float64]

CDF_LEVELS: Final = np.unique(np.concatenate([np.linspace(0, 0.9, 91), np.linspace(0.9, 1, 61)]))
TIME_BUCKETS: Final = 60
QUEUE_BUCKETS: Final = 120
FEWEST_FOR_P90: Final = 10  # a P90 of fewer requests is their maximum under another name


def replay_figures(result: Result, replay_dir: Path) -> dict[str, go.Figure]:
    """Return every figure that the files of a replay allow, by name, in the order of a report."""
    requests = pl.read_parquet(replay_dir / "requests.parquet")
    look = looks(policy["policy"] for policy in result["policies"])
    figures = {f"difference_{latency}": difference_figure(result, latency, look) for latency in LATENCIES}
    figures |= {
        f"cdf_{latency}": cdf_figure(requests, latency, look, result["slo"].get(latency)) for latency in LATENCIES
    }
    figures["ttft_over_time"] = ttft_over_time_figure(requests, look)
    figures["queue"] = queue_figure(pl.read_parquet(replay_dir / "queue.parquet"), list(look))
    if (replay_dir / "calibration.parquet").exists():
        rows = pl.read_parquet(replay_dir / "calibration.parquet")
        for target in rows["target"].unique(maintain_order=True):
            figures[f"calibration_{target}"] = calibration_figure(rows.filter(target=target), target)
    if measured := result.get("measured"):
        figures["measured_mean"] = measured_figure(measured, "mean", look)
        figures["measured_p99"] = measured_figure(measured, "p99", look)
    return figures


def cdf_figure(
    requests: pl.DataFrame, latency: LatencyName, look: dict[str, Look], slo_ms: float | None = None
) -> go.Figure:
    """Draw the share of requests below each latency, one line a policy, seed 0."""
    figure = _figure(f"{_name(latency)} (ms)", "requests below, %", height=320)
    for policy, of_policy in look.items():
        values = _finite(requests.filter(pl.col(POLICY) == policy)[latency])
        if len(values):
            found = np.quantile(values, CDF_LEVELS, method="inverted_cdf")
            figure.add_trace(_line(policy, of_policy, found, 100 * CDF_LEVELS, "%{x:,.4~g} ms, %{y:.1f} %"))
    figure.update_xaxes(type="log", **_LOG_TICKS)
    figure.update_yaxes(tickvals=[0, 25, 50, 75, 90, 100], range=[0, 101])
    if slo_ms:
        figure.add_vline(slo_ms, line={"color": INK, "dash": "dot", "width": 1.5})
        figure.add_annotation(
            x=np.log10(slo_ms), y=0, text="SLO", showarrow=False, xanchor="left", yanchor="bottom", xshift=3
        )
    return figure


def ttft_over_time_figure(requests: pl.DataFrame, look: dict[str, Look]) -> go.Figure:
    """Draw mean and P90 TTFT of the requests that arrived in each of 60 equal times, seed 0."""
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.06)
    last_s = float(requests[ARRIVED_AT_S].cast(pl.Float64).to_numpy().max())
    scale, unit = _clock(last_s)
    for policy, of_policy in look.items():
        buckets = _over_time(requests.filter(pl.col(POLICY) == policy), last_s)
        for row, column in ((1, "mean"), (2, "p90")):
            line = _line(policy, of_policy, buckets["time_s"].to_numpy() / scale, buckets[column].to_numpy(), "%{y:,.0f} ms")
            line.connectgaps = False
            figure.add_trace(line.update(showlegend=row == 1), row=row, col=1)
    _dress(figure, height=460)
    figure.update_xaxes(title=f"arrival, {unit} from the first", row=2, col=1)
    figure.update_yaxes(title="mean TTFT (ms)", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="P90 TTFT (ms)", rangemode="tozero", row=2, col=1)
    figure.update_layout(hovermode="x unified")
    return figure


def queue_figure(queue: pl.DataFrame, policies: list[str]) -> go.Figure:
    """Draw the mean number of waiting requests by instance and time, one panel a policy, seed 0."""
    titles = [escape(policy) for policy in policies]
    instances = int(queue[INSTANCE_INDEX].n_unique())
    panel = min(260, 40 + 14 * instances)
    height = 70 + (panel + 34) * len(policies)
    figure = make_subplots(
        len(policies), 1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=34 / (height - 70)
    )
    last_s = float(queue["time_s"].cast(pl.Float64).to_numpy().max())
    scale, unit = _clock(last_s)
    for row, policy in enumerate(policies, start=1):
        times, names, depth = _depths(queue.filter(pl.col(POLICY) == policy), last_s)
        figure.add_trace(
            go.Heatmap(
                x=times / scale,
                y=names,
                z=depth,
                coloraxis="coloraxis",
                hovertemplate=f"instance %{{y}}, %{{x:,.4~g}} {unit}: %{{z:.1f}} waiting<extra>{escape(policy)}</extra>",
            ),
            row=row,
            col=1,
        )
    _dress(figure, height)
    figure.update_yaxes(title="instance", showgrid=False, autorange="reversed", dtick=max(1, instances // 8))
    figure.update_xaxes(showgrid=False)
    figure.update_xaxes(title=f"{unit} from the first arrival", row=len(policies), col=1)
    bar = {"title": {"text": "waiting requests", "side": "right"}, "thickness": 12}
    figure.update_layout(coloraxis={"colorscale": "Cividis", "cmin": 0, "colorbar": bar})
    figure.update_annotations(x=0, xanchor="left")
    return figure


def difference_figure(result: Result, latency: LatencyName, look: dict[str, Look]) -> go.Figure:
    """Draw each policy's mean difference to the baseline with its 95 % interval; left of zero is faster."""
    found = [(p["policy"], p["difference"][latency]) for p in result["policies"] if p["difference"] is not None]
    places = decimals([difference["mean"] for _, difference in found])
    figure = _figure(f"{_name(latency)} difference to {escape(result['baseline'])} (ms)", "", 110 + 42 * len(found))
    for policy, difference in found:
        low, high = difference["ci95"]
        error = {"array": [high - difference["mean"]], "arrayminus": [difference["mean"] - low], "thickness": 2}
        figure.add_trace(
            go.Scatter(
                x=[difference["mean"]],
                y=[escape(policy)],
                error_x={**error, "type": "data", "symmetric": False, "width": 5},
                mode="markers+text",
                text=[number(difference["mean"], places, signed=True)],
                textposition="top center",
                marker={"color": look[policy].colour, "size": 10},
                name=escape(policy),
                cliponaxis=False,
                hovertemplate=f"%{{text}} ms, 95 %: {number(low, places, True)} to {number(high, places, True)}<extra></extra>",
            )
        )
    figure.add_vline(0, line={"color": INK, "width": 1.5})
    figure.update_xaxes(rangemode="tozero", zeroline=False, nticks=5)
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True)
    return figure


def calibration_figure(rows: pl.DataFrame, target: str) -> go.Figure:
    """Draw measured against predicted latency by decile of the prediction, on rows held out from training."""
    name = _name(target)
    figure = _figure(f"predicted {name} (ms)", f"measured {name} (ms)", 340)
    predicted, measured = (_finite(rows[column]) for column in ("predicted_ms", "measured_ms"))
    deciles = np.array_split(np.argsort(predicted, kind="stable"), min(10, len(predicted)))
    x = np.array([np.median(predicted[part]) for part in deciles])
    low, middle, high = np.array([np.quantile(measured[part], [0.1, 0.5, 0.9]) for part in deciles]).T
    ends = [min(x.min(), low[low > 0].min(initial=x.min())), max(x.max(), high.max())]
    figure.add_trace(
        go.Scatter(x=ends, y=ends, mode="lines", line={"color": INK, "dash": "dot", "width": 1.5}, name="perfect")
    )
    error = {"type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low, "width": 4}
    figure.add_trace(
        go.Scatter(
            x=x,
            y=middle,
            error_y=error,
            mode="markers",
            marker={"color": INK, "size": 9},
            name="decile: median, P10 to P90",
            hovertemplate="predicted %{x:,.4~g} ms<br>measured %{y:,.4~g} ms<extra></extra>",
        )
    )
    figure.update_xaxes(type="log", **_LOG_TICKS)
    figure.update_yaxes(type="log", **_LOG_TICKS)
    return figure


def measured_figure(rows: list[Measured], quantile: QuantileName, look: dict[str, Look]) -> go.Figure:
    """Draw measured (filled) beside replayed (hatched) TTFT of every policy that also ran on the cluster."""
    label = quantile if quantile == "mean" else quantile.upper()
    figure = _figure("", f"TTFT {label} (ms)", 320)
    names = [escape(row["policy"]) for row in rows]
    colours = [look[row["policy"]].colour if row["policy"] in look else INK for row in rows]
    for kind, key, shape in (("measured", "ttft_ms", ""), ("replayed", "predicted_ttft_ms", "/")):
        values = [row["ttft_ms" if key == "ttft_ms" else "predicted_ttft_ms"][quantile] for row in rows]
        texts = [f"{kind}<br>{number(value)}" for value in values]
        pattern = {"shape": shape, "fillmode": "replace", "solidity": 0.35}
        figure.add_trace(
            go.Bar(
                x=names,
                y=values,
                text=texts,
                textposition="outside",
                name=kind,
                marker={"color": colours, "pattern": pattern, "line": {"color": colours, "width": 1.5}},
                cliponaxis=False,
                hovertemplate=f"{kind} %{{y:,.0f}} ms<extra>%{{x}}</extra>",
            )
        )
    return figure
