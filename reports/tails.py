"""One-step tails: quantiles, CVaR and the share within the SLO, or why there is no number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lodestar.reports.estimates import with_ends
from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import decimals, interval, number, percent, within
from lodestar.reports.said import said_of, said_once

__all__ = ["tails_grid"]

Row = Mapping[str, Any]
Rows = Sequence[Row]

FEWEST_IN_TAIL: Final = 30


def tails_grid(rows: Rows, slo_ttft_ms: float | None = None) -> Grid:
    """Return one row a policy and estimator: quantiles, CVaR, SLO attainment; without what is refused for all.

    Args:
        rows: one a policy, estimator and measure.
        slo_ttft_ms: TTFT that is still good.
    """
    pairs = list(dict.fromkeys((row["policy"], row["estimator"]) for row in rows))
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    told = [name for name in measures if any(row["value"] is not None for row in rows if row["measure"] == name)]
    of = {(row["policy"], row["estimator"], row["measure"]): row for row in rows}
    columns = [
        Column("policy", "", [Cell(policy, estimator) for policy, estimator in pairs], left=True),
        *(_tail_column(measure, [of.get((*pair, measure)) for pair in pairs], slo_ttft_ms) for measure in told),
    ]
    notes = ["One step, logged states; under each value its 95 % interval."]
    if any(name.startswith("cvar") for name in told):
        notes[0] += " CVaR 90: the mean of the slowest 10 %."
    if "slo" in told:
        notes[0] += " The share within a limit asks the same as a quantile, and needs fewer requests."
    return Grid("One-step tails, TTFT", columns, [*notes, *_refusals(rows)])


def _refusals(rows: Rows) -> list[str]:
    """Say what is refused and why, one line a reason and the policies that have it for the same measures."""
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    why: dict[str, dict[str, dict[str, list[str]]]] = {policy: {} for policy in policies}
    for row in rows:
        if row["refused"]:
            measures = why[row["policy"]].setdefault(_why_refused(row), {})
            measures.setdefault(row["estimator"], []).append(_spoken(row["measure"]))
    said = said_once(
        (policy, f"no {_measures(measures)}: {reason}.")
        for policy, reasons in why.items()
        for reason, measures in reasons.items()
    )
    return [f"{said_of(of, policies, 'Every policy')}: {each}" for each, of in said.items()]


def _measures(of_estimators: Mapping[str, list[str]]) -> str:
    """Name measures with the estimators that refuse them.

    >>> _measures({"snipw": ["P99"], "dm": ["P90", "P99"], "dr": ["P99"]})
    'P99 by snipw, dr; P90, P99 by dm'
    """
    alike = said_once((name, ", ".join(measures)) for name, measures in of_estimators.items())
    return "; ".join(f"{measures} by {', '.join(names)}" for measures, names in alike.items())


def _why_refused(row: Row) -> str:
    """Return the reason without what differs from measure to measure."""
    few = row["tail_ess"] is not None and row["tail_ess"] < FEWEST_IN_TAIL
    if few and row["measure"] != "slo":
        return f"the requests beyond it weigh like fewer than {FEWEST_IN_TAIL}"
    return str(row["refused"]).replace(row["measure"], "it")


def _tail_column(measure: str, rows: Sequence[Row | None], slo_ttft_ms: float | None) -> Column:
    spoken = _spoken(measure)
    if measure == "slo" and slo_ttft_ms is not None:
        spoken = within("ttft_ms", slo_ttft_ms, heading=True)
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
