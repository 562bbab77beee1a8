"""How good a predictor is, in the terminal: beside a constant and linear regression, on rows held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import decimals, number, percent, plain
from lodestar.reports.tables import grid_table, sentences

__all__ = ["accuracy_grid", "load_grid", "train_tables", "tune_tables"]

PREDICTORS: Final = ("model", "constant", "linear")


def train_tables(report: Mapping[str, Any]) -> RenderableType:
    """Draw what a training did: for each target the decision, the errors and the errors by load.

    Args:
        report: ``TrainReport.to_dict()``.
    """
    heading = Text().append("Dataset ").append(report["dataset"], style="bold")
    heading.append(f", models {report['version']}\n" if report["version"] else ", no models yet\n")
    parts: list[RenderableType] = [heading]
    for target, found in report["targets"].items():
        parts.append(_decision(target, found))
        if found["metrics"] is not None:
            parts.append(grid_table(accuracy_grid(target, found["metrics"])))
            parts += _warnings(target, found["metrics"])
            parts.append(grid_table(load_grid(target, found["metrics"]["by_load"])))
    for title, items in (("Not trained", report["skipped"]), ("What the log left out", report["notes"])):
        if items:
            parts.append(sentences(title, items))
    return Group(*parts)


def _warnings(target: str, metrics: Mapping[str, Any]) -> list[RenderableType]:
    """Say it where a simpler predictor did better."""
    errors = {name: metrics[name]["mae_ms"] for name in PREDICTORS}
    better = [name for name in PREDICTORS[1:] if errors[name] < errors["model"]]
    if not better:
        return []
    simpler = " and ".join({"constant": "a constant", "linear": "linear regression"}[name] for name in better)
    return [Text(f"{simpler} predicted {_name(target)} better than the model on these requests.\n", style="yellow")]


def tune_tables(report: Mapping[str, Any]) -> RenderableType:
    """Draw what a search found, then what the training with it did.

    Args:
        report: ``TuneReport.to_dict()``.
    """
    title = f"{_name(report['target'])} of {report['dataset']}: {number(report['trials'])} trials"
    done = f"{number(report['trials_before'])} before this call, {number(report['pruned'])} stopped early"
    if report["interrupted"]:
        done += f", {number(report['interrupted'])} left unfinished by an earlier call"
    values = {
        "trials": done,
        "best": f"{number(report['best_value'], 4)} of the MAE of linear regression, mean over folds forward in time",
        "defaults": f"{number(report['default_value'], 4)} of it",
        "study": report["study"],
    }
    parameters = {name: plain(value) for name, value in report["best_parameters"].items()}
    return Group(sentences(title, values), sentences("Best parameters", parameters), train_tables(report["training"]))


def _decision(target: str, found: Mapping[str, Any]) -> Text:
    """Say in two lines what became of one target and why."""
    verdict = found["verdict"]
    text = Text().append(_name(target), style="bold").append(f" {found['mode']}: {found['reason']}\n")
    if verdict is not None:
        word, style = ("promoted", "bold green") if found["promoted"] else ("refused", "bold red")
        text.append(word, style=style).append(f": {verdict['reason']}; {number(found['trees'])} trees\n")
    return text


def accuracy_grid(target: str, metrics: Mapping[str, Any]) -> Grid:
    """Return one row a predictor: error, bias and explained variance on held-out rows.

    Args:
        target: ``ttft_ms`` or ``tpot_ms``.
        metrics: what `models.evaluate.evaluate` returns.
    """
    found = [metrics[name] for name in PREDICTORS]
    errors = [each["mae_ms"] for each in found]
    places = decimals(errors)
    columns = [
        Column("predictor", "", [Cell(name) for name in PREDICTORS], left=True),
        Column("MAE", "ms", _marked(errors, places)),
        Column("MAPE", "%", [Cell(percent(each["mape"])) for each in found]),
        Column("bias", "ms", [Cell(number(each["bias_ms"], places, signed=True)) for each in found]),
        Column("R²", "", [Cell(number(each["r2"], 3)) for each in found]),
        Column("R² log", "", [Cell(number(each["r2_log"], 3)) for each in found]),
    ]
    covered = [f"{name.upper()} {percent(each['coverage'])} %" for name, each in metrics["quantiles"].items()]
    title = (
        f"{_name(target)}: trained on {number(metrics['rows_trained'])} requests, "
        f"measured on the {number(metrics['rows_held_out'])} after them"
    )
    return Grid(title, columns, [f"Measured at or below the predicted quantile: {', '.join(covered)}."])


def load_grid(target: str, lines: Sequence[Mapping[str, Any]]) -> Grid:
    """Return the mean absolute error of each predictor by how many requests waited at the chosen instance.

    Args:
        target: ``ttft_ms`` or ``tpot_ms``.
        lines: what `models.metrics.by_load` returns.
    """
    slices = list(dict.fromkeys(line["waiting_requests"] for line in lines))
    predictors = list(dict.fromkeys(line["predictor"] for line in lines))
    found = {(line["waiting_requests"], line["predictor"]): line for line in lines}
    rows = {line["waiting_requests"]: line["rows"] for line in lines}
    places = decimals([line["mae_ms"] for line in lines])
    marked = [_marked([found[name, predictor]["mae_ms"] for predictor in predictors], places) for name in slices]
    columns = [
        Column("waiting", "requests", [Cell(name) for name in slices], left=True),
        Column("held out", "rows", [Cell(number(rows[name])) for name in slices]),
        *(Column(f"{predictor} MAE", "ms", [cells[i] for cells in marked]) for i, predictor in enumerate(predictors)),
    ]
    return Grid(f"{_name(target)} by load of the chosen instance", columns)


def _marked(errors: Sequence[float], places: int) -> list[Cell]:
    return [Cell(number(error, places), mark="best" if error == min(errors) else "") for error in errors]


def _name(target: str) -> str:
    return target.removesuffix("_ms").upper()
