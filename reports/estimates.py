"""One-step values beside the closed loop, by every estimator, and their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, interval, number, percent

__all__ = [
    "ONE_STEP",
    "closed_loop_grid",
    "differences_grid",
    "estimators_grid",
    "gap_grid",
    "policy_column",
    "with_ends",
]

Row = Mapping[str, Any]
Rows = Sequence[Row]

_READ: Final = {"dr": "doubly robust", "dm": "dm, the predictor alone, as the log has no propensities"}
ONE_STEP: Final = (
    "The value if ONE decision were the policy's and every queue and cache stayed as logged: not the policy's "
    "performance, which only the closed-loop replay estimates."
)


def gap_grid(rows: Rows, verdict: str) -> Grid:
    """Return one row a policy: its one-step value, its closed-loop value, and what lies between the two."""
    places = decimals([row["closed_loop_ms"] for row in rows])
    untrusted = _distrust(verdict)
    columns = [
        policy_column(rows),
        Column("one-step", "ms", [with_ends(row["one_step_ms"], row["one_step_ci95"], places) for row in rows]),
        Column("closed-loop", "ms", [_closed_loop(row, places, untrusted) for row in rows]),
        Column("gap", "ms", [Cell(number(row["gap_ms"], places, signed=True)) for row in rows]),
        Column("by feedback", "ms", [_feedback(row, places) for row in rows]),
        Column("cache hits", "%", [_moved(row, "hit_ratio") for row in rows]),
        Column("engine queue", "ms", [_moved(row, "queue_ms") for row in rows]),
    ]
    notes = [
        f"One-step ({_READ[rows[0].get('estimator', 'dr')]}): {ONE_STEP[0].lower()}{ONE_STEP[1:]}",
        "Gap: closed-loop − one-step. By feedback: what its own earlier decisions do to the queues and caches that it "
        "meets (closed-loop − one step in the simulator). Below, sim: one step in the simulator − one step in the log, "
        "which is the simulator's error or the estimate's noise. Cache hits and queue: in its own closed loop; below, "
        "as the logged choices met them.",
    ]
    if any(row["ratio"] is not None for row in rows):
        notes.append(
            "Below the closed loop: × logged / replayed mean of the logging policy, and what that makes of it; right "
            "only where the simulator errs alike for all policies. ?: doubt it, since its cache hits are far from the "
            "log's, or the logging policy depends on its path."
        )
    title = f"One step beside closed loop ({verdict}), mean TTFT"
    return Grid(title, columns, [*(row["sentence"] for row in rows), *notes])


def closed_loop_grid(rows: Rows, verdict: str) -> Grid:
    """Return one row a replayed policy: its closed loop alone, where the log tells nothing one step at a time."""
    places = decimals([row["ttft_ms"]["mean"] for row in rows])
    mark, found = _distrust(verdict), [row["ttft_ms"] for row in rows]
    columns = [
        policy_column(rows),
        Column("closed-loop", "ms", [with_ends(each["mean"], each["ci95"], places, mark) for each in found]),
        Column("cache hits", "%", [Cell(percent(row["hit_ratio"])) for row in rows]),
    ]
    return Grid(f"Closed loop without one step beside it ({verdict}), mean TTFT", columns)


def estimators_grid(rows: Rows) -> Grid:
    """Return one row an estimator, one column a policy: the value and its 95 % interval."""
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    of = {(row["policy"], row["estimator"]): row for row in rows}
    columns = [Column("estimator", "", [Cell(name) for name in names], left=True)]
    for policy in policies:
        found = [of.get((policy, name)) for name in names]
        places = decimals([row["value_ms"] for row in found if row])
        cells = [
            with_ends(row["value_ms"], row.get("ci95_ms"), places) if row else with_ends(None, None, 0) for row in found
        ]
        columns.append(Column(policy, "ms", cells))
    said = [f"{row['estimator']} of {row['policy']}: {note}." for row in rows for note in row.get("notes", [])]
    warnings = [each for each in said if "which flatters" in each or "too narrow" in each]
    cut = [each for each in said if "cuts off" in each and each not in warnings]
    title = "One-step, logged states: a diagnostic, mean TTFT"
    return Grid(title, columns, [ONE_STEP, *_how(rows), *map(_greek, cut)], list(map(_greek, warnings)))


def _greek(sentence: str) -> str:
    return sentence.replace("lambda_", "λ")


def differences_grid(rows: Rows, baseline: str) -> Grid:
    """Return one row a policy: how its one-step value differs from the baseline's, for all policies at once."""
    others = [row for row in rows if row["policy"] != baseline]
    places = decimals([row["difference"] for row in others], figures=3)
    columns = [
        policy_column(rows),
        Column("difference", "ms", [_difference(row, baseline, places) for row in rows]),
        Column("p, Holm", "", [Cell(_probability(row["p_holm"])) for row in rows]),
        Column("first", "% of draws", [Cell(percent(row["ranks"][0], 0)) for row in rows]),
        Column("misses the SLO less", "anytime-valid", [_gate(row.get("slo_gate")) for row in rows]),
    ]
    notes = [
        f"Doubly robust, less {baseline}, one step, logged states; below 0 is faster. Intervals hold for all policies "
        "at once. First: in how many draws of blocks it came out fastest. Anytime-valid: whether it surely misses the "
        "SLO less (or more) along this log, and after how many decisions that was so; one may look after every request."
    ]
    return Grid(f"One-step differences to {baseline}", columns, notes)


def policy_column(rows: Rows) -> Column:
    """Return the column of policies."""
    return Column("policy", "", [Cell(row["policy"]) for row in rows], left=True)


def with_ends(value: float | None, ends: Sequence[float] | None, places: int, mark: Mark = "") -> Cell:
    """Return a value with the ends of its interval below it."""
    return Cell(number(value, places), interval(ends, places) if ends else "", mark)


def _distrust(verdict: str) -> Mark:
    return "bad" if verdict == "untrusted" else ""


def _closed_loop(row: Row, places: int, mark: Mark) -> Cell:
    cell = with_ends(row["closed_loop_ms"], row["closed_loop_ci95"], places, mark)
    if row["ratio"] is None:
        return cell
    corrected = f"× {number(row['ratio'], 2)} = {number(row['ratio_corrected_ms'], places)}{'?' * row['ratio_doubted']}"
    return Cell(cell.text, f"{cell.note}\n{corrected}", mark)


def _feedback(row: Row, places: int) -> Cell:
    simulator = row["simulator_ms"]
    note = "" if simulator is None else f"sim {number(simulator, places, signed=True)}"
    return Cell(number(row["feedback_ms"], places, signed=True), note)


def _moved(row: Row, name: str) -> Cell:
    spoken = percent if name.endswith("ratio") else number
    return Cell(spoken(row[f"replayed_{name}"]), f"log {spoken(row[f'logged_{name}'])}")


def _how(rows: Rows) -> list[str]:
    tuned = [row for row in rows if row.get("lambda_") is not None]
    said = [
        "Read dr first. Below each value: its 95 % interval over traffic like the logged one, by 12 blocks of "
        "requests; too narrow where dependence spans the log, such as prefixes that come back all along: see "
        "docs/validation.md."
    ]
    if tuned:
        names = ", ".join(dict.fromkeys(row["estimator"] for row in tuned))
        said.append(f"Hyper-parameters of {names}: chosen by SLOPE for each policy anew.")
    return said


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
    word = {"below": "yes", "above": "no, more", "open": "open"}[gate["verdict"]]
    mark: Mark = {"below": "good", "above": "bad"}.get(gate["verdict"], "")  # type: ignore[assignment]
    return Cell(word, f"after {number(gate['decisions'])}" if gate["decisions"] else "", mark)
