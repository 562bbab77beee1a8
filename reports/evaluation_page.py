"""One HTML file an evaluation: no network, no storage, so that it opens anywhere, also in MLflow's sandboxed frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lodestar import __version__
from lodestar.models.evaluation.shap import ShapPoints
from lodestar.reports.evaluation import judged_on, model_names
from lodestar.reports.evaluation_figures import evaluation_figures
from lodestar.reports.evaluation_grids import evaluation_grids
from lodestar.reports.evaluation_summary import summary_grid
from lodestar.reports.grids import Grid
from lodestar.reports.numbers import number

__all__ = ["evaluation_page"]

#: Figure → its heading, and what to know to read it.
TITLES: Final = {
    "reliability": ("Reliability of the mean", "A tenth of the requests each; dotted: as predicted."),
    "calibration": (
        "Calibration of the quantiles",
        "Blue: following its errors; orange, if any: frozen; dotted: as claimed.",
    ),
    "coverage": ("Coverage of the P90 by slice", "Bars: 95 % intervals."),
    "permutation": (
        "Permutation importance",
        "Orange: a group of features that rise and fall together, put in the same random order.",
    ),
    "shap": (
        "SHAP values",
        "One point a request; blue: a low value of the feature, orange: a high one. They tell of the trees alone: the "
        "baseline, which carries much of the prediction, has none.",
    ),
}


SIDE_BY_SIDE: Final = ("reliability", "calibration")


class Drawn(NamedTuple):
    """A figure's place in the page."""

    name: str
    title: str
    note: str
    height: int
    wide: bool


class Part(NamedTuple):
    """What the page says of one target."""

    name: str
    judged_on: dict[str, str]
    grids: list[Grid]
    figures: list[Drawn]


def evaluation_page(document: Mapping[str, Any], shap: Mapping[str, ShapPoints]) -> str:
    """Return the page as HTML.

    Args:
        document: ``Evaluation.to_dict()``.
        shap: target → contributions row by row; targets may be missing.
    """
    figures: dict[str, go.Figure] = {}
    parts = []
    for target, found in document["targets"].items():
        drawn = evaluation_figures(target, found, shap.get(target))
        figures |= {f"{target}_{name}": figure for name, figure in drawn.items()}
        places = [
            Drawn(f"{target}_{name}", *TITLES[name], figure.layout.height, name not in SIDE_BY_SIDE)
            for name, figure in drawn.items()
        ]
        grids = list(evaluation_grids(target, found, model_names(document)).values())
        parts.append(Part(target.removesuffix("_ms").upper(), judged_on(found), grids, places))
    template = _environment().get_template("evaluation.html.j2")
    return template.render(
        document=document,
        summary=summary_grid(document),
        parts=parts,
        lists=_lists(document),
        figures_json=_json(figures),
        plotly_js=Markup(get_plotlyjs()),
    ).lstrip()


def _lists(document: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    made = {
        "trained on": document["trained_on"],
        "seed": number(document["seed"]),
        "page written by": f"Lodestar {__version__}",
    }
    return {"Not judged": document["skipped"], "What the log left out": document["notes"], "How it was made": made}


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names come from logs
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _json(figures: Mapping[str, go.Figure]) -> Markup:
    """Return the figures as JSON that cannot end the script element that holds it."""
    parts = (f'"{name}":{figure.to_json()}' for name, figure in figures.items())
    return Markup(f"{{{','.join(parts)}}}".replace("<", "\\u003c"))
