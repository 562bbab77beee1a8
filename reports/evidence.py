"""The tables that say how far a replay may be trusted: gates and measured runs."""

from __future__ import annotations

import re
from typing import Final

from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import MISSING, decimals, interval, number, percent
from lodestar.reports.result import QUANTILES, Gate, Measured, QuantileName, Result
from lodestar.reports.said import sentence

__all__ = ["gates_grid", "measured_grid"]


def gates_grid(result: Result) -> Grid:
    """Return the trust gates: what was found, what luck alone gives, the limit and why it is that, passed or failed."""
    trust = result["trust"]
    gates = trust["gates"]
    columns = [
        Column("gate", "", [Cell(_spoken(gate["name"]), gate.get("why", "")) for gate in gates], left=True),
        Column("value", "", [Cell(number(gate["value"], 3)) for gate in gates]),
        Column("luck", "", [Cell(number(gate.get("noise_floor"), 3)) for gate in gates]),
        Column("limit", "", [Cell(_limit(gate)) for gate in gates]),
        Column("", "", [_passed(gate["passed"]) for gate in gates], left=True),
    ]
    notes = [*_GATE_NOTES, *map(sentence, trust.get("notes", []))]
    return Grid(f"Trust gates: {trust['verdict']}", columns, notes)


_GATE_NOTES: Final = (
    "Errors are relative: replayed / measured − 1. Forced: the logged choices, on the last part of the log, which "
    "fitted nothing. Free run: the policy that made the log decides again. Arm: what another router chose for the same "
    "traffic.",
    "Luck: how far the model strays when it is replayed against itself under other random numbers; if it is true, all "
    "gates together stay within that in 19 of 20 logs. Less than luck can be asked of no engine.",
)


def measured_grid(result: Result) -> Grid:
    """Return each replay beside what was measured: only the policy that ran on the real cluster should agree."""
    rows = result.get("measured") or []
    untrusted = result["trust"]["verdict"] == "untrusted"
    names = [
        Cell(row["policy"], f"in {row['measured_dataset']}" + "\nuntrusted" * untrusted, "bad" if untrusted else "")
        for row in rows
    ]
    columns = [
        Column("policy", "", names, left=True),
        *(_replayed_over_measured(rows, quantile) for quantile in QUANTILES),
    ]
    notes = [
        "First line: replayed. Second line: measured. Third line: replayed / measured − 1, in %. Only the policy that "
        "ran there should agree."
    ]
    for column, note in (_one_runs(rows), _hits(rows), _hits_known(rows), _snipw(rows)):
        if any(cell.text != MISSING for cell in column.cells):
            columns.append(column)
            notes.append(note)
    order, warnings = _order(result)
    warnings = [*warnings, *(_groups_matter(row) for row in rows if row.get("groups_matter"))]
    return Grid(f"Replayed against measured, {result['trust']['verdict']}", columns, [*notes, *order], warnings)


def _one_runs(rows: list[Measured]) -> tuple[Column, str]:
    places = decimals([row["ttft_ms"]["mean"] for row in rows])
    found = [(row.get("predicted_one_run95_ms") or {}).get("mean") for row in rows]
    column = Column("mean of one run", "ms", [Cell(interval(bounds, places)) for bounds in found])
    return column, "Mean of one run: 95 % of single replays, as the seeds spread."


def _hits(rows: list[Measured]) -> tuple[Column, str]:
    found = [(row.get("predicted_router_hit_ratio"), row.get("router_hit_ratio")) for row in rows]
    column = Column("router hits", "%", [Cell(percent(replayed), percent(measured)) for replayed, measured in found])
    return column, "Router hits: what the router believed of the instance it chose; below, what the router there did."


def _hits_known(rows: list[Measured]) -> tuple[Column, str]:
    places = decimals([row["ttft_ms"]["mean"] for row in rows])
    found = [(row.get("predicted_mean_hits_known_ms"), row.get("error_mean_hits_known")) for row in rows]
    cells = [Cell(number(value, places), percent(error, signed=True) if value else "") for value, error in found]
    note = (
        "Its hits known: the mean where the arm's own hits tell the prefix groups as well; below, its error in %, of "
        "which no part is the groups'."
    )
    return Column("its hits known", "ms", cells), note


def _groups_matter(row: Measured) -> str:
    without, known = (percent(error, signed=True) for error in (row["error_mean"], row["error_mean_hits_known"]))
    return (
        f"The {row['policy']} are off by {without} %, and by {known} % with the prefix groups that the hits of "
        f"{row['measured_dataset']} tell as well: one log leaves those groups open, so that only the second is the "
        "engines' or luck."
    )


def _snipw(rows: list[Measured]) -> tuple[Column, str]:
    places = decimals([row["ttft_ms"]["mean"] for row in rows])
    found = [(row.get("one_step_snipw_ms"), row.get("one_step_snipw_error")) for row in rows]
    cells = [Cell(number(value, places), percent(error, signed=True) if value else "") for value, error in found]
    note = "One-step SNIPW: what importance weights make of the mean from the same log; below, its error in %."
    return Column("one-step SNIPW", "ms", cells), note


def _order(result: Result) -> tuple[list[str], list[str]]:
    """Say whether the arms come in the order that they were measured in; a wrong one is a warning."""
    order = result.get("measured_order")
    if not order:
        return [], []
    said = (
        f"Arms by mean TTFT, slowest first, as measured: {' > '.join(order['measured'])}; each replayed with its own "
    )
    if order["right"]:
        return [f"{said}choices: the same order."], []
    return [], [f"{said}choices: {' > '.join(order['predicted'])}. The order is wrong."]


def _spoken(name: str) -> str:
    return re.sub(r"\b(ttft|tpot|e2e|ks|p\d+)\b", lambda found: found[0].upper(), name.replace("_", " "))


def _limit(gate: Gate) -> str:
    """Say from which side the limit holds: errors pass below it, correlations above."""
    below = gate["value"] is not None and gate["limit"] is not None and abs(gate["value"]) <= gate["limit"]
    return f"{'≤' if below == gate['passed'] else '≥'} {number(gate['limit'], 3)}"


def _passed(passed: bool) -> Cell:
    return Cell("passed", mark="good") if passed else Cell("failed", mark="bad")


def _replayed_over_measured(rows: list[Measured], quantile: QuantileName) -> Column:
    replayed = [row["predicted_ttft_ms"][quantile] for row in rows]
    measured = [row["ttft_ms"][quantile] for row in rows]
    places = decimals(replayed + measured)
    errors = [a / b - 1 if a is not None and b else None for a, b in zip(replayed, measured, strict=True)]
    cells = [
        Cell(number(a, places), f"{number(b, places)}\n{percent(error, signed=True)}")
        for a, b, error in zip(replayed, measured, errors, strict=True)
    ]
    return Column(f"TTFT {quantile if quantile == 'mean' else quantile.upper()}", "ms", cells)
