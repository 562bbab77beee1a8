"""What a search for a predictor's parameters found, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import interval, number, plain
from lodestar.reports.tables import grid_table, sentences
from lodestar.reports.training import train_tables

__all__ = ["finalists_grid", "tune_tables"]


def tune_tables(report: Mapping[str, Any]) -> RenderableType:
    """Draw what a search found, then what the training with the winner did.

    Args:
        report: ``TuneReport.to_dict()``.
    """
    name = report["target"].removesuffix("_ms").upper()
    title = f"{name} of {report['dataset']}: {number(report['trials'])} trials; {report['meaning']}"
    return Group(
        sentences(title, _found(report)),
        grid_table(finalists_grid(report["finalists"])),
        sentences(
            "Winner: the defaults" if report["is_default"] else "Winner",
            {name: plain(value) for name, value in report["best_parameters"].items()},
        ),
        train_tables(report["training"]),
    )


def finalists_grid(finalists: Sequence[Mapping[str, Any]]) -> Grid:
    """Return one row a finalist: its value in the search, then with fresh seeds and cuts, the best first.

    Args:
        finalists: what `models.tuning.finalists.Finalist` has, as dictionaries.
    """
    best = min((each["mean"] for each in finalists), default=None)
    less = [each["less_default"] for each in finalists]
    columns = [
        Column("trial", "", [Cell("defaults" if f["is_default"] else str(f["number"])) for f in finalists], left=True),
        Column("in the search", "%", [Cell(_points(each["searched"])) for each in finalists]),
        Column("again", "%", [Cell(_points(f["mean"]), mark="best" if f["mean"] == best else "") for f in finalists]),
        Column("sd by seed", "%", [Cell(_points(each["seed_sd"])) for each in finalists]),
        Column("less defaults", "%", [Cell(_ends(each), mark=_mark(each)) for each in less]),
        Column("decision", "µs", [Cell(number(each["decision_us"], 1)) for each in finalists]),
    ]
    seeds = len(finalists[0]["by_seed"]) if finalists else 0
    told = f"Again: with {seeds} fresh seeds and other cuts in time."
    return Grid("The best trials, measured again", columns, [told] if finalists else [])


def _found(report: Mapping[str, Any]) -> dict[str, str]:
    done = f"{number(report['trials_before'])} before this call, {number(report['pruned'])} stopped early"
    if report["infeasible"]:
        done += f", {number(report['infeasible'])} too slow"
    if report["interrupted"]:
        done += f", {number(report['interrupted'])} left unfinished by a process that died"
    decision, newest = report["decision"], report["newest"]
    measured = f"defaults {_points(newest['defaults'])} %"
    if "best" in newest:
        ends = interval((100 * newest["low"], 100 * newest["high"]), 2, signed=True)
        measured = f"trial {newest['trial']} {_points(newest['best'])} %, {measured}; difference {ends}"
    return {
        "trials": done,
        "best in the search": f"{_points(report['best_value'])} %, defaults {_points(report['default_value'])} %",
        "winner": report["reason"],
        "unseen requests": measured,
        "one decision": f"{number(decision['measured_us'], 1)} µs measured, {number(decision['estimated_us'], 1)} µs "
        f"estimated, {number(decision['limit_us'])} µs allowed",
        "study": report["study"],
    }


def _points(ratio: float | None) -> str:
    return number(None if ratio is None else 100 * ratio, 2)


def _ends(less: Mapping[str, float] | None) -> str:
    return number(None) if less is None else interval((100 * less["low"], 100 * less["high"]), 2, signed=True)


def _mark(less: Mapping[str, float] | None) -> Mark:
    if less is None:
        return ""
    return "good" if less["high"] < 0 else "bad" if less["low"] > 0 else ""
