"""The result of `lodestar headline`: what it holds, and the numbers that several of its tables need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

__all__ = ["BASELINE", "LEARNS", "PAPER_RANGES", "Document", "Row", "best_of", "cell_name", "geometric_mean", "of_cell"]

Row = dict[str, Any]
#: `settings`, and the lists of rows `summary`, `convergence`, `cells`, `learning` and `curves`.
Document = Mapping[str, Any]

BASELINE: Final = "aibrix-prefix-cache"
LEARNS: Final = "learns"
#: What the paper says of its router against the baseline: (scope, statistic) → in words.
PAPER_RANGES: Final = {
    ("all cells", "mean"): "1.41",
    ("all cells", "p99"): "1.47",
    ("homogeneous", "mean"): "1.02–2.15",
    ("homogeneous", "p99"): "1.07–1.86",
    ("heterogeneous", "mean"): "1.25–4.38",
    ("heterogeneous", "p99"): "1.32–4.42",
}


def geometric_mean(ratios: Iterable[float]) -> float:
    """Return the mean that gives a half and a double the same weight.

    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    return float(np.exp(np.mean(np.log(np.array(list(ratios), dtype=np.float64)))))


def of_cell(rows: Sequence[Row]) -> dict[tuple[str, str, float], list[Row]]:
    """Return the rows of each cell, in the order in which they come."""
    found: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        found.setdefault((row["workload"], row["fleet"], row["load"]), []).append(row)
    return found


def best_of(rows: Sequence[Row], statistic: str, part: str = "whole") -> Row:
    """Return the row of the best heuristic of one cell."""
    return next(row for row in rows if row[f"{part}_{statistic}_is_best"])


def cell_name(row: Row) -> str:
    """Name a cell in a line.

    >>> cell_name({"workload": "sharing47", "fleet": "homogeneous", "load": 0.75})
    'sharing47, homogeneous, 75 %'
    """
    return f"{row['workload']}, {row['fleet']}, {100 * row['load']:.0f} %"
