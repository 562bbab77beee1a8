from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console, RenderableType

from lodestar.models.metrics import accuracy, by_load
from lodestar.reports.training import train_tables


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


def test_a_batch_tells_how_it_was_predicted_and_what_the_fit_brought(report: dict[str, Any]) -> None:
    losses = {"rows": 312, "mae_ms": 205.4, "log_loss": 0.1, "pinball_ms": 9.0, "coverage": 0.903}
    found = report["targets"]["ttft_ms"]
    found["batch"] = {
        "number": 7, "challenger": losses, "champion": losses | {"mae_ms": 250.0},
        "before": losses, "after": losses | {"mae_ms": 190.2},
    }  # fmt: skip
    found["window"] = {"stalls": 12}
    text = " ".join(drawn(train_tables(report)).split())
    assert "batch 7: 312 new requests predicted as they came: MAE 205.4 ms (the model in use: 250.0 ms)" in text
    assert "P90 covers 90.3 %" in text
    assert "MAE 205.4 ms before this fit, 190.2 ms after it" in text
    assert "12 requests took longer or shorter than anything explains" in text


def test_where_all_were_cut_off_no_error_is_shown(report: dict[str, Any]) -> None:
    found = report["targets"]["ttft_ms"]
    nothing = dict.fromkeys(("mae_ms", "mape", "r2", "r2_log", "bias_ms"))
    found["metrics"] |= {"model": nothing, "constant": nothing, "linear": nothing, "by_load": []}
    losses = {"rows": 0, "mae_ms": None, "log_loss": None, "pinball_ms": None, "coverage": None}
    found["batch"] = {"number": 3, "challenger": losses, "champion": losses, "before": None, "after": None}
    text = " ".join(drawn(train_tables(report)).split())
    assert "all 200 newest requests were cut off: no error of TTFT is known" in text
    assert "batch 3: all new requests were cut off: no error is known" in text
    assert "by load" not in text
