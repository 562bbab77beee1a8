"""The page of `lodestar headline`, all of whose numbers come from the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lodestar.reports.headline import BASELINE, Document, Row, best_of, cell_name, of_cell
from lodestar.reports.headline_grids import (
    cells_grid,
    claims_grid,
    convergence_grid,
    learning_grid,
    policies_grid,
    ranges_grid,
    ratio,
)
from lodestar.reports.markdown import markdown

__all__ = ["page", "short"]

_ORACLE: Final = "oracle-ttft"


def page(document: Document) -> str:
    """Return the page as Markdown."""
    return "\n".join(_lines(document)) + "\n"


def short(document: Document) -> list[str]:
    """Return what is met and what is missed, a line each."""
    claims = [row for row in document["summary"] if row["met"] is not None and row["policy"] == _own(document)]
    met = sum(row["met"] for row in claims)
    return [f"{met} of {len(claims)} targets for speed are met.", *(_missed(document, row) for row in _unmet(claims))]


def _lines(document: Document) -> Iterator[str]:
    own = _own(document)
    learners = list(dict.fromkeys(row["policy"] for row in document["learning"]))
    yield from _introduction(document, own, learners)
    yield from ["", "## Beside the paper's numbers", "", *markdown(ranges_grid(document, learners))]
    yield from ["", "## Against the targets", "", *_against_targets(document, own)]
    yield from ["", "## How soon it learns", "", *_learning(document)]
    for fleet in dict.fromkeys(row["fleet"] for row in document["cells"]):
        grid = cells_grid(document, fleet, own)
        yield from ["", f"## {grid.title}", "", *markdown(grid)]
    yield from ["", f"{_CELLS}", "", "## Every policy", "", *markdown(policies_grid(document)), "", _POLICIES]
    for policy in learners:
        grid = learning_grid(document, policy)
        yield from ["", f"## {grid.title}", "", *markdown(grid)]
    yield from ["", _METHOD.format(**document["settings"])]


def _introduction(document: Document, own: str, learners: list[str]) -> Iterator[str]:
    settings = document["settings"]
    cells = of_cell(document["cells"])
    policies = {row["policy"] for row in document["cells"]}
    yield "# The paper's evaluation, replayed"
    yield ""
    yield (
        f"`{settings['command']}` replays {len(policies)} policies in {len(cells)} cells (workload × load × fleet), "
        f"{settings['seeds']} seeds each, and wrote this page. Numbers are closed-loop, on a simulated fleet: they "
        "rank policies on one engine model. Replay your own log before acting on them. "
        f"Every cell stands in [headline.csv](headline.csv), all else in [headline.json](headline.json)."
    )
    yield ""
    yield "![Learning curves](headline.svg)"
    yield ""
    yield from (f"- {line}" for line in short(document))
    if len(learners) < 2:
        yield "- `lodestar-published`, the paper's own loop, was not part of this run."
    if not settings["conversation"]:
        yield "- The Mooncake trace was not given (`--conversation FILE`); the preset `sessions` stands in for it."
    assert own in learners


def _against_targets(document: Document, own: str) -> Iterator[str]:
    yield (
        f"`{own}` at its defaults, one setting for all cells. The whole run counts, with cold start and learning; the "
        "second half stands beside it. *Best heuristic*: of all policies without models that ask no engine, at their "
        "defaults and tuned on the very cell, the one that came out lowest by the very statistic of the row: no "
        "operator can choose so well beforehand. In brackets: 95 %."
    )
    yield ""
    yield from markdown(claims_grid(document, own))
    yield from ["", f"Where `{own}` is behind the best heuristic of the cell, on whole runs:", ""]
    yield from _behind(document, own)


def _learning(document: Document) -> Iterator[str]:
    window = document["learning"][0]["window"]
    yield (
        f"By sliding means over {window} requests, so that no time is shorter than {window} arrivals take. Steady "
        "state: the mean of the last quarter of the run, or of the part before or after a change. No window "
        "counts in which the cold start decided anything. The first two times are of cells in which nothing changes."
    )
    yield ""
    yield from markdown(convergence_grid(document))


def _behind(document: Document, policy: str) -> Iterator[str]:
    """Tell the cells in which a policy is behind the best heuristic on whole runs, the worst first."""
    for statistic, words in (("mean", "mean TTFT"), ("p99", "P99")):
        found = []
        for rows in of_cell(document["cells"]).values():
            own = next(row for row in rows if row["policy"] == policy)
            best = best_of(rows, statistic)
            over = best[f"whole_{statistic}_ms"] / own[f"whole_{statistic}_ms"]
            if over < 1:
                found.append((over, f"{cell_name(own)}: {over:.3f} of `{best['policy']}`"))
        told = "; ".join(text for _, text in sorted(found))
        yield f"- By {words} in {len(found)} of {len(of_cell(document['cells']))} cells" + (
            f": {told}." if told else "."
        )


def _unmet(claims: list[Row]) -> list[Row]:
    return [row for row in claims if not row["met"]]


def _missed(document: Document, claim: Row) -> str:
    """Say by how much a target is missed, and what perfect information would have come to."""
    part = claim["part"]
    reached = claim[f"{part}_ratio"] if claim["over"] == "cells" else claim[f"{part}_worst"]
    where = "" if claim["over"] == "cells" else f" ({claim[f'{part}_worst_cell']})"
    told = f"Missed: {claim['scope']}, {claim['statistic'].replace('p', 'P')} over {_VERSUS[claim['versus']]}: "
    told += f"{ratio(reached)}{where}, wanted {ratio(claim['target'])}."
    if claim["versus"] != "best" or claim["over"] != "cells":
        return told
    oracle = _oracle(document, claim)
    return f"{told} `{_ORACLE}`, which asks the simulated engines, comes to {ratio(oracle)} there."


def _oracle(document: Document, claim: Row) -> float:
    """Return what the oracle comes to by the same claim."""
    row = next(
        row for row in document["oracle"] if (row["scope"], row["versus"], row["statistic"])
        == (claim["scope"], claim["versus"], claim["statistic"])
    )  # fmt: skip
    return float(row[f"{claim['part']}_ratio"])


def _own(document: Document) -> str:
    return str(document["settings"]["policy"])


_VERSUS: Final = {"baseline": BASELINE, "best": "the best heuristic", "best-by-mean": "the one with the best mean"}
_CELLS: Final = (
    "*Best heuristic*: of whole runs, by the mean. *Over the best*: mean and P99, each against the heuristic that is "
    "lowest by it. *Oracle*: `oracle-ttft`, greedy with the engines' own answers, which no router has; it is no bound. "
    "*× bound*: times the mean of the clairvoyant lower bound, each request alone on the fastest instance with all "
    "before it in the cache; no router reaches it under load."
)
_POLICIES: Final = (
    "*engines*: knows the coefficients that the fleet is simulated with. *oracle*: asks the simulated engines. "
    "*session*: needs sessions, which most of these workloads don't have. *learns*: begins every run knowing nothing. "
    "The other learned policies need a model beforehand; they are in the [leaderboard](leaderboard.md)."
)
_METHOD: Final = """## How it was made

- **Workloads.** `sharing09` to `sharing71`, `sharing-shift` (5 % → 50 % sharing) and `rate-shift` (50 % → 90 % of
  saturation, 28 % sharing): the presets of `lodestar simulate` after the paper's description. `failure` and
  `scale-out`: `sharing47`; a fast instance fails, or joins, at the middle request. `conversation`: the Mooncake trace
  as the paper reads it (50 tokens a block, prompts of at most 10,000 tokens, half of the output, Poisson arrivals, its
  first 600 s over and over; other seeds take later 600 s). Every run has {requests:,} requests.
- **Seeds.** {seeds}; every one draws other arrivals and prompts. The engines have no noise of their own.
  `lodestar-published` runs on {published_seeds} of them, and with the settings of its README instead of those of its
  experiments on {readme_seeds}; each is compared on the seeds that it has.
- **Fleets.** Homogeneous: 8 instances of the preset `a30-qwen2-7b`. Heterogeneous: 7 of them, and 8 three times slower
  without prefix cache and chunked prefill.
- **Loads.** Shares of the saturation throughput: requests over makespan when all arrive at once under `least-request`,
  of each kind of instance apart, added up. A fleet that an instance joins or leaves counts whole.
- **What routers see.** In-flight counts and engine metrics of the moment, and a prefix index as large as each engine's
  cache, which knows that the slow instances have none. `lodestar-online` knows the kind of each instance, and hears of
  finished requests in batches, as its settings say.
- **Tuning.** Optuna, {trials} trials for each heuristic in each cell (`preble`, whose replays take long: 3), the
  defaults first, for the mean TTFT of whole runs on {search_seeds} other draws of the very cell (of the conversation
  trace: the same windows again). They are not tuned for P99, nor for the time after a change. The weights of
  `lodestar-online` are one setting for all cells; they were chosen on draws 0 of sharing09, sharing28, sharing47,
  sharing71, sessions, bursts and agents ([total_cost.md](total_cost.md)).
- **Intervals.** 95 %, of a bootstrap over seeds and blocks of requests ({draws} draws), paired, the same draws in all
  cells; they speak of traffic like this on these cells, not of other cells. P99: all seeds pooled.
"""
