from __future__ import annotations

from typing import Any

from lodestar.reports.evidence import gates_grid, measured_grid
from lodestar.reports.evidence_metrics import evidence_metrics
from lodestar.reports.result import Result, read_result


def result_with(make_replay, verdict: str = "trusted", **changes: Any) -> Result:
    result = read_result(make_replay(verdict=verdict))
    result.update(changes)  # type: ignore[typeddict-item]
    return result


def order(right: bool) -> dict[str, Any]:
    return {"measured": ["random", "prefix-arm"], "predicted": ["prefix-arm", "random"], "right": right}


def test_a_gate_shows_what_luck_gives_and_why_its_limit_is_what_it_is(make_replay) -> None:
    why = "luck alone goes up to 0.461, so that no engine can be held to 0.10; only larger errors show"
    gate = {"name": "free_run_ttft_mean_error", "value": 0.2, "limit": 0.461, "passed": True, "noise_floor": 0.461}
    trust = {
        "verdict": "trusted",
        "reasons": [],
        "gates": [{**gate, "why": why}],
        "notes": ["b has 5 instances, not 4", "arm_b_mean_error would be 0.006"],
    }
    grid = gates_grid(result_with(make_replay, trust=trust))
    (name, value, luck, limit, passed) = grid.rows[0]
    assert (name.note, value.text, luck.text, limit.text, passed.text) == (why, "0.200", "0.461", "≤ 0.461", "passed")
    assert grid.notes[-2:] == ["B has 5 instances, not 4.", "arm_b_mean_error would be 0.006."]


def test_a_prediction_shows_what_is_known_beside_it_and_no_empty_columns(make_replay) -> None:
    result = result_with(make_replay)
    assert len(measured_grid(result).columns) == 5
    row = result["measured"][1]
    row["one_step_snipw_ms"], row["one_step_snipw_error"] = 1500.0, -0.25
    row["predicted_router_hit_ratio"], row["router_hit_ratio"] = 0.31, 0.42
    grid = measured_grid(result)
    assert [column.title for column in grid.columns[5:]] == ["router hits", "one-step SNIPW"]
    assert (grid.rows[1][5].text, grid.rows[1][5].note) == ("31.0", "42.0")
    assert (grid.rows[1][6].text, grid.rows[1][6].note) == ("1,500", "−25.0")
    assert grid.rows[0][6].text == "–"


def test_a_wrong_order_of_arms_is_a_warning_and_a_right_one_a_note(make_replay) -> None:
    right = measured_grid(result_with(make_replay, measured_order=order(right=True)))
    assert right.warnings == []
    assert right.notes[-1].endswith("random > prefix-arm; each replayed with its own choices: the same order.")


def test_the_wrong_order_names_both(make_replay) -> None:
    (warning,) = measured_grid(result_with(make_replay, measured_order=order(right=False))).warnings
    assert warning.endswith("choices: prefix-arm > random. The order is wrong.")


def test_errors_that_are_the_groups_fault_are_told_apart(make_replay) -> None:
    result = result_with(make_replay)
    row = result["measured"][-1]
    row["error_mean"], row["error_mean_hits_known"], row["predicted_mean_hits_known_ms"] = 0.189, 0.025, 1021.0
    assert measured_grid(result).warnings == []
    row["groups_matter"] = True
    grid = measured_grid(result)
    assert grid.columns[5].title == "its hits known"
    assert (grid.rows[-1][5].text, grid.rows[-1][5].note) == ("1,021", "+2.5")
    (warning,) = grid.warnings
    assert evidence_metrics(result)["measured/prefix-arm/choices of prefix-arm/error_mean_hits_known"] == 0.025
    assert warning.startswith("The choices of prefix-arm are off by +18.9 %, and by +2.5 % with the prefix groups that")
    assert warning.endswith("one log leaves those groups open, so that only the second is the engines' or luck.")


def test_untrusted_predictions_are_marked_row_by_row(make_replay) -> None:
    grid = measured_grid(result_with(make_replay, verdict="untrusted"))
    assert all(row[0].note == "in prefix-arm\nuntrusted" and row[0].mark == "bad" for row in grid.rows)
    assert grid.title.endswith("untrusted")


def test_gates_and_measured_errors_are_metrics(make_replay) -> None:
    found = evidence_metrics(result_with(make_replay, verdict="untrusted", measured_order=order(right=False)))
    assert found["gate/forced_ttft_mean_error"] == 0.41
    assert found["gate/forced_ttft_mean_error/passed"] == 0.0
    assert found["gate/forced_ttft_rank_correlation/limit"] == 0.8
    assert "measured/prefix-arm/random/error_mean" in found
    assert found["measured/order_right"] == 0.0
