"""A calibration in the terminal shows how far to trust it, what is told and what not, and which instance is unlike."""

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
        "fitted_part": {"requests": 700, "ttft_ms": {**ERRORS, "requests": 700, "mean_error": 0.0123}, "tpot_ms": None},
        "held_out": {"requests": 300, "ttft_ms": ERRORS, "tpot_ms": None},
        "trust": {"verdict": "trusted", "reasons": [], "gates": [], "notes": []},
        "next": "lodestar replay mine --policy NAME",
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
    for said in ("−2.1", "+1.2", "+8.7", "7.2", "noise of 5% assumed", "w/clusters/mine.json"):
        assert said in text, said


def test_a_preset_has_neither_speeds_nor_errors() -> None:
    text = drawn(
        found(speeds=[], held_out={"requests": 0}, fitted_part={"requests": 0}, loss=None, intervals={}, identified={})
    )
    assert "multiples" not in text
    assert "Errors" not in text


def test_the_verdict_comes_first_with_its_reasons_and_last_again_where_it_is_bad() -> None:
    bad = {"verdict": "untrusted", "reasons": ["the mean is off"], "gates": [], "notes": []}
    lines = [line for line in drawn(found(trust=bad, next="log more")).splitlines() if line.strip()]
    assert lines[1].startswith(" UNTRUSTED ")
    assert lines[2] == "  · the mean is off"
    assert lines[3] == "identified: 1 of 2 settings; not request overhead"
    assert [line.split()[0] for line in lines[-2:]] == ["UNTRUSTED", "next:"]
    assert lines[-1] == "next: log more"


def test_what_else_the_gates_say_stands_with_the_notes() -> None:
    noted = {"verdict": "trusted", "reasons": [], "gates": [], "notes": ["other names its instances differently"]}
    assert "  · other names its instances differently" in drawn(found(trust=noted)).splitlines()


def test_a_trusted_calibration_says_so_once_and_how_to_replay() -> None:
    lines = drawn(found()).splitlines()
    assert sum("TRUSTED" in line for line in lines) == 1
    assert lines[4] == "next: lodestar replay mine --policy NAME"


def test_where_nothing_was_fitted_nothing_is_said_to_be_identified() -> None:
    trust = {"verdict": "not judged", "reasons": ["4 requests"], "gates": [], "notes": []}
    assert "identified: nothing, as nothing was fitted" in drawn(found(trust=trust, identified={}))
