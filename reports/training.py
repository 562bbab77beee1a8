"""How good a predictor is, in the terminal: beside a constant and linear regression, on rows held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import decimals, number, percent
from lodestar.reports.tables import grid_table, sentences

__all__ = ["accuracy_grid", "load_grid", "train_tables"]

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
        parts += _batch(found)
        if found["metrics"] is not None:
            parts.append(grid_table(accuracy_grid(target, found["metrics"])))
            parts += _warnings(target, found["metrics"])
            if by_load := found["metrics"]["by_load"]:
                parts.append(grid_table(load_grid(target, by_load)))
    for title, items in (("Not trained", report["skipped"]), ("What the log left out", report["notes"])):
        if items:
            parts.append(sentences(title, items))
    return Group(*parts)


def _warnings(target: str, metrics: Mapping[str, Any]) -> list[RenderableType]:
    """Say it where a simpler predictor did better, or where nothing could be measured."""
    errors = {name: metrics[name]["mae_ms"] for name in PREDICTORS}
    if None in errors.values():
        cut_off = f"all {number(metrics['rows_held_out'])} newest requests were cut off"
        return [Text(f"{cut_off}: no error of {_name(target)} is known.\n", style="yellow")]
    better = [name for name in PREDICTORS[1:] if errors[name] < errors["model"]]
    if not better:
        return []
    simpler = " and ".join({"constant": "a constant", "linear": "linear regression"}[name] for name in better)
    return [Text(f"{simpler} predicted {_name(target)} better than the model on these requests.\n", style="yellow")]


def _decision(target: str, found: Mapping[str, Any]) -> Text:
    """Say in two lines what became of one target and why."""
    verdict = found["verdict"]
    text = Text().append(_name(target), style="bold").append(f" {found['mode']}: {found['reason']}\n")
    if verdict is not None:
        word, style = ("promoted", "bold green") if found["promoted"] else ("refused", "bold red")
        text.append(word, style=style).append(f": {verdict['reason']}; {number(found['trees'])} trees\n")
    return text


def _batch(found: Mapping[str, Any]) -> list[RenderableType]:
    """Say how the new requests were predicted as they came, and what was left out of the mean."""
    said = []
    batch, stalls = found.get("batch"), (found.get("window") or {}).get("stalls", 0)
    if batch is not None and not batch["challenger"]["rows"]:
        said.append(f"batch {batch['number']}: all new requests were cut off: no error is known")
    if batch is not None and batch["challenger"]["rows"]:
        ours, theirs = batch["challenger"], batch["champion"]
        beside = "" if theirs is None else f" (the model in use: {number(theirs['mae_ms'], 1)} ms)"
        said.append(
            f"batch {batch['number']}: {number(ours['rows'])} new requests predicted as they came: "
            f"MAE {number(ours['mae_ms'], 1)} ms{beside}, P90 covers {percent(ours['coverage'])} %"
        )
    if batch is not None and batch["before"] is not None and batch["after"] is not None:
        before, after = (number(batch[name]["mae_ms"], 1) for name in ("before", "after"))
        said.append(f"on the newest of them: MAE {before} ms before this fit, {after} ms after it")
    if stalls:
        said.append(f"{number(stalls)} requests took longer or shorter than anything explains: the mean is not theirs")
    return [Text("\n".join(said) + "\n")] if said else []


def accuracy_grid(target: str, metrics: Mapping[str, Any]) -> Grid:
    """Return one row a predictor: error, bias and explained variance on held-out rows.

    Args:
        target: ``ttft_ms``, ``tpot_ms`` or ``e2e_ms``.
        metrics: what `models.evaluation.held_out.evaluate` returns.
    """
    found = [metrics[name] for name in PREDICTORS]
    errors = [each["mae_ms"] for each in found]
    places = decimals([error for error in errors if error is not None])
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
        target: ``ttft_ms``, ``tpot_ms`` or ``e2e_ms``.
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


def _marked(errors: Sequence[float | None], places: int) -> list[Cell]:
    """Mark the least; an error that nothing could measure is no error."""
    least = min((error for error in errors if error is not None), default=None)
    return [
        Cell(number(error, places), mark="best" if error is not None and error == least else "") for error in errors
    ]


def _name(target: str) -> str:
    return target.removesuffix("_ms").upper()
