"""The table of a sweep: the same policies at every point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import decimals, interval, number, percent, plain

__all__ = ["sweep_grid"]

Row = Mapping[str, Any]


def sweep_grid(rows: Sequence[Row]) -> Grid:
    """Return one row a point and policy, the lowest mean and P99 of each point marked.

    >>> row = {"rate": 1.2, "policy": "random", "hit_ratio": 0.08, "flags": [], "verdict": "trusted"}
    >>> row |= {f"ttft_{which}_ms": 1.0 for which in ("mean", "mean_low", "mean_high", "p99", "p99_low", "p99_high")}
    >>> [column.title for column in sweep_grid([row]).columns]
    ['rate', 'policy', 'TTFT mean', 'TTFT P99', 'cache hits']
    """
    swept = _parameters(rows)
    columns = [
        *(Column(name.replace("_", " "), "", [Cell(plain(row[name])) for row in rows]) for name in swept),
        Column("policy", "", [Cell(row["policy"]) for row in rows], left=True),
        _latencies(rows, swept, "mean"),
        _latencies(rows, swept, "p99"),
        Column("cache hits", "% tokens", [Cell(percent(row["hit_ratio"])) for row in rows]),
    ]
    verdict = rows[0]["verdict"]
    several = any(row["ttft_mean_low_ms"] is not None for row in rows)
    notes = [
        f"Second line: 95 % interval{'' if several else ', which one seed does not have'}. The same requests and seeds "
        "at every point.",
        f"The cluster as it was logged is {verdict}; no gate judges a point where something else was set.",
        *(f"{_point(row, swept)}, {row['policy']}: {flag}." for row in rows for flag in row["flags"]),
    ]
    return Grid("Sweep, closed-loop, replayed", columns, notes)


def _parameters(rows: Sequence[Row]) -> list[str]:
    """Return the columns that say what was set: those before the policy."""
    names = list(rows[0])
    return names[: names.index("policy")]


def _point(row: Row, swept: Sequence[str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {plain(row[name])}" for name in swept)


def _latencies(rows: Sequence[Row], swept: Sequence[str], which: str) -> Column:
    values = [row[f"ttft_{which}_ms"] for row in rows]
    places = decimals(values)
    least: dict[str, float] = {}
    for row, value in zip(rows, values, strict=True):
        if value is not None:
            point = _point(row, swept)
            least[point] = min(value, least.get(point, value))
    cells = [
        Cell(
            number(value, places), _bounds(row, which, places), "best" if value == least.get(_point(row, swept)) else ""
        )
        for row, value in zip(rows, values, strict=True)
    ]
    return Column(f"TTFT {which.replace('p99', 'P99')}", "ms", cells)


def _bounds(row: Row, which: str, places: int) -> str:
    low, high = row[f"ttft_{which}_low_ms"], row[f"ttft_{which}_high_ms"]
    return interval(None if low is None else [low, high], places)
