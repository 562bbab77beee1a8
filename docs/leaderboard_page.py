"""The page of the leaderboard, from its cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import polars as pl
from leaderboard_cells import LOADS, SLOWER, SYNTHETIC_REQUESTS
from leaderboard_findings import findings
from leaderboard_ranking import VARIANTS, Place, Standing, cells_of, geometric_mean, interval, standings
from leaderboard_runs import REFERENCE, Effort

__all__ = ["page"]

_EFFORT: Final = Effort()
_NOTES: Final = {"learned": "¹", "engines": "²", "session": "³", "oracle": "⁴", "": ""}
INTRODUCTION: Final = f"""# Leaderboard of routing policies

{{policies}} policies, with their peers' defaults and tuned, on {{workloads}} workloads × {{fleets}} fleets ×
{{loads}} loads. Made by `python docs/leaderboard.py TRACES`, in less than ten minutes on two cores; all {{cells}} cells
stand in [leaderboard.csv](leaderboard.csv). A test holds this page and the picture against that file.

![Mean TTFT of every policy over the baseline's](leaderboard.svg)

## What it says

{{findings}}

**This is a simulated fleet.** The numbers rank rules on one engine model that was fitted to one log; on that log's own
arms the model is off by what [results.md](results.md) says. Differences of a few per cent are not to be taken to a
real cluster: replay your own log.

## The table

Mean and 99th percentile of TTFT over those of `{REFERENCE}` with its defaults, the paper's baseline, in the same
cell: geometric means over all cells, lower is better, 1 is the baseline. The 95 % interval is a bootstrap over pairs of
workload and fleet. It, *homogeneous*, *heterogeneous*, *worst cell* and *won* are of the tuned policy. *Won*: share of
cells where it has the lowest mean of all that are ranked, or can't be told from that one (bootstrap over seeds and
blocks of requests), so that several win a cell. A policy without settings has no tuned value; the two without a number
are not ranked. The worst values are no accidents: `least-latency` and `throughput` route by an instance's means since
it started, which answer no queue, so that all requests go to one instance until its means have grown.
"""
FOOTNOTES: Final = """
¹ Predicts TTFT by models that were trained on the first half of the same cell, replayed under `random`: with its
defaults, too, it has seen this traffic, as tuned rules have. The models don't see which kind an instance is; those of
the paper do. ² Computes with the very coefficients on which this fleet is simulated; not ranked, for a real fleet never
follows its model so well. ³ Needs sessions, which these workloads don't have: what stands here is its fallback. ⁴ Asks
the simulated engines; not ranked.
"""
METHOD: Final = f"""
## How it was made

- **Workloads.** `sharing09` and `sharing47`: the recorded traffic of the Lodestar paper's cluster (arrival times and
  prefix groups inferred, see [results.md](results.md)). `conversation`: Mooncake's conversation trace, whole.
  `synthetic-09` to `synthetic-71`: the presets `sharing09` to `sharing71` of `lodestar simulate`, after the paper's
  description, with {SYNTHETIC_REQUESTS:,} requests.
- **Engine.** Fitted to the log of `random` on sharing09, as `lodestar replay` does.
- **Fleets.** Homogeneous: 8 of it. Heterogeneous, as in the paper: 7 of it, and 8 slow ones without prefix cache and
  without chunked prefill, all step times × {SLOWER}: the ratio of peak fp16 throughput of A30 (165 TFLOPS) and V100
  SXM2 (125), by NVIDIA's data sheets. A V100 with eager execution is slower than that in practice.
- **Loads.** {", ".join(f"{load:.0%}" for load in LOADS)} of the saturation throughput: requests over makespan when
  all arrive at once under `least-request`, of each kind of engine apart, added up. Arrivals keep their pattern. What a
  better router saves in prefill is not in it, so its own utilisation is lower.
- **What routers see.** In-flight counts and engine metrics of the moment, and a prefix index as large as each engine's
  cache, least recently sent forgotten first, which knows that the slow engines have no prefix cache, as the paper's
  gateway does. Policies with an index of their own use theirs, and do not know.
- **Halves.** The first half of the requests is for training and tuning, the second for the report, with idle engines
  and empty caches at its start; the first 5 % of each do not count. Search: Optuna, {_EFFORT.trials} trials, the
  defaults first, {_EFFORT.search_seeds} seeds, for the mean TTFT of this very cell: a fleet that is tuned once for all
  loads gains less.
- **Report.** {_EFFORT.seeds} seeds, the same for all, and not those of the search. P99 is of all seeds together.
- **Lower bound.** Each request alone on the fastest engine, with everything before it in the cache. The run stops if
  any request of any policy is answered sooner.
"""


def page(frame: pl.DataFrame) -> str:
    """Return the page as Markdown."""
    places, every = cells_of(frame), standings(frame)
    ranked = [standing for standing in every if standing.ranked]
    others = [standing for standing in every if not standing.ranked]
    counts = [len({place[axis] for place in places}) for axis in range(3)]
    told = INTRODUCTION.format(
        policies=len(every), workloads=counts[0], fleets=counts[1], loads=counts[2], cells=len(places),
        findings="\n".join(f"- {sentence}" for sentence in findings(frame)),
    )  # fmt: skip
    parts = [told, _ranking(ranked, others, places), FOOTNOTES, "\n## What tuning gains\n\n", _tuning(ranked, places)]
    return "".join([*parts, METHOD, "\n## Mean TTFT in every cell\n", *_cells(frame, [*ranked, *others])])


def _ranking(ranked: Sequence[Standing], others: Sequence[Standing], places: Sequence[Place]) -> str:
    rows = [_row(str(rank), standing, places) for rank, standing in enumerate(ranked, 1)]
    rows += [_row("–", standing, places) for standing in others]
    fleets = list(dict.fromkeys(place[1] for place in places))
    return "\n" + _table(("", "policy", "mean, default", "mean, tuned", "95 %", "P99, default", "P99, tuned", *fleets,
                   "worst cell", "won"), rows)  # fmt: skip


def _row(rank: str, standing: Standing, places: Sequence[Place]) -> list[str]:
    tuned = standing.mean["tuned"]
    low, high = interval(tuned, places)
    fleet = np.array([place[1] for place in places])
    of_fleets = [_ratio(geometric_mean(tuned[fleet == name])) for name in dict.fromkeys(fleet.tolist())]
    worst = int(tuned.argmax())
    where = f"{_ratio(float(tuned[worst]))} ({_place(places[worst])})"
    p99 = {variant: _ratio(geometric_mean(values)) for variant, values in standing.p99.items()}
    return [
        rank, standing.policy + _NOTES[standing.mark], _ratio(geometric_mean(standing.mean["default"])),
        _ratio(standing.score) if standing.searched else "", f"{_ratio(low)}–{_ratio(high)}", p99["default"],
        p99["tuned"] if standing.searched else "", *of_fleets, where,
        "" if not standing.ranked else f"{standing.won['tuned']:.0%}",
    ]  # fmt: skip


def _tuning(ranked: Sequence[Standing], places: Sequence[Place]) -> str:
    rows = []
    for standing in sorted(ranked, key=lambda each: each.score / geometric_mean(each.mean["default"])):
        if not standing.searched:
            continue
        gain = standing.mean["tuned"] / standing.mean["default"]
        low, high = interval(gain, places)
        best, worst = int(gain.argmin()), int(gain.argmax())
        rows.append([
            standing.policy + _NOTES[standing.mark], _ratio(geometric_mean(gain)), f"{_ratio(low)}–{_ratio(high)}",
            f"{np.mean(gain < 0.99):.0%}", f"{np.mean(gain > 1.01):.0%}",
            *(f"{_ratio(float(gain[at]))} ({_place(places[at])})" for at in (best, worst)),
        ])  # fmt: skip
    told = (
        "Mean TTFT tuned over default, on the half that the search has not seen. *Better* and *worse*: share of cells "
        "where that is below 0.99 or above 1.01.\n\n"
    )
    return told + _table(("policy", "tuned / default", "95 %", "better", "worse", "best cell", "worst cell"), rows)


def _cells(frame: pl.DataFrame, order: Sequence[Standing]) -> Iterator[str]:
    """Give one table a fleet and load."""
    yield "\nIn ms, default → tuned where there are settings.\n"
    for (fleet, load), its in frame.group_by(["fleet", "load"], maintain_order=True):
        workloads = its["workload"].unique(maintain_order=True).to_list()
        values = {row[:3]: row[3] for row in its.select("policy", "workload", "variant", "ttft_mean_ms").iter_rows()}
        bounds = dict(its.select("workload", "bound_mean_ms").iter_rows())
        rows = []
        for each in order:
            shown = VARIANTS[: 1 + each.searched]
            told = (" → ".join(_ms(values[each.policy, name, variant]) for variant in shown) for name in workloads)
            rows.append([each.policy + _NOTES[each.mark], *told])
        rows.append(["*lower bound*", *(_ms(bounds[workload]) for workload in workloads)])
        rates = its.unique("workload", maintain_order=True)["rate_per_s"].to_list()
        yield f"\n### {str(fleet).capitalize()}, {load:.0%}\n\n"
        yield _table(("policy", *(f"{name}, {rate:.1f}/s" for name, rate in zip(workloads, rates, strict=True))), rows)


def _place(place: Place) -> str:
    return f"{place[0]}, {place[1].replace('eneous', '.')}, {place[2]:.0%}"


def _ms(value: float) -> str:
    return f"{value:,.0f}"


def _ratio(value: float) -> str:
    if value >= 9.995:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 0.095 else f"{value:.1g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    texts = sum(1 for name in head[:2] if name in ("", "policy"))
    lines = [head, ["---"] * texts + ["---:"] * (len(head) - texts), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
