"""The table of a sweep."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from lodestar.reports.sweep import sweep_grid
from lodestar.reports.tables import grid_table


def row(rate: float, policy: str, mean_ms: float, *flags: str) -> dict[str, Any]:
    latencies = {
        f"ttft_{which}_{bound}ms": factor * mean_ms
        for which in ("mean", "p99")
        for bound, factor in (("", 1.0), ("low_", 0.9), ("high_", 1.1))
    }
    return {
        "rate": rate, "instances": 4, "policy": policy, **latencies,
        "hit_ratio": 0.25, "flags": list(flags), "verdict": "trusted",
    }  # fmt: skip


ROWS = [
    row(1.0, "random", 900.0),
    row(1.0, "least-request", 700.0),
    row(1.2, "random", 4000.0, "unstable: the queue grows"),
    row(1.2, "least-request", 1100.0),
]


def test_the_lowest_of_each_point_is_marked_not_of_the_whole_sweep() -> None:
    marks = {column.title: [cell.mark for cell in column.cells] for column in sweep_grid(ROWS).columns}
    assert marks["TTFT mean"] == marks["TTFT P99"] == ["", "best", "", "best"]


def test_flags_and_the_verdict_stand_below() -> None:
    notes = sweep_grid(ROWS).notes
    assert "The cluster as it was logged is trusted; no gate judges a point where something else was set." in notes
    assert notes[-1] == "rate 1.2, instances 4, random: unstable: the queue grows."


def test_a_policy_that_served_nobody_has_dashes() -> None:
    nobody = {name: None for name in ROWS[0] if name.startswith("ttft_")}
    grid = sweep_grid([{**ROWS[0], **nobody}, ROWS[1]])
    assert [cell.text for cell in grid.columns[3].cells] == ["–", "700.0"]


def test_it_fits_into_eighty_columns() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(grid_table(sweep_grid(ROWS)))
    text = out.getvalue()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(shown in text for shown in ("1.2", "least-request", "1,100", "990–1,210", "25.0"))
