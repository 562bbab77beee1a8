"""How far a log can carry one-step numbers: weights, propensities, the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import number, percent
from lodestar.reports.said import said_once, sentence

__all__ = ["checks_grid", "verdicts", "weights_grid"]

Row = Mapping[str, Any]
Rows = Sequence[Row]

_MARKS: Final[dict[str, Mark]] = {"usable": "good", "not usable": "bad", "direct only": "bad"}
_BRIEFLY: Final = (
    "Effective sample (ESS): so many requests of equal weight would tell as much. Never logged: what the policy would "
    "do and the log never did. Model off: what dr adds to dm, ± a standard error."
)
_IN_FULL: Final = (
    "Effective sample (ESS): (Σw)² / Σw², so many requests of equal weight would tell as much; below, that of the "
    "requests beyond the P99. Under the mean weight: how many standard errors (SE) it is from what it should be. Under "
    "the largest: what share of all weight the heaviest 1 % of the requests carry. Never logged: what the policy would "
    "do and the log never did. Model off: what the weighted residuals say the predictor misses where the policy would "
    "go, ± a standard error, which dr adds to dm."
)


def weights_grid(rows: Rows, brief: bool = False) -> Grid:
    """Return one row a policy: the verdict on its weights and what it rests on.

    Args:
        rows: one a policy.
        brief: with the numbers named, and without how each is made.
    """
    columns = [
        Column(
            "policy",
            "",
            [Cell(row["policy"], row["verdict"]["word"], _MARKS.get(row["verdict"]["word"], "")) for row in rows],
            left=True,
        ),
        Column("effective sample", "requests", [_effective(row["weights"]) for row in rows]),
        Column("mean weight", "1 is right", [_mean_weight(row["weights"]) for row in rows]),
        Column("largest weight", "", [_largest(row["weights"]) for row in rows]),
        Column("never logged", "%", [Cell(percent(row["support"]["unsupported_ratio"], 2)) for row in rows]),
        Column("model off", "ms", [_correction(row["prediction"]) for row in rows]),
    ]
    usable, doubted = verdicts(rows)
    # The predictor is the log's, whatever the policy.
    doubted += dict.fromkeys(sentence(row["miscalibrated"]) for row in rows if row["miscalibrated"])
    notes = [*usable, _BRIEFLY if brief else _IN_FULL]
    return Grid("Weights: how far the log can carry these numbers", columns, notes, doubted)


def verdicts(rows: Rows) -> tuple[list[str], list[str]]:
    """Return the verdicts in sentences, those of usable weights and the others, once for policies that share one."""
    said = said_once((row["policy"], row["verdict"]["sentence"]) for row in rows)
    usable = {row["verdict"]["sentence"] for row in rows if row["verdict"]["word"] == "usable"}
    found = [(each in usable, f"{', '.join(of)}: {each}.") for each, of in said.items()]
    return [line for good, line in found if good], [line for good, line in found if not good]


def checks_grid(rows: Rows) -> Grid:
    """Return one row a test of what right propensities imply: by instance, by load, by time, by control variates."""
    # Whether the log's own propensities are right does not depend on a policy.
    every = [("the log", family) for family in rows[0]["propensities"]["families"]]
    every += [(row["policy"], family) for row in rows for family in row["balance"]]
    families = [(policy, family) for policy, family in every if family["tests"]]
    worst = [family["tests"][0] for _, family in families]
    columns = [
        Column("policy", "", [Cell(policy) for policy, _ in families], left=True),
        Column("check", "", [Cell(family["name"]) for _, family in families], left=True),
        Column("worst at", "", [Cell(test["name"]) for test in worst], left=True),
        Column("off", "%", [Cell(percent(test["off"], 1, signed=True)) for test in worst]),
        Column("off", "SE", [Cell(number(test["z"], 1, signed=True)) for test in worst]),
        Column("by luck", "", [Cell(number(test["p"], 3), mark="bad" if test["p"] < 0.01 else "") for test in worst]),
    ]
    notes = [
        "Off: by how much what was found differs from what right propensities imply, and in standard errors (SE). By "
        "luck: how probable so large a difference is in any of the groups of a check, if the propensities are right."
    ]
    return Grid("Checks of the propensities", columns, notes)


def _effective(found: Row) -> Cell:
    tail = found["tail_ess"].get("p99")
    return Cell(number(found["ess"]), "" if tail is None else f"beyond P99 {number(tail)}")


def _mean_weight(found: Row) -> Cell:
    note = f"{number(found['z'], 1, signed=True)} SE" if found["tested"] else "untested"
    return Cell(number(found["mean"], 3), note, "bad" if found["tested"] and abs(found["z"]) > 3 else "")


def _largest(found: Row) -> Cell:
    return Cell(number(found["largest"], 1), f"1 % carry {percent(found['top_ratio'], 0)} %")


def _correction(found: Row | None) -> Cell:
    if found is None:
        return Cell(number(None))
    return Cell(number(found["correction"], 0, signed=True), f"± {number(found['correction_se'])}")
