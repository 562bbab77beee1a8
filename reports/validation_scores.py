"""The tables of `lodestar validate` beyond means of one step: how often intervals held, how far off values were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import number, percent
from lodestar.reports.validation_grids import COVERED, FEWEST_REPETITIONS

__all__ = ["SCORES", "score_grids", "score_metrics", "score_words", "scores_grid"]

Row = Mapping[str, Any]
Rows = Sequence[Row]

#: Part of the coverage → title, and what stands before its table.
SCORES: Final = {
    "tails": (
        "Tails of one step against a known truth",
        "10,000 decisions of 4 candidates, of known log-normal costs; the policy takes the shortest queue, corrected "
        "for hits. In brackets, root mean square error. `dm` is as right as its model: its interval does not know of "
        "the model's own error, and need not hold. `dr` corrects the model by the log.",
    ),
    "several-routers": (
        "Logs of several routers against a known truth",
        "2,000 decisions of 8 candidates, each by one of two routers, by a coin; the policy takes the cheapest. One "
        "pair is an even router and one that shuns the policy's choice; of the other, each prefers its own half of the "
        "candidates. *Balanced*: weighed by the mean propensity of both; *weighted*: an estimate a router, by inverse "
        "variance. In brackets, root mean square error.",
    ),
    "beyond": (
        "Tests of two routers, and the control variate, against a simulated truth",
        "Three first-come-first-served servers; two routers share 12,000 requests, by a coin for each or in turns of "
        "300, and the truth is all of the traffic under one less all of it under the other. The plain difference of "
        "the arms is not that. Differences-in-Q err to second order in what the arms differ in, and are off where one "
        "is bad; of two good routers they are right on average, and too noisy to tell which is better. Of each turn "
        "the first third is left out; intervals of turns reach further on the side that turns are skewed to, and where "
        "the burn-in took the difference. In brackets, root mean square error as a share of "
        "the true difference. Last, a simulator with speeds off by 15 %, alone and corrected by the log.",
    ),
}


def scores_grid(rows: Rows, title: str) -> Grid:
    """Return one row a setting: of each estimator, how often its nominal 95 % intervals held, and its error.

    >>> row = {"setting": "s", "estimator": "dr", "coverage": 0.9, "relative_error": 0.021, "refused_ratio": 0.0}
    >>> scores_grid([row], "t").rows[0][1]
    Cell(text='0.900', note='off 2.1 %', mark='bad')
    """
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    of = {(row["setting"], row["estimator"]): row for row in rows}
    columns = [Column("setting", "", [Cell(each) for each in settings], left=True)]
    columns += [Column(name, "", [_cell(of.get((each, name))) for each in settings]) for name in names]
    return Grid(title, columns)


def score_grids(coverage: Row) -> dict[str, Grid]:
    """Return the tables that the coverage part of a document fills, by name."""
    return {name: scores_grid(coverage[name], title) for name, (title, _) in SCORES.items() if coverage.get(name)}


def score_words(name: str, coverage: Row) -> str:
    """Return what stands before a table, and which of its intervals hold too seldom or too often.

    >>> row = {"setting": "s", "estimator": "dm", "coverage": 0.4, "repetitions": 300}
    >>> score_words("beyond", {"beyond": [row]})[-38:]
    'Outside 0.91 to 0.99: dm of s (0.400).'
    """
    words = SCORES[name][1]
    if min(row["repetitions"] for row in coverage[name]) < FEWEST_REPETITIONS:
        return f"{words} Too few repetitions to judge."
    off = [row for row in coverage[name] if row["coverage"] is not None and not _holds(row["coverage"])]
    told = "; ".join(f"{row['estimator']} of {row['setting']} ({row['coverage']:.3f})" for row in off)
    return f"{words} {f'Outside {COVERED[0]} to {COVERED[1]}: {told}.' if off else 'All hold as often as they say.'}"


def score_metrics(coverage: Row) -> Iterator[tuple[str, float]]:
    """Yield every coverage and error that there is, by name."""
    for part in SCORES:
        for row in coverage.get(part, []):
            for what in ("coverage", "relative_error"):
                if row[what] is not None:
                    yield f"coverage/{part}/{row['setting']}/{row['estimator']}/{what}", row[what]


def _cell(row: Row | None) -> Cell:
    if row is None:
        return Cell(number(None))
    if row["coverage"] is None:
        return Cell("refused")
    mark: Mark = "" if _holds(row["coverage"]) else "bad"
    note = f"off {percent(row['relative_error'])} %"
    if row["refused_ratio"] > 0:
        note += f", {percent(row['refused_ratio'], 0)} % refused"
    return Cell(f"{row['coverage']:.3f}", note, mark)


def _holds(share: float) -> bool:
    return COVERED[0] <= share <= COVERED[1]
