"""A calibration in the terminal shows what is told, what is not, and which instance is unlike."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from lodestar.models.engine import EngineModel
from lodestar.reports.calibration import calibration_tables

ERRORS = {
    "requests": 300,
    "never": 0,
    "mean_error": -0.0213,
    "p50_error": 0.004,
    "p99_error": 0.087,
    "median_absolute_error": 0.0721,
}


def found(**changes: Any) -> dict[str, Any]:
    return {
        "dataset": "mine",
        "source": "latencies of mine",
        "engine": EngineModel().to_dict(),
        "identified": {"prompt_token_ms": True, "request_overhead_ms": False},
        "intervals": {"prompt_token_ms": [0.016, 0.0185]},
        "speeds": [
            {"instance": "pod-a", "estimate": 1.49, "ci95": [1.46, 1.52], "used": 1.488},
            {"instance": "pod-b", "estimate": None, "ci95": None, "used": 1.0},
        ],
        "speeds_p_value": 1e-9,
        "loss": 0.31,
        "evaluations": 750,
        "notes": ["noise of 5% assumed"],
        "held_out": {"requests": 300, "ttft_ms": ERRORS, "tpot_ms": None},
        "files": ["w/clusters/mine.json"],
        **changes,
    }


def drawn(document: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(calibration_tables(document))
    return console.export_text()


def test_coefficients_stand_with_their_intervals_and_whether_the_log_tells_them() -> None:
    row = next(line for line in drawn(found()).splitlines() if line.startswith("prompt token"))
    assert all(figure in row for figure in ("17.3", "16.0", "18.5", "µs a token"))
    assert "yes" in row
    overhead = next(line for line in drawn(found()).splitlines() if line.startswith("request overhead"))
    assert "no" in overhead


def test_a_slow_instance_and_one_without_latencies_are_shown() -> None:
    lines = drawn(found()).splitlines()
    assert any("pod-a" in line and "1.488" in line for line in lines)
    assert any("pod-b" in line and "–" in line for line in lines)
    assert any("p = 1e-09" in line for line in lines)


def test_errors_notes_and_files_are_shown() -> None:
    text = drawn(found())
    for said in ("−2.1", "+8.7", "7.2", "noise of 5% assumed", "w/clusters/mine.json"):
        assert said in text, said


def test_a_preset_has_neither_speeds_nor_errors() -> None:
    text = drawn(found(speeds=[], held_out={"requests": 0}, loss=None, intervals={}, identified={}))
    assert "multiples" not in text
    assert "Errors" not in text
