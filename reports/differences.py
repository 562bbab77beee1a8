"""One-step differences of policies to a baseline, and whether they meet the SLO more often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lodestar.reports.estimates import policy_column
from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, interval, number, percent, within

__all__ = ["differences_grid"]

Row = Mapping[str, Any]
Rows = Sequence[Row]


def differences_grid(rows: Rows, baseline: str, slo_ttft_ms: float | None = None) -> Grid:
    """Return one row a policy: how its one-step value differs from the baseline's, for all policies at once.

    Args:
        rows: one a policy whose weights can be used.
        baseline: the policy that the others are compared with.
        slo_ttft_ms: TTFT that is still good.
    """
    others = [row for row in rows if row["policy"] != baseline]
    places = decimals([row["difference"] for row in others], figures=3)
    columns = [
        policy_column(rows),
        Column("difference", "ms", [_difference(row, baseline, places) for row in rows]),
        Column("p, adjusted", "", [Cell(_probability(row["p_holm"])) for row in rows]),
        Column("first", "% of draws", [Cell(percent(row["ranks"][0], 0)) for row in rows]),
    ]
    notes = [
        f"Doubly robust, less {baseline}, one step, logged states; below 0 is faster. Intervals hold for all policies "
        "at once. p: how probable so large a difference is by luck, adjusted for the number of policies (Holm). First: "
        "in how many draws of blocks it came out fastest."
    ]
    if slo_ttft_ms is not None and any(row.get("slo_gate") for row in rows):
        limit, title = (within("ttft_ms", slo_ttft_ms, heading) for heading in (False, True))
        columns.append(Column(f"{title} more often", "surely", [_gate(row.get("slo_gate")) for row in rows]))
        notes.append(
            f"More often: whether {limit} surely holds for a larger share of its requests than of {baseline}'s, and "
            "from which logged decision on; as sure however often one looks (anytime-valid). Open: the log does not "
            "tell."
        )
    return Grid(f"One-step differences to {baseline}", columns, notes)


def _difference(row: Row, baseline: str, places: int) -> Cell:
    if row["policy"] == baseline:
        return Cell(number(None), "baseline")
    mark: Mark = "good" if row["upper"] < 0 else "bad" if row["lower"] > 0 else ""
    ends = interval((row["lower"], row["upper"]), places, signed=True)
    return Cell(number(row["difference"], places, signed=True), ends, mark)


def _probability(p: float | None) -> str:
    return "< 0.001" if p is not None and p < 0.001 else number(p, 3)


def _gate(gate: Row | None) -> Cell:
    if gate is None:
        return Cell(number(None))
    word = {"below": "yes", "above": "no, less often", "open": "open"}[gate["verdict"]]
    mark: Mark = {"below": "good", "above": "bad"}.get(gate["verdict"], "")  # type: ignore[assignment]
    return Cell(word, f"from {number(gate['decisions'])} on" if gate["decisions"] else "", mark)
