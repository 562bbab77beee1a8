"""How good a predictor is, in the terminal: beside a constant and linear regression, on rows held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lodestar.reports.canvas import latency_title
from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import decimals, number, percent

__all__ = ["accuracy_grid", "load_grid"]


def accuracy_grid(target: str, accuracy: Mapping[str, Mapping[str, float]]) -> Grid:
    """Return one row a predictor: error, bias and explained variance on held-out rows.

    Args:
        target: ``ttft_ms`` or ``tpot_ms``.
        accuracy: predictor → what `models.metrics.accuracy` returns.
    """
    names = list(accuracy)
    errors = [accuracy[name]["mae_ms"] for name in names]
    places = decimals(errors)
    columns = [
        Column("predictor", "", [Cell(name) for name in names], left=True),
        Column("MAE", "ms", _marked(errors, places)),
        Column("MAPE", "%", [Cell(percent(accuracy[name]["mape"])) for name in names]),
        Column("bias", "ms", [Cell(number(accuracy[name]["bias_ms"], places, signed=True)) for name in names]),
        Column("R²", "", [Cell(number(accuracy[name]["r2"], 3)) for name in names]),
        Column("R² of log", "", [Cell(number(accuracy[name]["r2_log"], 3)) for name in names]),
    ]
    return Grid(f"{latency_title(target)} on held-out requests", columns)


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
    return Grid(f"{latency_title(target)} by load of the chosen instance", columns)


def _marked(errors: Sequence[float], places: int) -> list[Cell]:
    return [Cell(number(error, places), mark="best" if error == min(errors) else "") for error in errors]
