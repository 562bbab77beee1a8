"""One step beside closed loop, and what lies between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lodestar.reports.estimates import ONE_STEP, distrust, policy_column, with_ends
from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, number, percent

__all__ = ["gap_grid"]

Row = Mapping[str, Any]
Rows = Sequence[Row]


def gap_grid(rows: Rows, verdict: str, brief: bool = False) -> Grid:
    """Return one row a policy: its one-step value, its closed-loop value, and what lies between the two.

    Args:
        rows: one a policy that has both.
        verdict: of the trust gates.
        brief: without how each number is made, of which the sentences of the policies say enough to begin with.
    """
    places = decimals([row["closed_loop_ms"] for row in rows])
    untrusted = distrust(verdict)
    columns = [
        policy_column(rows),
        Column("one-step", "ms", [with_ends(row["one_step_ms"], row["one_step_ci95"], places) for row in rows]),
        Column("closed-loop", "ms", [_closed_loop(row, places, untrusted) for row in rows]),
        Column("gap", "ms", [Cell(number(row["gap_ms"], places, signed=True)) for row in rows]),
        Column("=\N{NO-BREAK SPACE}by feedback", "ms", [_feedback(row, places) for row in rows]),
        Column("+\N{NO-BREAK SPACE}log's replay", "ms", [_part(row, "log_replay_error_ms", places) for row in rows]),
        Column("+\N{NO-BREAK SPACE}step error", "ms", [_part(row, "simulator_ms", places) for row in rows]),
        Column("cache hits", "%", [_moved(row, "hit_ratio") for row in rows]),
        Column("engine queue", "ms", [_moved(row, "queue_ms") for row in rows]),
    ]
    notes = _briefly(rows) if brief else _in_full(rows)
    title = f"One step beside closed loop ({verdict}), mean TTFT"
    return Grid(title, columns, [*(row["sentence"] for row in rows), *notes])


def _briefly(rows: Rows) -> list[str]:
    notes = [
        f"One-step ({_estimators(rows)}): {ONE_STEP[0].lower()}{ONE_STEP[1:]}",
        "Gap: closed-loop − one-step, the sum of the three parts beside it. Cache hits and engine queue: in the "
        "policy's own closed loop; below, as the logged choices met them.",
    ]
    if any(row["ratio"] is not None for row in rows):
        notes.append("×: the closed loop corrected by how far the log's own replay is off, the same for all policies.")
    if any(row["ratio_doubted"] or not _is_told(row) for row in rows):
        notes.append("?: not to be relied on; --all and the report say why.")
    return notes


def _in_full(rows: Rows) -> list[str]:
    notes = [
        f"One-step ({_estimators(rows)}): {ONE_STEP[0].lower()}{ONE_STEP[1:]}",
        "Gap: closed-loop − one-step. By feedback: what its own earlier decisions do to the queues and caches that it "
        "meets (closed loop − one step, both in the simulator, less the same of what made the log); ?: no more than "
        "the log's replay is off or than the luck of replays, so that no cause can be named. Log's replay: replay of "
        "the log − the log, luck of that run or the simulator's error. Step error: the simulator's in one step beyond "
        "that for the log, or the estimate's noise. Cache hits and queue: in its own closed loop; below, as the logged "
        "choices met them.",
    ]
    if any(row["ratio"] is not None for row in rows):
        notes.append(
            "Below the closed loop: × logged / replayed mean of the logging policy, and what that makes of it; right "
            "only where the simulator errs alike for all policies. ?: doubt it, since its cache hits are far from the "
            "log's, or the logging policy depends on its path, or one seed cannot tell whether it does."
        )
    return notes


def _estimators(rows: Rows) -> str:
    direct = [row["policy"] for row in rows if row.get("estimator") == "dm"]
    if not direct:
        return "doubly robust"
    alone = "dm, the predictor alone"
    return alone if len(direct) == len(rows) else f"doubly robust; of {', '.join(direct)} {alone}"


def _closed_loop(row: Row, places: int, mark: Mark) -> Cell:
    cell = with_ends(row["closed_loop_ms"], row["closed_loop_ci95"], places, mark)
    if row["ratio"] is None:
        return cell
    corrected = f"× {number(row['ratio'], 2)} = {number(row['ratio_corrected_ms'], places)}{'?' * row['ratio_doubted']}"
    return Cell(cell.text, f"{cell.note}\n{corrected}", mark)


def _feedback(row: Row, places: int) -> Cell:
    cell = _part(row, "feedback_ms", places)
    return cell if _is_told(row) else Cell(f"{cell.text}?")


def _is_told(row: Row) -> bool:
    return row["feedback_ms"] is None or row.get("feedback_told", True) or row["policy"] == row.get("made_by")


def _part(row: Row, name: str, places: int) -> Cell:
    return Cell(number(row.get(name), places, signed=True))


def _moved(row: Row, name: str) -> Cell:
    spoken = percent if name.endswith("ratio") else number
    return Cell(spoken(row[f"replayed_{name}"]), f"log {spoken(row[f'logged_{name}'])}")
