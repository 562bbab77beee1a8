"""Percent to ratios, with a refusal of files that hold ratios already."""

from __future__ import annotations

import polars as pl

from lodestar.data.errors import DataError

__all__ = ["percent_as_ratio"]


def percent_as_ratio(frame: pl.DataFrame, column: str, name: str) -> pl.DataFrame:
    """Divide a column of percent by 100; `name` is what the file calls it.

    Whole numbers up to 1 may be small percentages. Fractions among values that never exceed 1 are ratios, which would
    come out a hundred times too small.

    >>> percent_as_ratio(pl.DataFrame({"hit": [0.0, 62.5]}), "hit", "hits")["hit"].to_list()
    [0.0, 0.625]
    """
    told = frame[column].drop_nulls().to_numpy()
    fractions = told[told % 1 > 0]
    if len(fractions) and told.max() <= 1:
        raise DataError(
            f"{name}: no value exceeds {told.max():g}, and {fractions[0]:g} is one of them; expected percent, 0–100, "
            "but these are ratios, 0–1. Multiply them by 100, or convert the log to native"
        )
    return frame.with_columns(pl.col(column) / 100)
