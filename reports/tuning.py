"""The table of a tuning: each policy as it was named, tuned, and the best that hindsight finds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, interval, number, percent
from lodestar.reports.policies import SLO_HEADING
from lodestar.reports.result import Result
from lodestar.reports.said import second_line

__all__ = ["tuning_grid"]

Row = Mapping[str, Any]
_WIDTH: Final = 66  # of a policy's text, which stands behind an option


def tuning_grid(result: Result, full: bool = False) -> Grid:
    """Return one row a policy and variant, the fastest marked that was not found by hindsight.

    Args:
        result: of a replay that was tuned.
        full: with all columns, for a page that is wide enough.
    """
    rows, how = result.get("tuning", []), result.get("tuning_how", {})
    if not rows:
        return Grid("", [])
    goal = "P99" if how["objective"] == "p99" else "mean"
    columns = [
        _names(rows),
        _latencies(rows, "mean"),
        _latencies(rows, "p99"),
        _differences(rows, "to_default", f"{goal} tuned − default"),
        _differences(rows, "to_hindsight", f"{goal} lost to hindsight"),
    ]
    if full:
        columns[3:3] = [_differences(rows, "ttft_difference", f"TTFT − {how['baseline']}")]
        columns += [
            Column("cache hits", "% tokens", [Cell(percent(row["hit_ratio"])) for row in rows]),
            Column(SLO_HEADING, "% met", [Cell(percent(row["slo_attainment"])) for row in rows]),
            Column("trials", "whole + pruned", [_trials(row) for row in rows]),
        ]
    verdict = result["trust"]["verdict"]
    return Grid(f"Tuned for {goal} TTFT, {result['estimand']}, {verdict}", columns, _notes(rows, how), _warnings(rows))


def _names(rows: Sequence[Row]) -> Column:
    return Column("policy", "", [Cell(row["policy"], row["variant"]) for row in rows], left=True)


def _latencies(rows: Sequence[Row], which: str) -> Column:
    values = [row[f"ttft_{which}_ms"] for row in rows]
    places = decimals(values)
    fair = [
        value for row, value in zip(rows, values, strict=True) if row["variant"] != "hindsight" and value is not None
    ]
    cells = [
        Cell(number(value, places), _bounds(row, f"ttft_{which}", places), _mark(row, value, fair))
        for row, value in zip(rows, values, strict=True)
    ]
    return Column(f"TTFT {which.replace('p99', 'P99')}", "ms", cells)


def _mark(row: Row, value: float | None, fair: Sequence[float]) -> Mark:
    return "best" if value is not None and row["variant"] != "hindsight" and value == min(fair) else ""


def _differences(rows: Sequence[Row], name: str, title: str) -> Column:
    places = decimals([row[f"{name}_ms"] for row in rows], figures=3)
    return Column(title, "ms", [_difference(row, name, places) for row in rows])


def _difference(row: Row, name: str, places: int) -> Cell:
    value, low, high = (row[f"{name}{end}_ms"] for end in ("", "_low", "_high"))
    if value is None or low is None:
        return Cell(number(value, places, signed=True))
    mark: Mark = "good" if high < 0 else "bad" if low > 0 else ""
    return Cell(number(value, places, signed=True), interval((low, high), places, signed=True), mark)


def _bounds(row: Row, name: str, places: int) -> str:
    low, high = row[f"{name}_low_ms"], row[f"{name}_high_ms"]
    return interval(None if low is None else (low, high), places)


def _trials(row: Row) -> Cell:
    if row["trials_complete"] is None:
        return Cell(number(None))
    return Cell(f"{row['trials_complete']} + {row['trials_pruned']}")


def _notes(rows: Sequence[Row], how: Mapping[str, Any]) -> list[str]:
    complete, pruned = (sum(row[f"trials_{what}"] or 0 for row in rows) for what in ("complete", "pruned"))
    requests, counted = (number(how[f"report_{what}"]) for what in ("requests", "counted"))
    return [
        f"Searched on the first {number(how['search_requests'])} requests, {how['trials']} trials a policy under up to "
        f"{how['search_seeds']} seeds each; of all trials {complete} had every seed, {pruned} were given up before.",
        f"Every number is of the {requests} requests that follow, {counted} of them counted, replayed from idle "
        "engines and empty caches; no search saw them, though a trained model may have. hindsight: the best settings "
        "for these very requests, which nobody knows in time.",
        second_line(how["intervals"]),
        *(
            f"{row['policy']}, {row['variant']}:\n  --policy {_folded(row['settings'])}"
            for row in rows
            if row["variant"] != "default"
        ),
    ]


def _folded(text: str) -> str:
    """Break a policy's text behind commas, so that no setting is cut in two."""
    lines = [""]
    for part in re.findall(r"[^,]+,?", text):
        if lines[-1] and len(lines[-1]) + len(part) > _WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n    ".join(lines)


def _warnings(rows: Sequence[Row]) -> list[str]:
    return [f"{row['policy']}, {row['variant']}: {flag}." for row in rows for flag in row["flags"]]
