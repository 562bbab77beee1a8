"""The tables that say how far a replay may be trusted: gates, measured runs, one-step estimates."""

from __future__ import annotations

import re

from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import decimals, number, percent, plain
from lodestar.reports.result import QUANTILES, Gate, Measured, OneStep, QuantileName, Result

__all__ = ["gates_grid", "measured_grid", "one_step_grid"]


def gates_grid(result: Result) -> Grid:
    """Return the trust gates: what was found, its limit, passed or failed."""
    gates = result["trust"]["gates"]
    columns = [
        Column("gate", "", [Cell(_spoken(gate["name"])) for gate in gates], left=True),
        Column("value", "", [Cell(number(gate["value"], 3)) for gate in gates]),
        Column("limit", "", [Cell(_limit(gate)) for gate in gates]),
        Column("", "", [_passed(gate["passed"]) for gate in gates], left=True),
    ]
    return Grid("Trust gates", columns)


def measured_grid(result: Result) -> Grid:
    """Return each replay beside what was measured: only the policy that ran on the real cluster should agree."""
    rows = result.get("measured") or []
    columns = [
        Column("policy", "", [Cell(row["policy"]) for row in rows], left=True),
        Column("measured in", "", [Cell(row["measured_dataset"]) for row in rows], left=True),
        *(_replayed_over_measured(rows, quantile) for quantile in QUANTILES),
        Column("error mean", "%", [Cell(percent(row["error_mean"], signed=True)) for row in rows]),
        Column("error P99", "%", [Cell(percent(row["error_p99"], signed=True)) for row in rows]),
    ]
    return Grid(
        "Replayed against measured",
        columns,
        ["First line: replayed. Second line: measured. Only the policy that ran there should agree."],
    )


def one_step_grid(result: Result) -> Grid:
    """Return the one-step estimates: a diagnostic on logged states, never a policy's performance."""
    rows = result["one_step"]
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    weighted = [next(row for row in rows if row["policy"] == policy) for policy in policies]
    columns = [
        Column("policy", "", [Cell(policy) for policy in policies], left=True),
        *(_estimates(rows, policies, name) for name in names),
        Column("effective sample", "requests", [Cell(number(row["ess"])) for row in weighted]),
        Column("mean weight", "1 is right", [Cell(number(row["mean_weight"], 2)) for row in weighted]),
    ]
    notes = [
        "Second line: standard error. The value if ONE decision were the policy's and every queue and cache stayed as "
        "logged: not the policy's performance, which only the closed-loop replay estimates."
    ]
    if result["one_step_note"]:
        notes.append(result["one_step_note"])
    return Grid("One-step, logged states: a diagnostic", columns, notes)


def _estimates(rows: list[OneStep], policies: list[str], estimator: str) -> Column:
    found = {row["policy"]: row for row in rows if row["estimator"] == estimator}
    places = decimals([row["value_ms"] for row in found.values()])
    cells = [
        Cell(number(found[policy]["value_ms"], places), f"± {number(found[policy]['se_ms'], places)}")
        if policy in found
        else Cell(number(None))
        for policy in policies
    ]
    return Column(f"one-step {estimator.upper()}", "ms", cells)


def _spoken(name: str) -> str:
    return re.sub(r"\b(ttft|tpot|e2e|ks|p\d+)\b", lambda found: found[0].upper(), name.replace("_", " "))


def _limit(gate: Gate) -> str:
    """Say from which side the limit holds: errors pass below it, correlations above."""
    below = gate["value"] is not None and gate["limit"] is not None and abs(gate["value"]) <= gate["limit"]
    return f"{'≤' if below == gate['passed'] else '≥'} {plain(gate['limit'])}"


def _passed(passed: bool) -> Cell:
    return Cell("passed", mark="good") if passed else Cell("failed", mark="bad")


def _replayed_over_measured(rows: list[Measured], quantile: QuantileName) -> Column:
    replayed = [row["predicted_ttft_ms"][quantile] for row in rows]
    measured = [row["ttft_ms"][quantile] for row in rows]
    places = decimals(replayed + measured)
    cells = [Cell(number(a, places), number(b, places)) for a, b in zip(replayed, measured, strict=True)]
    return Column(f"TTFT {quantile if quantile == 'mean' else quantile.upper()}", "ms", cells)
