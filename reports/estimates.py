"""One-step values by every estimator, and the closed loop of policies that have none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, interval, number, percent
from lodestar.reports.said import said_of, said_once

__all__ = [
    "ONE_STEP",
    "closed_loop_grid",
    "distrust",
    "estimators_grid",
    "policy_column",
    "read_first",
    "with_ends",
]

Row = Mapping[str, Any]
Rows = Sequence[Row]

_READ: Final = ("dr", "dm")  # the first of them that is there
ONE_STEP: Final = (
    "The value if ONE decision were the policy's and every queue and cache stayed as logged: not the policy's "
    "performance, which only the closed-loop replay estimates."
)


def closed_loop_grid(rows: Rows, verdict: str) -> Grid:
    """Return one row a replayed policy: its closed loop alone, where the log tells nothing one step at a time."""
    places = decimals([row["ttft_ms"]["mean"] for row in rows])
    mark, found = distrust(verdict), [row["ttft_ms"] for row in rows]
    columns = [
        policy_column(rows),
        Column("closed-loop", "ms", [with_ends(each["mean"], each["ci95"], places, mark) for each in found]),
        Column("cache hits", "%", [Cell(percent(row["hit_ratio"])) for row in rows]),
    ]
    return Grid(f"Closed loop without one step beside it ({verdict}), mean TTFT", columns)


def estimators_grid(rows: Rows, judged: Collection[str] = (), beside: bool = False) -> Grid:
    """Return one row an estimator, one column a policy: the value and its 95 % interval.

    Args:
        rows: one a policy and estimator.
        judged: policies whose weights have a verdict.
        beside: whether a table above, with the closed loop, says what one step is.
    """
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
    title = "One-step, logged states: a diagnostic, mean TTFT"
    return Grid(title, columns, [*_how(rows, judged), *_notes(rows), *([] if beside else [ONE_STEP])])


def read_first(estimators: Collection[str]) -> str:
    """Return the estimator to read first of those that are there.

    >>> read_first(["dm", "ipw", "dr"]), read_first(["dm"])
    ('dr', 'dm')
    """
    return next((name for name in _READ if name in estimators), min(estimators))


def _notes(rows: Rows) -> list[str]:
    """Return every note of an estimate, each once, with the estimators and the policies that it is of."""
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    of: dict[str, list[Row]] = {}
    for row in rows:
        for note in row.get("notes", ()):
            of.setdefault(note, []).append(row)
    return [_greek(f"{_whose(these, policies)}: {note}.") for note, these in of.items()]


def _whose(rows: Rows, policies: list[str]) -> str:
    by_policy = said_once((row["estimator"], row["policy"]) for row in rows)
    alike = said_once((policy, ", ".join(names)) for policy, names in by_policy.items())
    return "; ".join(f"{names} of {said_of(of, policies, 'every policy')}" for names, of in alike.items())


def _made(rows: Rows) -> str:
    """Say of what the intervals are and how they were made, and which are made in another way than the first.

    >>> rows = [("dr", "value: blocks"), ("dm", "value: blocks"), ("sg-dr", "value: blocks, wider")]
    >>> _made([{"estimator": name, "interval": how} for name, how in rows])
    ' of the value (blocks; of sg-dr: blocks, wider)'
    """
    of = said_once((row["estimator"], row["interval"]) for row in rows if row.get("interval"))
    if not of:
        return ""
    first, *others = (each.partition(": ")[2] for each in of)
    names = (", ".join(each) for each in list(of.values())[1:])
    differ = "".join(f"; of {each}: {how}" for each, how in zip(names, others, strict=True))
    return f" of the {next(iter(of)).partition(': ')[0]} ({first}{differ})"


def _greek(sentence: str) -> str:
    return sentence.replace("lambda_", "λ")


def policy_column(rows: Rows) -> Column:
    """Return the column of policies."""
    return Column("policy", "", [Cell(row["policy"]) for row in rows], left=True)


def with_ends(value: float | None, ends: Sequence[float] | None, places: int, mark: Mark = "") -> Cell:
    """Return a value with the ends of its interval below it."""
    return Cell(number(value, places), interval(ends, places) if ends else "", mark)


def distrust(verdict: str) -> Mark:
    """Return how a closed loop is marked whose replay failed its gates."""
    return "bad" if verdict == "untrusted" else ""


def _how(rows: Rows, judged: Collection[str]) -> list[str]:
    """Say which estimator to read first and why, and what the intervals are."""
    of = said_once((row["estimator"], row["policy"]) for row in rows)
    direct = [policy for policy, names in of.items() if names == ["dm"]]
    said = []
    if len(direct) < len(of):
        said.append("Read dr first: right where the propensities or the predictor are; dm is the predictor alone.")
    refused, unlogged = ([policy for policy in direct if (policy in judged) == known] for known in (True, False))
    if refused:
        said.append(f"{', '.join(refused)}: only dm, the predictor alone; the verdict on the weights says why.")
    if unlogged:
        whose = said_of(unlogged, list(of), "every policy")
        said.append(f"Of {whose} only dm, the predictor alone: the log has no, or too few, propensities.")
    said.append(
        f"Below each value: its 95 % interval{_made(rows)}. Too narrow where dependence spans the log in other "
        "ways: see docs/validation.md."
    )
    tuned = list(dict.fromkeys(row["estimator"] for row in rows if row.get("lambda_") is not None))
    if tuned:
        said.append(f"λ of {', '.join(tuned)}: chosen by SLOPE for each policy anew.")
    return said
