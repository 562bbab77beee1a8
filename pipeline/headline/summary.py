"""From the cells to the claims: each with its number, its interval, its target, and whether it is met."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.headline.cell import CellResult
from lodestar.pipeline.headline.learners import ONLINE, PUBLISHED, README
from lodestar.pipeline.headline.plan import CHANGES, FLEETS, NEAR_SATURATION, Spec
from lodestar.pipeline.headline.ratios import PARTS, STATISTICS, interval_of

__all__ = ["CONVERGED_S", "Claim", "claims", "convergence_rows", "summary_rows"]

Floats = NDArray[np.float64]
Row = dict[str, Any]

#: Replayed time within which the policy must have caught up with the baseline.
CONVERGED_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Claim:
    """Something to show: how many times as fast as another policy, over some cells.

    Attributes:
        scope: in words.
        takes: which cells count.
        versus: 'baseline', 'best' (the best heuristic by this very statistic) or 'best-by-mean'.
        statistic: 'mean' or 'p99'.
        target: the least that is wanted; None: it is only told.
        over: whether the geometric mean has to reach it, or the worst cell.
        part: of the runs that is held against the target.
    """

    scope: str
    takes: Callable[[Spec], bool]
    versus: str
    statistic: str
    target: float | None = None
    over: str = "cells"
    part: str = "whole"


def claims() -> Iterator[Claim]:
    """Yield what is to be shown, in the order in which it is told."""
    yield Claim("all cells", _all, "baseline", "mean", 1.41)
    yield Claim("all cells", _all, "baseline", "p99", 1.47)
    for fleet in FLEETS:
        for statistic in STATISTICS:
            yield Claim(fleet, _on(fleet), "baseline", statistic)
    homogeneous, heterogeneous = FLEETS
    yield Claim(homogeneous, _on(homogeneous), "best", "mean", 1 / 1.03, over="worst")
    yield Claim(homogeneous, _on(homogeneous), "best", "p99", 1 / 1.03, over="worst")
    yield Claim(heterogeneous, _on(heterogeneous), "best", "mean", 1.15)
    yield Claim(heterogeneous, _on(heterogeneous), "best", "p99", 1.4)
    yield Claim(heterogeneous, _on(heterogeneous), "best-by-mean", "p99")
    for fleet in FLEETS:
        yield Claim(f"near saturation, {fleet}", _near_saturation(fleet), "best", "mean", 1.15)
        for change in CHANGES:
            takes = _changes(change, fleet)
            yield Claim(f"after the {change}, {fleet}", takes, "best", "mean", 1.15, part="half")


def summary_rows(results: Sequence[CellResult], policy: str = ONLINE) -> list[Row]:
    """Return one row a claim that has a cell; the policy at its defaults, the same in every cell."""
    rows = []
    for claim in claims():
        its = [result for result in results if claim.takes(result.spec)]
        if its and (policy, "default", claim.versus, claim.statistic, claim.part) in its[0].logs:
            rows.append(_row(claim, its, policy))
    return rows


def _row(claim: Claim, results: Sequence[CellResult], policy: str) -> Row:
    row: Row = {"policy": policy, "scope": claim.scope, "versus": claim.versus, "statistic": claim.statistic}
    row["cells"] = len(results)
    for part in PARTS:
        logs = [result.logs[policy, "default", claim.versus, claim.statistic, part] for result in results]
        value, low, high = interval_of(np.mean(logs, axis=0))
        ratios = np.exp([its[0] for its in logs])
        worst = results[int(ratios.argmin())].spec
        fleet = f"{worst.fleet}, " if len({result.spec.fleet for result in results}) > 1 else ""
        row |= {f"{part}_ratio": value, f"{part}_low": low, f"{part}_high": high}
        row |= {f"{part}_worst": float(ratios.min()), f"{part}_most": float(ratios.max())}
        row[f"{part}_worst_cell"] = f"{worst.workload}, {fleet}{100 * worst.load:.0f} %"
    reached = row[f"{claim.part}_ratio" if claim.over == "cells" else f"{claim.part}_worst"]
    row |= {"part": claim.part, "over": claim.over, "target": claim.target}
    row["met"] = None if claim.target is None else bool(reached >= claim.target)
    return row


def convergence_rows(learning: Sequence[Row]) -> list[Row]:
    """Return how soon each policy that learns has caught up, and how soon it has adapted where something changes.

    Of the first, only cells in which nothing changes count: a change may come before the first model.
    """
    rows = []
    for policy in (ONLINE, PUBLISHED, README):
        its = [row for row in learning if row["policy"] == policy]
        if not its:
            continue
        for name in ("at_baseline_s", "steady_s", "adapted_s"):
            told = [row for row in its if (row["workload"] in CHANGES) == (name == "adapted_s")]
            never = sum(row[f"{name}_never"] for row in told)
            worst = [row[f"{name}_worst"] for row in told]
            medians = sorted(float("inf") if row[name] is None else row[name] for row in told)
            row = {"policy": policy, "what": name, "runs": sum(row["seeds"] for row in told), "never": never}
            median = medians[len(medians) // 2] if medians else float("inf")
            row["median_s"] = median if np.isfinite(median) else None
            row["worst_s"] = max(worst) if worst and not never else None
            row["target_s"] = CONVERGED_S if name != "adapted_s" else None
            met = not never and bool(told) and row["worst_s"] <= CONVERGED_S
            row["met"] = met if name != "adapted_s" else None
            rows.append(row)
    return rows


def _all(spec: Spec) -> bool:
    return True


def _on(fleet: str) -> Callable[[Spec], bool]:
    return lambda spec: spec.fleet == fleet


def _near_saturation(fleet: str) -> Callable[[Spec], bool]:
    return lambda spec: spec.fleet == fleet and spec.load == NEAR_SATURATION


def _changes(change: str, fleet: str) -> Callable[[Spec], bool]:
    return lambda spec: spec.fleet == fleet and spec.workload == change
