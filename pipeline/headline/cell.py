"""One cell, from its name to its rows: all policies replayed, compared and measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.headline.learning import curve_row, learned, learning_row
from lodestar.pipeline.headline.measures import WINDOW
from lodestar.pipeline.headline.plan import Effort, Spec
from lodestar.pipeline.headline.ratios import PARTS, STATISTICS, Level, Levels, interval_of, levels, log_ratio
from lodestar.pipeline.headline.rivals import BASELINE
from lodestar.pipeline.headline.runs import Runs, all_runs, bound_ms
from lodestar.pipeline.headline.worlds import World, rates_per_s, world

__all__ = ["CellResult", "Key", "replay_cell"]

Floats = NDArray[np.float64]
Row = dict[str, Any]
#: Policy, variant, what it is compared with, statistic, part.
Key = tuple[str, str, str, str, str]


class CellResult(NamedTuple):
    """What is kept of a cell.

    Attributes:
        spec: its name.
        rows: one a policy and variant.
        learning: one a policy that learns.
        curves: one learning curve a policy that is drawn.
        logs: log ratios as `log_ratio` gives them.
        cpu_s: that it took.
    """

    spec: Spec
    rows: list[Row]
    learning: list[Row]
    curves: list[Row]
    logs: dict[Key, Floats]
    cpu_s: float


def replay_cell(spec: Spec, effort: Effort) -> CellResult:
    """Replay a cell; the result depends on nothing else, wherever it runs."""
    began = time.process_time()
    worlds = [world(spec, effort, seed) for seed in range(effort.seeds)]
    runs = all_runs(spec, effort, worlds)
    bound = bound_ms(worlds, runs)
    every = _levels(runs, effort)
    best = {key: _best(runs, its) for key, its in every.items()}
    name = {"workload": spec.workload, "fleet": spec.fleet, "load": spec.load}
    logs = _logs(runs, every, best, effort)
    rates = {"rate_per_s": float(np.mean(rates_per_s(spec, effort)))}
    rows = [{**name, **rates, **_row(runs, i, every, best, logs, bound)} for i in range(len(runs))]
    learning, curves = _learning(runs, best["mean", "whole"], worlds, min(WINDOW, len(bound[0]) // 8))
    return CellResult(
        spec,
        rows,
        [{**name, **row} for row in learning],
        [{**name, **row} for row in curves],
        logs,
        time.process_time() - began,
    )


def _levels(runs: Sequence[Runs], effort: Effort) -> Levels:
    """Return the levels of all; a policy with fewer seeds than the others has those of its own."""
    found: Levels = {(statistic, part): [] for statistic in STATISTICS for part in PARTS}
    of_seeds = {
        seeds: levels([each for each in runs if len(each.ttft_ms) == seeds], effort.draws)
        for seeds in {len(each.ttft_ms) for each in runs}
    }
    taken = dict.fromkeys(of_seeds, 0)
    for each in runs:
        seeds = len(each.ttft_ms)
        for key in found:
            found[key].append(of_seeds[seeds][key][taken[seeds]])
        taken[seeds] += 1
    return found


def _best(runs: Sequence[Runs], its: Sequence[Level]) -> int:
    """Return the place of the best heuristic, at its defaults or tuned: with hindsight, by what it is compared by."""
    return min((i for i, each in enumerate(runs) if each.is_heuristic), key=lambda i: its[i].value)


def _logs(runs: Sequence[Runs], every: Levels, best: dict[tuple[str, str], int], effort: Effort) -> dict[Key, Floats]:
    """Return how many times as fast each is as the baseline and, if it learns, as the best heuristic."""
    baseline = next(i for i, each in enumerate(runs) if each.policy == BASELINE and each.variant == "default")
    found: dict[Key, Floats] = {}
    for i, each in enumerate(runs):
        others = {"baseline": dict.fromkeys(every, baseline)}
        if not each.is_heuristic:
            others |= {"best": best, "best-by-mean": {key: best["mean", key[1]] for key in every}}
        seeds = len(each.ttft_ms)
        for versus, places in others.items():
            fewer = _fewer([runs[k] for k in places.values()], each, seeds, effort) if seeds < effort.seeds else None
            for at, (key, place) in enumerate(places.items()):
                pair = (every[key][place], every[key][i]) if fewer is None else (fewer[key][at], fewer[key][-1])
                found[each.policy, each.variant, versus, *key] = log_ratio(*pair)
    return found


def _fewer(others: Sequence[Runs], each: Runs, seeds: int, effort: Effort) -> Levels:
    """Return the levels of some on the seeds that one of them has."""
    cut = [Runs(o.policy, o.variant, o.mark, o.settings, o.ttft_ms[:seeds], o.hit_ratio) for o in others]
    return levels([*cut, each], effort.draws)


def _row(
    runs: Sequence[Runs], i: int, every: Levels, best: dict[tuple[str, str], int], logs: dict[Key, Floats],
    bound: Floats,
) -> Row:  # fmt: skip
    its = runs[i]
    row: Row = {"policy": its.policy, "mark": its.mark, "variant": its.variant, "settings": its.settings}
    row |= {"seeds": len(its.ttft_ms), "hit_ratio": its.hit_ratio}
    for (statistic, part), values in every.items():
        row[f"{part}_{statistic}_ms"] = values[i].value
        ratio, low, high = interval_of(logs[its.policy, its.variant, "baseline", statistic, part])
        row |= {f"{part}_{statistic}_ratio": ratio}
        row |= {f"{part}_{statistic}_low": low, f"{part}_{statistic}_high": high}
        row[f"{part}_{statistic}_is_best"] = best[statistic, part] == i
        row[f"{part}_{statistic}_bound_ms"] = _bound(bound[: len(its.ttft_ms)], statistic, part)
    return row


def _bound(bound: Floats, statistic: str, part: str) -> float:
    counted = bound if part == "whole" else bound[:, bound.shape[1] // 2 :]
    return float(counted.mean() if statistic == "mean" else np.quantile(counted, 0.99))


def _learning(runs: Sequence[Runs], best: int, worlds: Sequence[World], window: int) -> tuple[list[Row], list[Row]]:
    baseline = next(each for each in runs if each.policy == BASELINE and each.variant == "default")
    rows, curves = [], []
    learners = [each for each in runs if each.mark == "learns"]
    for its in learners:
        each = [
            learned(ttft_ms, other, bar, drawn, first_s, window)
            for ttft_ms, other, bar, drawn, first_s in zip(
                its.ttft_ms, baseline.ttft_ms, runs[best].ttft_ms, worlds, its.first_model_s, strict=False
            )
        ]
        rows.append({"policy": its.policy, "window": window, **learning_row(each, its.first_model_s)})
    for role, its in [*((each.policy, each) for each in learners), ("baseline", baseline), ("best", runs[best])]:
        curves.append({"role": role, "policy": its.policy, **curve_row(its.ttft_ms, worlds, window)})
    return rows, curves
