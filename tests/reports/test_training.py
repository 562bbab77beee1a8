from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console, RenderableType

from lodestar.models.metrics import accuracy, by_load
from lodestar.reports.training import train_tables, tune_tables


def drawn(table: RenderableType) -> str:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


def metrics() -> dict[str, Any]:
    random = np.random.default_rng(1)
    measured = random.lognormal(7, 1, 200)
    predictions = {
        "model": measured * random.lognormal(0, 0.1, 200),
        "constant": np.full(200, 1000.0),
        "linear": measured * random.lognormal(0, 0.4, 200),
    }
    return {
        "rows_trained": 1632,
        "rows_held_out": 200,
        **{name: accuracy(measured, predicted) for name, predicted in predictions.items()},
        "quantiles": {"p90": {"pinball_ms": 12.0, "coverage": 0.906}},
        "by_load": by_load(measured, predictions, random.poisson(2.0, 200).astype(float)),
    }


@pytest.fixture
def report() -> dict[str, Any]:
    verdict = {"promoted": False, "reason": "worse than the current model", "rows": 200, "mae_ms": 2.0}
    fitted = {"mode": "fitted", "reason": "asked for", "promoted": False, "trees": 100, "window": {}, "run_id": "ab"}
    unchanged = {"mode": "unchanged", "reason": "nothing new", "promoted": False, "verdict": None, "trees": None}
    return {
        "dataset": "sharing09",
        "version": "63b96d40",
        "targets": {
            "ttft_ms": {**fitted, "verdict": verdict, "metrics": metrics()},
            "tpot_ms": {**unchanged, "window": None, "metrics": None},
        },
        "skipped": {"e2e_ms": "no E2E is logged"},
        "notes": {"arrivals": "inferred"},
        "seconds": 1.5,
    }


def test_a_simpler_predictor_that_did_better_is_named(report: dict[str, Any]) -> None:
    assert "better than the model" not in drawn(train_tables(report))
    found = report["targets"]["ttft_ms"]["metrics"]
    found["model"], found["linear"] = found["linear"], found["model"]
    assert "linear regression predicted TTFT better than the model" in drawn(train_tables(report)).replace("\n", " ")


def test_a_model_stands_beside_a_constant_and_linear_regression(report: dict[str, Any]) -> None:
    lines = drawn(train_tables(report)).splitlines()
    rows = [line.split()[0] for line in lines if line.startswith(("model ", "constant ", "linear "))]
    assert rows == ["model", "constant", "linear"]
    assert next(line for line in lines if line.startswith("predictor")).split()[:4] == ["predictor", "ms", "%", "ms"]


def test_errors_are_shown_by_load(report: dict[str, Any]) -> None:
    text = drawn(train_tables(report))
    slices = text.split("TTFT by load")[1].splitlines()
    assert [line.split()[0] for line in slices if line.startswith(("0 ", "1-2", "3-5", "6+"))] == [
        "0",
        "1-2",
        "3-5",
        "6+",
    ]


def test_a_refused_model_and_an_unchanged_one_say_why(report: dict[str, Any]) -> None:
    text = drawn(train_tables(report))
    assert "refused: worse than the current model; 100 trees" in text
    assert "TPOT unchanged: nothing new" in text
    assert "no E2E is logged" in text
    assert "P90 90.6 %" in text


def test_a_search_shows_the_best_parameters_and_the_defaults(report: dict[str, Any]) -> None:
    found = {
        "dataset": "sharing09",
        "target": "ttft_ms",
        "study": "sharing09-ttft_ms-ab",
        "trials": 20,
        "trials_before": 12,
        "pruned": 3,
        "interrupted": 1,
        "best_value": 0.9568,
        "default_value": 0.9588,
        "best_parameters": {"num_leaves": 12, "window_requests": None},
        "training": report,
    }
    text = drawn(tune_tables(found))
    assert "TTFT of sharing09: 20 trials" in text
    assert "1 left unfinished" in text
    assert "0.9568" in text
    assert "num_leaves" in text
    assert "refused: worse" in text
