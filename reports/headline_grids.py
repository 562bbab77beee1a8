"""The tables of `lodestar headline`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.headline import (
    BASELINE,
    PAPER_RANGES,
    Document,
    Row,
    best_of,
    cell_name,
    geometric_mean,
    of_cell,
)
from lodestar.reports.numbers import MISSING, interval, number

__all__ = [
    "brief_claims_grid", "cells_grid", "claims_grid", "convergence_grid", "learning_grid", "policies_grid",
    "ranges_grid", "ratio",
]  # fmt: skip

_VERSUS: Final = {
    "baseline": BASELINE,
    "best": "best heuristic, with hindsight",
    "best-by-mean": "heuristic with the best mean",
}
_STATISTIC: Final = {"mean": "mean", "p99": "P99"}
_WHAT: Final = {
    "at_baseline_s": "until at or below the baseline",
    "steady_s": "until within 10 % of its own steady state",
    "adapted_s": "after a change, until within 10 % of the steady state after it",
}
_ORACLE: Final = "oracle-ttft"


def claims_grid(document: Document, policy: str) -> Grid:
    """Return what was to be shown: how many times as fast, against which target, met or missed."""
    rows = [row for row in document["summary"] if row["policy"] == policy]
    rows = [row for row in rows if row["target"] is not None or row["versus"] != "baseline"]
    return _grid(
        f"How many times as fast as others {policy} is",
        rows,
        {
            "cells": lambda row: row["scope"],
            "against": lambda row: _VERSUS[row["versus"]],
            "TTFT": lambda row: _STATISTIC[row["statistic"]],
            "whole run": lambda row: _with_interval(row, "whole"),
            "second half": lambda row: _with_interval(row, "half"),
            "worst cell": _worst,
            "target": _target,
            "verdict": _verdict,
        },
        left=3,
    )


def brief_claims_grid(document: Document, policy: str) -> Grid:
    """Return the same claims with all that names one in a single column, for a narrow terminal."""
    grid = claims_grid(document, policy)
    cells, against, statistic, whole, half, _, target, verdict = grid.columns
    names = zip(cells.cells, statistic.cells, against.cells, strict=True)
    wanted = [
        Cell(f"{one.text} {other.text}".replace(f"{MISSING} {MISSING}", MISSING), mark=other.mark)
        for one, other in zip(target.cells, verdict.cells, strict=True)
    ]
    claim = Column("claim", "", [Cell(f"{a.text}: {b.text} over {c.text}") for a, b, c in names], left=True)
    return Grid(grid.title, [claim, whole, half, Column("target", "", wanted)])


def ranges_grid(document: Document, policies: Sequence[str]) -> Grid:
    """Return geometric means and ranges over the cells, beside the paper's."""
    rows = [row for row in document["summary"] if row["versus"] == "baseline" and row["policy"] in policies]
    return _grid(
        f"Times as fast as {BASELINE}: geometric mean over the cells, and their range",
        rows,
        {
            "policy": lambda row: row["policy"],
            "cells": lambda row: row["scope"],
            "TTFT": lambda row: _STATISTIC[row["statistic"]],
            "paper": lambda row: PAPER_RANGES[row["scope"], row["statistic"]],
            "whole run": lambda row: _range(row, "whole"),
            "second half": lambda row: _range(row, "half"),
        },
        left=3,
    )


def convergence_grid(document: Document) -> Grid:
    """Return how soon learning has caught up."""
    return _grid(
        "Convergence, in replayed time",
        document["convergence"],
        {
            "policy": lambda row: row["policy"],
            "time": lambda row: _WHAT[row["what"]],
            "runs": lambda row: str(row["runs"]),
            "median cell, s": lambda row: number(row["median_s"]),
            "worst run, s": lambda row: f"never in {row['never']}" if row["never"] else number(row["worst_s"]),
            "target, s": lambda row: number(row["target_s"]),
            "verdict": _verdict,
        },
        left=2,
    )


def cells_grid(document: Document, fleet: str, policy: str) -> Grid:
    """Return one row a cell of a fleet: against the baseline, the best heuristic, the oracle and the lower bound."""
    found = [
        _of_policies(rows, policy) for (_, its, _), rows in of_cell(document["cells"]).items() if its == fleet
    ]  # fmt: skip
    return _grid(
        f"{fleet.capitalize()} fleet, cell by cell: times as fast on whole runs, mean / P99 of TTFT",
        found,
        {
            "cell": lambda row: f"{row['own']['workload']}, {100 * row['own']['load']:.0f} %",
            "requests/s": lambda row: number(row["own"]["rate_per_s"], 1),
            f"{BASELINE}, ms": lambda row: _both_ms(row["baseline"]),
            f"{policy}, ms": lambda row: _both_ms(row["own"]),
            "over the baseline": lambda row: _both(row["baseline"], row["own"], "whole"),
            "best heuristic": lambda row: _named(row["best"]["mean", "whole"]),
            "over the best": lambda row: _over_best(row, "whole"),
            "second half": lambda row: _over_best(row, "half"),
            "oracle over the best": lambda row: ratio(_best_over(row, row["oracle"], "mean", "whole")),
            "best × bound": lambda row: _times_bound(row["best"]["mean", "whole"]),
            "own × bound": lambda row: _times_bound(row["own"]),
        },
        left=1,
    )


def learning_grid(document: Document, policy: str) -> Grid:
    """Return one row a cell: how soon, and what learning has cost."""
    rows = [row for row in document["learning"] if row["policy"] == policy]
    return _grid(
        f"Learning of {policy}: median over seeds, in s of replayed time; regret in s of waiting, below 0 gained",
        rows,
        {
            "cell": cell_name,
            "first model": lambda row: number(row["first_model_s"]),
            "at baseline": lambda row: _time(row, "at_baseline_s"),
            "steady": lambda row: _time(row, "steady_s"),
            "windows below it, %": lambda row: number(100 * row["below_ratio"]),
            "adapted": lambda row: _time(row, "adapted_s"),
            "at baseline again": lambda row: _time(row, "recovered_s"),
            "regret to baseline": lambda row: number(row["against_baseline_s"]),
            "its peak": lambda row: f"{number(row['against_baseline_peak_s'])} at {_at(row, 'against_baseline')}",
            "regret to the best": lambda row: number(row["against_best_s"]),
            "peak": lambda row: f"{number(row['against_best_peak_s'])} at {_at(row, 'against_best')}",
        },
        left=1,
    )


def policies_grid(document: Document) -> Grid:
    """Return all policies, over all cells, the best first."""
    cells = len(of_cell(document["cells"]))
    of: dict[str, dict[str, list[Row]]] = {}
    for row in document["cells"]:
        of.setdefault(row["policy"], {}).setdefault(row["variant"], []).append(row)
    rows = [{"policy": policy, **_over_cells(its)} for policy, its in of.items()]
    return _grid(
        f"Every policy: times as fast as {BASELINE} at its defaults, geometric mean over {cells} cells, whole runs",
        sorted(rows, key=lambda row: -max(row["default_mean"], row["tuned_mean"] or 0.0)),
        {
            "policy": lambda row: row["policy"],
            "": lambda row: row["mark"],
            "mean, defaults": lambda row: ratio(row["default_mean"]),
            "mean, tuned": lambda row: ratio(row["tuned_mean"]),
            "P99, defaults": lambda row: ratio(row["default_p99"]),
            "P99, tuned": lambda row: ratio(row["tuned_p99"]),
            "worst cell, mean": lambda row: ratio(row["worst"]),
            "best of its cell": lambda row: str(row["won"]),
        },
        left=2,
    )


def ratio(value: float | None) -> str:
    """Write how many times as fast, to two decimals, or one figure where it is below 0.1.

    >>> ratio(1.414), ratio(0.0123), ratio(None)
    ('1.41', '0.01', '–')
    """
    if value is None:
        return MISSING
    return f"{value:.2f}" if value >= 0.095 else f"{value:.1g}"


def _over_cells(variants: dict[str, list[Row]]) -> Row:
    row: Row = {"mark": variants["default"][0]["mark"]}
    for variant in ("default", "tuned"):
        its = variants.get(variant, [])
        for statistic in ("mean", "p99"):
            values = [each[f"whole_{statistic}_ratio"] for each in its]
            row[f"{variant}_{statistic}"] = geometric_mean(values) if values else None
    row["worst"] = min(each["whole_mean_ratio"] for each in variants.get("tuned", variants["default"]))
    row["won"] = sum(bool(each["whole_mean_is_best"]) for its in variants.values() for each in its)
    return row


def _of_policies(rows: Sequence[Row], policy: str) -> Row:
    default = {row["policy"]: row for row in rows if row["variant"] == "default"}
    best = {(s, part): best_of(rows, s, part) for s in ("mean", "p99") for part in ("whole", "half")}
    return {"own": default[policy], "baseline": default[BASELINE], "oracle": default[_ORACLE], "best": best}


def _best_over(row: Row, other: Row, statistic: str, part: str) -> float:
    return float(row["best"][statistic, part][f"{part}_{statistic}_ms"] / other[f"{part}_{statistic}_ms"])


def _over_best(row: Row, part: str) -> str:
    return " / ".join(ratio(_best_over(row, row["own"], statistic, part)) for statistic in ("mean", "p99"))


def _both(reference: Row, own: Row, part: str) -> str:
    return " / ".join(ratio(own[f"{part}_{statistic}_ratio"]) for statistic in ("mean", "p99"))


def _both_ms(row: Row) -> str:
    return " / ".join(number(row[f"whole_{statistic}_ms"]) for statistic in ("mean", "p99"))


def _times_bound(row: Row) -> str:
    return ratio(row["whole_mean_ms"] / row["whole_mean_bound_ms"])


def _named(row: Row) -> str:
    return f"{row['policy']}{', tuned' if row['variant'] == 'tuned' else ''}"


def _with_interval(row: Row, part: str) -> str:
    return f"{ratio(row[f'{part}_ratio'])} ({interval([row[f'{part}_low'], row[f'{part}_high']], 2)})"


def _range(row: Row, part: str) -> str:
    return f"{ratio(row[f'{part}_ratio'])} ({ratio(row[f'{part}_worst'])}–{ratio(row[f'{part}_most'])})"


def _worst(row: Row) -> str:
    part = row["part"]
    return f"{ratio(row[f'{part}_worst'])} ({row[f'{part}_worst_cell']})" if row["cells"] > 1 else ""


def _target(row: Row) -> str:
    if row["target"] is None:
        return MISSING
    where = ", every cell" if row["over"] == "worst" else ", second half" if row["part"] == "half" else ""
    return f"≥ {ratio(row['target'])}{where}"


def _verdict(row: Row) -> str:
    return MISSING if row["met"] is None else "met" if row["met"] else "missed"


def _time(row: Row, name: str) -> str:
    if row[f"{name}_never"]:
        return f"{number(row[name])}, never in {row[f'{name}_never']} of {row['seeds']}"
    return number(row[name])


def _at(row: Row, name: str) -> str:
    return f"{number(row[f'{name}_peak_at_s'])} s"


def _grid(title: str, rows: Sequence[Row], columns: dict[str, Callable[[Row], str]], left: int) -> Grid:
    made = [
        Column(name, "", [Cell(text, mark=_mark(text)) for text in map(tell, rows)], left=place < left)
        for place, (name, tell) in enumerate(columns.items())
    ]
    return Grid(title, made)


def _mark(text: str) -> Mark:
    return "good" if text == "met" else "bad" if text == "missed" else ""
