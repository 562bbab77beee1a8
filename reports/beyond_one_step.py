"""What a log tells beyond one step: closed-loop derivatives, and the test of two routers that shared it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lodestar.reports.estimates import policy_column
from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, number
from lodestar.reports.said import said_once, sentence

__all__ = ["derivatives_grid", "router_test_grid"]

Row = Mapping[str, Any]
Rows = Sequence[Row]


def derivatives_grid(rows: Rows) -> Grid:
    """Return one row a policy: where mean TTFT goes as a small share of the traffic moves to it, per unit of share."""
    places = decimals([row["path"][0]["value"] for row in rows] + [row["value"] for row in rows], figures=3)
    columns = [
        policy_column(rows),
        Column("at once", "ms", [_within(row["path"][0]["value"], row["path"][0]["se"], places) for row in rows]),
        Column("with later requests", "ms", [_at_rest(row, places) for row in rows]),
        Column("horizon", "requests", [Cell(number(row["horizon"])) for row in rows]),
    ]
    notes = [
        "The derivative of mean TTFT towards a policy, from the log alone: what one decision in a hundred changes, "
        "times a hundred; below, ± two standard errors. At once: of that request only. With later requests: of all "
        "that come after it too, over the horizon where the path levels off. Below 0: towards it is faster. It tells "
        "the direction, and does not carry all the way to the policy."
    ]
    return Grid("Closed-loop derivative at the logging policy", columns, [*notes, *_said(rows)])


def router_test_grid(test: Row) -> Grid:
    """Return the test that two routers of a log make: by a coin for each request, or by turns."""
    a, b = test["a"], test["b"]
    per_request = test["design"] == "per request"
    unit = "horizon" if per_request else "burn_in"
    places = decimals([test["value"]])
    rests = not per_request or test[unit] != test["path"][-1][unit]
    marks: list[Mark] = ["best" if rests and row[unit] == test[unit] else "" for row in test["path"]]
    name = unit.replace("_", "-")
    columns = [
        Column(name, "requests", [Cell(number(row[unit])) for row in test["path"]]),
        Column(
            f"{b} − {a}",
            "ms",
            [
                Cell(number(row["value"], places, signed=True), f"± {number(2 * row['se'], places)}", mark)
                for row, mark in zip(test["path"], marks, strict=True)
            ],
        ),
    ]
    how = (
        f"A coin for each request chose between {a} and {b}. The plain difference of their means (horizon 1) omits "
        "what a decision does to later requests of both."
        if per_request
        else f"{a} and {b} took turns. After each switch, the queues and caches are still the other's: the burn-in is "
        "left out."
    )
    if not per_request:
        low, high = (number(end, places, signed=True) for end in test["ci95"])
        answer = f"The answer is at {name} {number(test[unit])}, its 95 % interval {low} to {high}"
    elif rests:
        answer = f"The answer is at {name} {number(test[unit])}, where the path levels off"
    else:
        answer = "There is no answer: the path does not level off, and what comes later would still move its last row"
    notes = [how, f"{answer}; below, ± two standard errors. Estimand: closed loop, all of the traffic."]
    return Grid(f"The log is a test: {test['design']}", columns, notes, [*map(sentence, test["notes"])])


def _within(value: float | None, se: float | None, places: int) -> Cell:
    return Cell(number(value, places, signed=True), f"± {number(2 * se, places)}" if se is not None else "")


def _at_rest(row: Row, places: int) -> Cell:
    """Return the value where the path levels off; where it does not within the log, there is none to print."""
    if len(row["path"]) > 1 and row["horizon"] == row["path"][-1]["horizon"]:
        return Cell(number(None), "no plateau")
    return _within(row["value"], row["se"], places)


def _said(rows: Rows) -> list[str]:
    """Return the notes, each once, with the policies that it is of where it is not of all."""
    found = said_once((row["policy"], note) for row in rows for note in row["notes"])
    return [sentence(note) if len(of) == len(rows) else f"{', '.join(of)}: {note}." for note, of in found.items()]
