"""The figure of a derivative over its horizons: where it comes to rest, and how much noise that costs."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lodestar.reports.canvas import dressed, policy_line
from lodestar.reports.colours import GRID, INK, Look

__all__ = ["derivative_figure"]

_BAND = 0.15  # how much of the colour a band of ± 2 standard errors has


def derivative_figure(
    paths: Mapping[str, Mapping[str, Any]], look: Mapping[str, Look], unit: str = "ms of TTFT"
) -> go.Figure:
    """Draw D_H over H, one line a policy, a band of ± 2 standard errors around it, and a ring where it was read.

    Args:
        paths: policy → `DerivativePath.to_dict()`.
        look: of each policy.
        unit: of the cost.
    """
    figure = dressed(go.Figure(), 360, "later requests that count (H)", f"slope towards the policy ({unit})")
    for policy, path in paths.items():
        horizon, value, se = (np.array([row[key] for row in path["path"]], float) for key in ("horizon", "value", "se"))
        colour = look[policy].colour
        figure.add_trace(
            go.Scatter(
                x=np.concatenate([horizon, horizon[::-1]]),
                y=np.concatenate([value - 2 * se, (value + 2 * se)[::-1]]),
                fill="toself",
                fillcolor=colour,
                opacity=_BAND,
                line={"width": 0},
                legendgroup=escape(policy),
                showlegend=False,
                hoverinfo="skip",
            )
        )
        figure.add_trace(policy_line(policy, look[policy], horizon, value, "H = %{x:,}: %{y:,.1f}"))
        figure.add_trace(
            go.Scatter(
                x=[path["horizon"]],
                y=[path["value"]],
                mode="markers",
                marker={"color": colour, "size": 12, "symbol": "circle-open", "line": {"width": 2}},
                legendgroup=escape(policy),
                showlegend=False,
                hovertemplate=f"read at H = {path['horizon']:,}: {path['value']:,.1f} ± {2 * path['se']:,.1f}"
                f"<extra>{escape(policy)}</extra>",
            )
        )
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    longest = max((path["path"][-1]["horizon"] for path in paths.values()), default=1)
    ends = [-0.05, float(np.log10(max(2, longest))) + 0.05]
    figure.update_xaxes(type="log", dtick="D2", tickformat=",", gridcolor=GRID, range=ends)
    figure.update_yaxes(tickformat=",")
    return figure
