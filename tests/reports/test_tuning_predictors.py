from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from lodestar.reports.tuning_predictors import finalists_grid, tune_tables


def finalist(number: int, mean: float, less: tuple[float, float] | None) -> dict[str, Any]:
    ends = None if less is None else {"mean": sum(less) / 2, "low": less[0], "high": less[1]}
    return {
        "number": number,
        "is_default": less is None,
        "searched": mean - 0.01,
        "mean": mean,
        "seed_sd": 0.002,
        "by_seed": [mean] * 5,
        "less_default": ends,
        "decision_us": 14.0,
    }


@pytest.fixture
def report() -> dict[str, Any]:
    return {
        "dataset": "sharing09",
        "target": "ttft_ms",
        "metric": "mae",
        "meaning": "mean absolute error in % of linear regression's",
        "study": "sharing09-ttft_ms-mae-seed0-ab",
        "rows": 1743,
        "trials": 20,
        "trials_before": 12,
        "pruned": 3,
        "infeasible": 2,
        "interrupted": 1,
        "best_value": 0.9568,
        "default_value": 0.9588,
        "finalists": [finalist(7, 0.95, (-0.02, -0.01)), finalist(0, 0.97, None), finalist(4, 0.99, (0.01, 0.03))],
        "reason": "trial 7 less defaults −2.00 to −1.00 points with fresh seeds",
        "is_default": False,
        "best_parameters": {"num_leaves": 12, "window_requests": None, "features": ["prompt_tokens"]},
        "newest": {"trial": 7, "best": 0.96, "defaults": 0.98, "low": -0.03, "high": -0.01},
        "decision": {"limit_us": 100.0, "estimated_us": 14.0, "measured_us": 12.5},
        "training": {
            "dataset": "sharing09",
            "version": None,
            "targets": {},
            "skipped": {},
            "notes": {},
            "seconds": 1.0,
        },
    }


def drawn(report: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(tune_tables(report))
    return " ".join(console.export_text().split())


def test_a_search_tells_what_was_tried_and_who_won(report: dict[str, Any]) -> None:
    text = drawn(report)
    assert "TTFT of sharing09: 20 trials; mean absolute error in % of linear regression's" in text
    assert "12 before this call, 3 stopped early, 2 too slow, 1 left unfinished" in text
    assert "95.68 %, defaults 95.88 %" in text
    assert "trial 7 96.00 %, defaults 98.00 %; difference −3.00 to −1.00" in text
    assert "12.5 µs measured, 14.0 µs estimated, 100 µs allowed" in text
    assert "num_leaves 12" in text


def test_defaults_that_were_kept_are_called_so(report: dict[str, Any]) -> None:
    kept = report | {"is_default": True, "newest": {"defaults": 0.98}, "default_value": None}
    text = drawn(kept)
    assert "Winner: the defaults" in text
    assert "unseen requests defaults 98.00 %" in text
    assert "95.68 %, defaults – %" in text


def test_each_finalist_has_its_noise_and_its_distance_to_the_defaults(report: dict[str, Any]) -> None:
    rows = finalists_grid(report["finalists"]).rows
    assert [row[0].text for row in rows] == ["7", "defaults", "4"]
    assert [row[2].mark for row in rows] == ["best", "", ""]
    assert [(row[4].text, row[4].mark) for row in rows] == [
        ("−2.00 to −1.00", "good"),
        ("–", ""),
        ("+1.00 to +3.00", "bad"),
    ]
