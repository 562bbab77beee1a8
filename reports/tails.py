"""One-step tails: quantiles, CVaR and the share within the SLO, or why there is no number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lodestar.reports.estimates import with_ends
from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import decimals, interval, number, percent

__all__ = ["tails_grid"]

Row = Mapping[str, Any]
Rows = Sequence[Row]

FEWEST_IN_TAIL: Final = 30


def tails_grid(rows: Rows) -> Grid:
    """Return one row a policy and estimator: quantiles, CVaR, SLO attainment; without what is refused for all."""
    pairs = list(dict.fromkeys((row["policy"], row["estimator"]) for row in rows))
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    told = [name for name in measures if any(row["value"] is not None for row in rows if row["measure"] == name)]
    of = {(row["policy"], row["estimator"], row["measure"]): row for row in rows}
    columns = [
        Column("policy", "", [Cell(policy, estimator) for policy, estimator in pairs], left=True),
        *(_tail_column(measure, [of.get((*pair, measure)) for pair in pairs]) for measure in told),
    ]
    notes = [
        "One step, logged states; under each value its 95 % interval. The share within the SLO asks the same as a "
        "quantile, and needs less."
    ]
    return Grid("One-step tails, TTFT", columns, notes, _refusals(rows))


def _refusals(rows: Rows) -> list[str]:
    """Say what is refused and why, one line a reason."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for row in rows:
        if row["refused"]:
            policies, measures = found.setdefault(_why_refused(row), ({}, {}))
            policies[row["policy"]] = None
            measures[f"{_spoken(row['measure'])} by {row['estimator']}"] = None
    return [
        f"{', '.join(policies)}: {', '.join(measures)} refused: {why}." for why, (policies, measures) in found.items()
    ]


def _why_refused(row: Row) -> str:
    """Return the reason without what differs from measure to measure."""
    few = row["tail_ess"] is not None and row["tail_ess"] < FEWEST_IN_TAIL
    if few and row["measure"] != "slo":
        return f"fewer than {FEWEST_IN_TAIL} weighted requests lie beyond it"
    return str(row["refused"]).replace(row["measure"], "it")


def _tail_column(measure: str, rows: Sequence[Row | None]) -> Column:
    spoken = _spoken(measure)
    ratio = measure == "slo"
    known = [row["value"] for row in rows if row and row["value"] is not None]
    places = 1 if ratio else decimals(known)
    cells = []
    for row in rows:
        if row is None or row["value"] is None:
            cells.append(Cell(number(None), "refused" if row else ""))
        elif ratio:
            cells.append(Cell(percent(row["value"]), interval([100 * row["low"], 100 * row["high"]], 1)))
        else:
            cells.append(with_ends(row["value"], [row["low"], row["high"]], places))
    return Column(spoken, "% met" if ratio else "ms", cells)


def _spoken(measure: str) -> str:
    return measure.upper().replace("CVAR", "CVaR ")
