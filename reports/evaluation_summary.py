"""The one table of an evaluation that says it all in a line a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import number, percent

__all__ = ["summary_grid"]


def summary_grid(document: Mapping[str, Any]) -> Grid:
    """Return one row a target.

    Args:
        document: ``Evaluation.to_dict()``.
    """
    targets = list(document["targets"].values())
    names = [target.removesuffix("_ms").upper() for target in document["targets"]]
    points = [found["predictors"]["model"] for found in targets]
    columns = [
        Column("target", "", [Cell(name) for name in names], left=True),
        Column("rows", "", [Cell(number(found["rows"])) for found in targets]),
        Column("MAE", "ms", [Cell(number(each["mae_ms"]["value"], 1)) for each in points]),
        Column("of linear's", "%", [_share_of_linear(found) for found in targets]),
        Column("R² log", "", [Cell(number(each["r2_log"]["value"], 3)) for each in points]),
        Column("P90 covers", "%", [Cell(percent(_value(found, "quantiles", "p90", "coverage"))) for found in targets]),
        Column("rank corr.", "", [Cell(number(_value(found, "ranking", "model", "rank_correlation"), 3))
                                  for found in targets]),
        Column("bias near saturation", "%", [Cell(percent(_saturation(found["saturation"]), signed=True))
                                             for found in targets]),
    ]  # fmt: skip
    return Grid(f"In short: {document['model']} on {document['dataset']}", columns)


def _share_of_linear(found: Mapping[str, Any]) -> Cell:
    """Return the model's error as a share of that of linear regression."""
    linear, model = _value(found, "predictors", "linear", "mae_ms"), _value(found, "predictors", "model", "mae_ms")
    if linear is None or model is None:
        return Cell(percent(None))
    return Cell(percent(model / linear), mark="good" if model < linear else "bad")


def _saturation(rows: Sequence[Mapping[str, Any]]) -> float | None:
    return rows[0]["bias_ratio"] if rows else None


def _value(found: Mapping[str, Any], *path: str) -> float | None:
    """Follow the path to an estimate and return its value; None where it ends before."""
    inner: Any = found
    for name in path:
        inner = (inner or {}).get(name)
    return None if inner is None else inner["value"]
