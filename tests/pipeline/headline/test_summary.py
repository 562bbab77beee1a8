"""From ratios of cells to what is met and what is missed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lodestar.pipeline.headline.cell import CellResult
from lodestar.pipeline.headline.plan import Spec
from lodestar.pipeline.headline.summary import convergence_rows, summary_rows


def cell(spec: Spec, ratio: float, half: float | None = None) -> CellResult:
    """A cell in which the policy is so many times as fast as every other, on average and in the tail."""
    logs = {
        ("lodestar-online", "default", versus, statistic, part): np.full(
            21, np.log(ratio if part == "whole" or half is None else half)
        )
        for versus in ("baseline", "best", "best-by-mean")
        for statistic in ("mean", "p99")
        for part in ("whole", "half")
    }
    return CellResult(spec, [], [], [], logs, 0.0)


def claim(results: list[CellResult], scope: str, versus: str, statistic: str = "mean") -> dict[str, Any]:
    return next(
        row
        for row in summary_rows(results)
        if (row["scope"], row["versus"], row["statistic"]) == (scope, versus, statistic)
    )


def test_a_mean_over_cells_may_hide_a_bad_cell_but_never_more_than_3_percent_behind_may_not() -> None:
    results = [cell(Spec("sharing09", "homogeneous", 0.5), 0.96), cell(Spec("sharing28", "homogeneous", 0.5), 4.0)]
    overall = claim(results, "all cells", "baseline")
    assert overall["whole_ratio"] == pytest.approx((0.96 * 4.0) ** 0.5)
    assert overall["met"]
    behind = claim(results, "homogeneous", "best")
    assert (behind["over"], behind["whole_worst"], behind["met"]) == ("worst", pytest.approx(0.96), False)
    assert behind["whole_worst_cell"] == "sharing09, 50 %"


def test_what_comes_after_a_change_is_judged_by_the_second_half() -> None:
    for whole, half, met in ((2.0, 1.1, False), (0.9, 1.2, True)):
        row = claim(
            [cell(Spec("failure", "heterogeneous", 0.75), whole, half)], "after the failure, heterogeneous", "best"
        )
        assert (row["part"], row["met"]) == ("half", met)


def test_only_the_highest_load_is_near_saturation() -> None:
    results = [cell(Spec("sharing09", "heterogeneous", load), ratio) for load, ratio in ((0.5, 3.0), (0.9, 1.1))]
    row = claim(results, "near saturation, heterogeneous", "best")
    assert (row["cells"], row["whole_ratio"], row["met"]) == (1, pytest.approx(1.1), False)


def learned(policy: str, worst_s: float | None, never: int = 0) -> dict[str, Any]:
    row: dict[str, Any] = {"policy": policy, "seeds": 5, "workload": "sharing09"}
    for name in ("at_baseline_s", "steady_s"):
        row |= {name: 50.0, f"{name}_worst": worst_s, f"{name}_never": never}
    return row | {"adapted_s": None, "adapted_s_worst": None, "adapted_s_never": 0}


def test_convergence_is_met_when_the_slowest_run_of_all_cells_is_within_five_minutes() -> None:
    for worst_s, never, met in ((299.0, 0, True), (301.0, 0, False), (None, 1, False)):
        rows = [learned("lodestar-online", 60.0), learned("lodestar-online", worst_s, never)]
        row = next(each for each in convergence_rows(rows) if each["what"] == "steady_s")
        assert (row["runs"], row["never"], row["worst_s"], row["met"]) == (10, never, worst_s, met)


def test_where_nothing_changes_there_is_nothing_to_adapt_to() -> None:
    row = next(row for row in convergence_rows([learned("lodestar-online", 60.0)]) if row["what"] == "adapted_s")
    assert (row["runs"], row["median_s"], row["worst_s"], row["met"]) == (0, None, None, None)
