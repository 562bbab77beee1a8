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

from lodestar.data.schema import ARRIVED_AT_S, INSTANCE_INDEX, POLICY, REQUEST_INDEX, TTFT_MS, WAITING_REQUESTS
from lodestar.reports.canvas import LOG_AXIS, clock, dressed, finite, latency_title, policy_line
from lodestar.reports.colours import INK, Look, looks
from lodestar.reports.comparisons import calibration_figure, difference_figure, measured_figure
from lodestar.reports.derivative_figure import derivative_figure
from lodestar.reports.result import LATENCIES, LatencyName, Result
from lodestar.reports.tuning_figure import tuning_figure

__all__ = ["cdf_figure", "queue_figure", "replay_figures", "ttft_over_time_figure"]

Floats = NDArray[np.float64]

CDF_LEVELS: Final = np.unique(np.concatenate([np.linspace(0, 0.9, 91), np.linspace(0.9, 1, 61)]))
TIME_BUCKETS: Final = 60
QUEUE_BUCKETS: Final = 120
FEWEST_FOR_P90: Final = 10  # a P90 of fewer requests is their maximum under another name


def replay_figures(result: Result, replay_dir: Path) -> dict[str, go.Figure]:
    """Return every figure that the files of a replay allow, by name, in the order of a report."""
    requests = pl.read_parquet(replay_dir / "requests.parquet")
    window = result.get("window")
    counted = requests.filter(pl.col(REQUEST_INDEX) >= (window["warmup_requests"] if window else 0))
    look = looks(policy["policy"] for policy in result["policies"])
    slo = result["slo"]
    figures: dict[str, go.Figure] = {}
    if any(policy["difference"] for policy in result["policies"]):
        figures |= {f"difference_{name}": difference_figure(result, name, look) for name in LATENCIES}
    figures |= {f"cdf_{name}": cdf_figure(counted, name, look, slo.get(name)) for name in LATENCIES}
    figures["ttft_over_time"] = ttft_over_time_figure(requests, look, window["from_s"] if window else 0.0)
    figures["queue"] = queue_figure(pl.read_parquet(replay_dir / "queue.parquet"), list(look))
    figures |= _calibrations(replay_dir / "calibration.parquet")
    if tuning := result.get("tuning"):
        figures["tuning"] = tuning_figure(tuning, result["tuning_how"]["objective"], look)
    if derivatives := result.get("derivatives"):
        figures["derivatives"] = derivative_figure({row["policy"]: row for row in derivatives}, look)
    if measured := result.get("measured"):
        figures["measured_mean"] = measured_figure(measured, "mean", look)
        figures["measured_p99"] = measured_figure(measured, "p99", look)
    return figures


def cdf_figure(
    requests: pl.DataFrame, latency: LatencyName, look: dict[str, Look], slo_ms: float | None = None
) -> go.Figure:
    """Draw the share of requests below each latency, one line a policy."""
    figure = dressed(go.Figure(), 320, f"{latency_title(latency)} (ms)", "requests below (%)")
    for policy, its_look in look.items():
        values = finite(requests.filter(pl.col(POLICY) == policy)[latency])
        if len(values):
            found = np.quantile(values, CDF_LEVELS, method="inverted_cdf")
            hover = "%{y:.1f} % below %{x:,.4~g} ms"
            figure.add_trace(policy_line(policy, its_look, found, 100 * CDF_LEVELS, hover))
    figure.update_xaxes(**LOG_AXIS)
    figure.update_yaxes(tickvals=[0, 25, 50, 75, 90, 100], range=[0, 101])
    if slo_ms:
        figure.add_vline(slo_ms, line={"color": INK, "dash": "dot", "width": 1.5})
        place = {"xanchor": "left", "yanchor": "bottom", "xshift": 3, "showarrow": False}
        figure.add_annotation(x=np.log10(slo_ms), y=0, text="SLO", **place)
    return figure


def ttft_over_time_figure(requests: pl.DataFrame, look: dict[str, Look], warm_at_s: float = 0.0) -> go.Figure:
    """Draw mean and P90 TTFT of the requests that arrived in each of 60 equal spans of time; shade the warm-up."""
    figure = dressed(make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.06), 460)
    last_s = float(finite(requests[ARRIVED_AT_S]).max())
    scale, unit = clock(last_s)
    for policy, its_look in look.items():
        spans = _ttft_by_span(requests.filter(pl.col(POLICY) == policy), last_s)
        for row, column in enumerate(("mean", "p90"), start=1):
            at, values = (spans[name].to_numpy() for name in ("time_s", column))
            line = policy_line(policy, its_look, at / scale, values, "%{y:,.0f} ms")
            figure.add_trace(line.update(showlegend=row == 1), row=row, col=1)
            figure.update_yaxes(title={"text": f"{column.upper() if row == 2 else column} TTFT (ms)"}, row=row, col=1)
    figure.update_xaxes(title={"text": f"arrival ({unit} after the first)"}, row=2, col=1)
    figure.update_yaxes(rangemode="tozero", tickformat=",")
    figure.update_layout(hovermode="x unified")
    if warm_at_s > 0:
        figure.add_vrect(0, warm_at_s / scale, fillcolor=INK, opacity=0.15, line_width=0, layer="below")
    return figure


def queue_figure(queue: pl.DataFrame, policies: list[str]) -> go.Figure:
    """Draw the mean number of waiting requests by instance and time, one panel a policy, one scale for all."""
    instances = queue[INSTANCE_INDEX].n_unique()
    gap, panel = 34, min(260, 40 + 14 * instances)
    drawn = (panel + gap) * len(policies)
    titles = [escape(policy) for policy in policies]
    figure = make_subplots(len(policies), 1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=gap / drawn)
    last_s = float(finite(queue["time_s"]).max())
    scale, unit = clock(last_s)
    for row, policy in enumerate(policies, start=1):
        at, names, depth = _queue_by_span(queue.filter(pl.col(POLICY) == policy), last_s)
        hover = f"instance %{{y}} at %{{x:,.4~g}} {unit}: %{{z:.1f}} waiting<extra>{escape(policy)}</extra>"
        panel_map = go.Heatmap(x=at / scale, y=names, z=depth, coloraxis="coloraxis", hovertemplate=hover)
        figure.add_trace(panel_map, row=row, col=1)
    dressed(figure, drawn + 80)
    figure.update_xaxes(showgrid=False)
    figure.update_xaxes(title={"text": f"{unit} after the first arrival"}, row=len(policies), col=1)
    figure.update_yaxes(title={"text": "instance"}, showgrid=False, autorange="reversed", dtick=-(-instances // 8))
    bar = {"title": {"text": "waiting requests", "side": "right"}, "thickness": 12}
    figure.update_layout(coloraxis={"colorscale": "Cividis", "cmin": 0, "colorbar": bar})
    figure.update_annotations(x=0, xanchor="left")
    return figure


def _calibrations(path: Path) -> dict[str, go.Figure]:
    if not path.exists():
        return {}
    rows = pl.read_parquet(path)
    targets = rows["target"].unique(maintain_order=True)
    return {f"calibration_{target}": calibration_figure(rows.filter(target=target), target) for target in targets}


def _ttft_by_span(requests: pl.DataFrame, last_s: float) -> pl.DataFrame:
    """Return time_s (middle of a span), mean and p90; empty spans are rows too, so that lines break there."""
    span_s = max(last_s, 1e-9) / TIME_BUCKETS
    served = pl.col(TTFT_MS).fill_nan(None).drop_nulls()
    every = pl.DataFrame({"span": range(TIME_BUCKETS)}, schema={"span": pl.Int64})
    found = (
        requests.with_columns(span=(pl.col(ARRIVED_AT_S) / span_s).cast(pl.Int64).clip(0, TIME_BUCKETS - 1))
        .group_by("span")
        .agg(
            mean=served.mean(),
            p90=pl.when(served.len() >= FEWEST_FOR_P90).then(served.quantile(0.9)),
        )
    )
    joined = every.join(found, on="span", how="left").sort("span")
    return joined.with_columns(time_s=(pl.col("span") + 0.5) * span_s)


def _queue_by_span(queue: pl.DataFrame, last_s: float) -> tuple[Floats, list[int], NDArray[np.float32]]:
    """Return span middles (s), instance indexes and the mean depth, NaN where no sample lies."""
    spans = min(QUEUE_BUCKETS, max(1, queue["time_s"].n_unique()))
    span_s = max(last_s, 1e-9) / spans
    names = sorted(queue[INSTANCE_INDEX].unique().to_list())
    depth: NDArray[np.float32] = np.full((len(names), spans), np.nan, dtype=np.float32)
    found = (
        queue.with_columns(span=(pl.col("time_s") / span_s).cast(pl.Int64).clip(0, spans - 1))
        .group_by(INSTANCE_INDEX, "span")
        .agg(pl.col(WAITING_REQUESTS).mean())
    )
    places = np.searchsorted(names, found[INSTANCE_INDEX].to_numpy())
    depth[places, found["span"].to_numpy()] = found[WAITING_REQUESTS].to_numpy()
    middles = np.asarray((np.arange(spans) + 0.5) * span_s, dtype=np.float64)
    return middles, names, depth
