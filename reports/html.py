"""One HTML file a replay: no network, no storage, so that it opens anywhere, also in MLflow's sandboxed frame."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final, NamedTuple

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lodestar import __version__
from lodestar.reports.colours import looks
from lodestar.reports.estimate_grids import estimate_grids
from lodestar.reports.evidence import gates_grid, measured_grid
from lodestar.reports.numbers import number, plain
from lodestar.reports.plots import replay_figures
from lodestar.reports.policies import FULL, policy_grid
from lodestar.reports.ranks import ranks_grid
from lodestar.reports.result import Result, read_result
from lodestar.reports.said import said_once, sentence
from lodestar.reports.tuning import tuning_grid

__all__ = ["write_report"]

BORDERS: Final = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "double"}


class Chip(NamedTuple):
    """One entry of the legend: a policy, the name of its traces, its colour and CSS border style."""

    policy: str
    trace: str
    colour: str
    border: str


def write_report(replay_dir: Path, to: Path) -> Path:
    """Write the report of one replay.

    Args:
        replay_dir: the directory with ``result.json`` and its Parquet files.
        to: the HTML file to write; its directory is made if need be.

    Returns:
        `to`.
    """
    result = read_result(replay_dir)
    page = _page(result, replay_figures(result, replay_dir))
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(page.lstrip(), encoding="utf-8")
    return to


def _page(result: Result, figures: dict[str, go.Figure]) -> str:
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            result=result,
            verdict=result["trust"]["verdict"],
            policies=[policy_grid(result, columns) for columns in FULL],
            ranks=ranks_grid(result),
            gates=gates_grid(result),
            measured=measured_grid(result),
            tuning=tuning_grid(result, full=True),
            estimates=estimate_grids(result),
            chips=_legend(result),
            heights={name: figure.layout.height for name, figure in figures.items()},
            facts=_facts(result),
            figures_json=_json(figures),
            plotly_js=Markup(get_plotlyjs()),
            version=__version__,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names come from logs
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, plain=plain, sentence=sentence)
    return environment


def _legend(result: Result) -> list[Chip]:
    look = looks(policy["policy"] for policy in result["policies"])
    return [Chip(policy, escape(policy), its.colour, BORDERS[its.dash]) for policy, its in look.items()]


def _facts(result: Result) -> dict[str, dict[str, object]]:
    """Return what the replay stands on and how it was made, as lists of terms and what they are."""
    engine = result["engine"]
    made = {
        "command": result.get("command") or "not recorded",
        "made at": result["created_at"],
        "seeds": result["seeds"],
        "requests × instances": f"{number(result['requests'])} × {result['instances']}",
        "speed": f"{number(result.get('requests_per_s'))} requests/s",
        "versions": result.get("versions") or "not recorded",
        "report written by": f"Lodestar {__version__}",
    }
    return {
        "engine": {
            "source": engine["source"],
            "cache, tokens an instance": engine["kv_capacity_tokens"],
            "number of instances": engine.get("instances") or "not recorded",
        },
        "coefficients": dict(engine["coefficients"]),
        "fit": dict(engine.get("fit") or {}),
        "inferred": {", ".join(terms): said for said, terms in said_once(result["inferred"].items()).items()},
        "model": dict(result.get("model") or {}),
        "made": made,
    }


def _json(figures: dict[str, go.Figure]) -> Markup:
    """Return the figures as JSON that cannot end the script element that holds it."""
    parts = (f'"{name}":{figure.to_json()}' for name, figure in figures.items())
    return Markup(f"{{{','.join(parts)}}}".replace("<", "\\u003c"))
