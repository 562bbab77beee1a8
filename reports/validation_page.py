"""The page of `lodestar validate`, all of whose numbers come from the run, and its tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.reports.grids import Grid
from lodestar.reports.markdown import markdown
from lodestar.reports.numbers import number
from lodestar.reports.tables import grid_table
from lodestar.reports.validation_grids import (
    arms_grid,
    coverage_grid,
    derivatives_grid,
    load_balancing_grid,
    own_logs_grid,
    queueing_estimators_grid,
    queueing_grid,
    queueing_others_grid,
    targets_grid,
)
from lodestar.reports.validation_scores import SCORES, score_grids, score_words

__all__ = ["page", "validation_grids", "validation_tables"]

Document = Mapping[str, Any]


def page(document: Document) -> str:
    """Return the page as Markdown."""
    return "\n".join(_lines(document)) + "\n"


def validation_tables(document: Document) -> RenderableType:
    """Draw every table in the terminal, the targets first."""
    parts: list[RenderableType] = [grid_table(grid) for grid in validation_grids(document).values()]
    skipped = document.get("measured-arms", {}).get("skipped", {})
    parts += [Text(f"{cluster} left out: {why}", style="yellow") for cluster, why in skipped.items()]
    if files := document.get("files"):
        parts.append(Text("\n".join(f"{kind}  {path}" for kind, path in files.items()), overflow="fold"))
    return Group(*parts)


def validation_grids(document: Document) -> dict[str, Grid]:
    """Return every table that the parts of a document fill, by name."""
    grids = {"targets": targets_grid(document)}
    if queueing := document.get("queueing"):
        grids["queueing"] = queueing_grid(queueing)
        grids["others"] = queueing_others_grid(queueing)
        grids["estimators"] = queueing_estimators_grid(queueing)
        grids["derivatives"] = derivatives_grid(queueing)
    if found := document.get("load-balancing"):
        grids["load-balancing"] = load_balancing_grid(found)
    if found := document.get("own-logs"):
        grids["own-logs"] = own_logs_grid(found)
    if (found := document.get("measured-arms")) and found["rows"]:
        grids["measured-arms"] = arms_grid(found)
    if found := document.get("coverage"):
        grids["coverage"] = coverage_grid(found["bandits"], "Coverage of nominal 95 % intervals: bandits")
        for name, title in _FURTHER.items():
            grids[name] = coverage_grid(found.get(name, []), title)
        grids["replayed"] = coverage_grid(found["replayed"], "Coverage of nominal 95 % intervals: replayed logs")
        if found["limits"]:
            grids["limits"] = coverage_grid(found["limits"], "Where block intervals end: replayed logs")
        grids |= score_grids(found)
    return {name: grid for name, grid in grids.items() if grid.rows}


def _lines(document: Document) -> Iterator[str]:
    yield from ["# Validation: what is known to be true, and what is said of it", ""]
    seconds = sum(document["seconds"].values())
    yield (
        f"`{document['command']} --to DIR` wrote this page in {number(seconds / 60)} minutes on {document['cores']} "
        "cores; all numbers are in [validation.json](validation.json). *Closed loop* is a policy's performance; *one "
        "step* is what estimators of logged decisions claim, and is not ([estimators.md](estimators.md))."
    )
    yield from ["", "![replay and one-step estimates beside the truth](validation.svg)"]
    for name, grid in validation_grids(document).items():
        yield from ["", f"## {grid.title}", "", *_before(name, document), *markdown(grid, whole=True)]
    for cluster, why in document.get("measured-arms", {}).get("skipped", {}).items():
        yield from ["", f"{cluster} is left out: {why}."]


def _before(name: str, document: Document) -> Iterator[str]:
    if name in SCORES:
        yield from (score_words(name, document["coverage"]), "")
    if name in _WORDS:
        part = document.get(name, {})
        sizes = {key: value for key, value in part.items() if isinstance(value, int)}
        yield _WORDS[name].format(**sizes)
        yield ""


_FURTHER: Final = {
    "tuned": "Coverage of tuned estimators, by how right the model is",
    "compared": "Coverage of bootstrapped ratios, and of several policies at once",
}

_WORDS: Final = {
    "queueing": (
        "Eight first-come-first-served servers of unequal speed with caches of 24 prefixes, 300 prefixes, "
        "{requests:,} requests, {seeds} seeds: a world of its own code, logged once by a softmax over queue and "
        "hit. Engines are calibrated to that log by `lodestar calibrate`'s own code, and policies replayed. Where "
        "a policy has several states its mean over seeds is no property of it: ranks (τ) are by the median seed."
    ),
    "others": (
        "Errors against the closed-loop truth. *dr as performance*: how wrong it is to read a one-step value as "
        "one. *Wrong simulator*: speeds off by 15 %, hits worth 60 % instead of 80 %; *× log ratio*: the same "
        "times logged / simulated mean of the logging policy."
    ),
    "estimators": (
        "Eight policies. Worst error over the policies against the one-step truth, which the world knows exactly; "
        "how many of the policies' 95 % intervals hold it; Kendall's τ of the estimate with the closed-loop "
        "truth. `dm` errs where a rule sees what the model does not."
    ),
    "derivatives": (
        "d/dε of the mean TTFT towards each policy at the logging policy: the truth by mixtures of 5 and 10 % on "
        "common random numbers, D_H by the mean over several logs, each with the horizon that its path chooses."
    ),
    "load-balancing": (
        "The world of CausalSim (Alomar et al. 2023): eight servers with rates 5^U(−1, 1), jobs of autocorrelated "
        "size, eight policies; {jobs:,} jobs, {seeds} trials. Each policy is foretold from the logs of the "
        "others. *Calibrated replay* sees the size of a job, as a router sees prompt tokens; *rank-one* does not, "
        "and infers it. *Trace replay* carries recorded processing times over to other servers, *as logged* takes "
        "latencies as they were. Largest errors in brackets. MAPE is job by job; one-step estimators have none."
    ),
    "own-logs": (
        "A generated workload on known engines is routed at random and recorded; the record alone is ingested, "
        "calibrated and replayed. The truth is the known cluster under other luck: small errors here speak for "
        "calibration, reconstruction and inference, and say nothing of how real the engine model is."
    ),
    "measured-arms": (
        "Real clusters that served the same requests under several routers. Everything is fitted to the `random` "
        "arm; the others are withheld. *Its own choices*: the arm's decisions, forced in the replay; a policy's "
        "name: it decides for itself. Behind each cluster stands the verdict of the trust gates, which saw the "
        "`random` arm alone: *untrusted* says beforehand not to act on it; *trusted*, that nothing in that arm "
        "spoke against it. *Its hits known*: the error of the same choices where the arm's own hits tell the prefix "
        "groups as well, which one log leaves open; no latency of the arm tells anything. The last column is a "
        "one-step estimate, read as a performance."
    ),
    "coverage": (
        "Known truth, deterministic target, three logging policies from even to uneven weights; in brackets, half "
        "of the mean width. The confidence sequence holds at every number of decisions at once."
    ),
    "tuned": (
        "The policy takes the cheapest of 7 candidates; 2400 decisions, exact propensities, uneven weights. SLOPE "
        "tolerates a bias, so the interval that is shown reaches over that of whole weights too; *λ alone* is what "
        "it would be otherwise, and is never shown. Without a model, sg-ipw needs none and the others are told the "
        "mean logged cost. In brackets, half of the mean width."
    ),
    "compared": (
        "The same world, two logging policies, a model that is 40 % high. Ratios are bootstrapped by 12 blocks; the "
        "differences are those of four policies to one that takes any candidate, and count as held only if all four "
        "do. In brackets, half of the mean width."
    ),
    "replayed": (
        "Logs recorded by the replay under `random`: intervals by blocks and by the prefix groups that span them, "
        "and intervals that take decisions one by one. The truth is the mean over other replays."
    ),
    "limits": (
        "Bursts near overload: a few logs with a jam make the mean, most have none, and intervals hold too seldom; a "
        "note says that the log is near overload. The very same requests in every log, as in a benchmark: intervals "
        "for other traffic are too wide, as no log tells that; those *for the same requests* are for this."
    ),
}
