from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from lodestar.reports.beyond_one_step import derivatives_grid, router_test_grid
from lodestar.reports.estimate_metrics import estimate_metrics
from lodestar.reports.estimate_tables import estimate_tables
from lodestar.reports.estimates import differences_grid, estimators_grid, gap_grid
from lodestar.reports.tails import tails_grid
from lodestar.reports.weights import checks_grid, weights_grid

POLICIES = ("random", "least-request")


def gap(policy: str, **changes: Any) -> dict[str, Any]:
    return {
        "policy": policy,
        "one_step_ms": 1555.0,
        "one_step_ci95": [1335.0, 1776.0],
        "closed_loop_ms": 1982.0,
        "closed_loop_ci95": [1779.0, 2194.0],
        "gap_ms": 427.0,
        "feedback_ms": 587.0,
        "simulator_ms": -160.0,
        "logged_hit_ratio": 0.018,
        "replayed_hit_ratio": 0.021,
        "logged_queue_ms": 1831.0,
        "replayed_queue_ms": 978.0,
        "ratio": 0.9,
        "ratio_corrected_ms": 1783.8,
        "ratio_corrected_ci95": [1600.0, 2000.0],
        "ratio_doubted": False,
        "sentence": f"{policy}: 1,555 ms one step, 1,982 closed loop.",
        **changes,
    }


def estimate(policy: str, estimator: str, **changes: Any) -> dict[str, Any]:
    return {
        "policy": policy,
        "estimator": estimator,
        "estimand": "one-step, logged states",
        "value_ms": 1555.0,
        "se_ms": 100.0,
        "ci95_ms": [1335.0, 1776.0],
        "lambda_": None,
        "notes": [],
        **changes,
    }


def tail(measure: str, estimator: str = "dr", policy: str = "random", **changes: Any) -> dict[str, Any]:
    return {
        "policy": policy,
        "measure": measure,
        "estimator": estimator,
        "value": 2168.0,
        "low": 1932.0,
        "high": 2425.0,
        "ess": 350.0,
        "tail_ess": 80.0,
        "refused": None,
        **changes,
    }


def family(name: str, p: float = 0.5) -> dict[str, Any]:
    return {"name": name, "tests": [{"name": "instance 2", "rows": 340, "off": -0.083, "z": -1.7, "p": p}]}


def diagnostics(policy: str, word: str = "usable", z: float = -0.3) -> dict[str, Any]:
    return {
        "policy": policy,
        "verdict": {"word": word, "sentence": f"{word}: 350 of 2,367 requests count (ESS 15 %)", "no_tails": ["p99"]},
        "weights": {
            "decisions": 2367,
            "ess": 350.0,
            "tail_ess": {"p90": 41.0, "p99": 3.0},
            "mean": 0.982,
            "z": z,
            "tested": True,
            "largest": 7.0,
            "top_ratio": 0.07,
        },
        "support": {"unsupported_ratio": 0.0},
        "prediction": {"correction": 38.0, "correction_se": 34.0},
        "propensities": {"families": [family("pick rate by instance")]},
        "balance": [family("weight by load", 0.004)],
    }


def path(policy: str, notes: tuple[str, ...] = ("the slope",), horizon: int = 16) -> dict[str, Any]:
    steps = [(1, -1161.0, 133.0), (16, -900.0, 300.0), (32, -910.0, 500.0)]
    along = [{"horizon": at, "value": value, "se": se} for at, value, se in steps]
    return {"policy": policy, "value": -900.0, "se": 300.0, "horizon": horizon, "path": along, "notes": list(notes)}


def closed_loop(policy: str, *flags: str) -> dict[str, Any]:
    return {
        "policy": policy,
        "ttft_ms": {"mean": 1982.0, "ci95": [1779.0, 2194.0]},
        "hit_ratio": 0.02,
        "flags": list(flags),
    }


def found(**changes: Any) -> dict[str, Any]:
    differences = [
        {"policy": "random", "difference": 0.0, "lower": 0.0, "upper": 0.0, "p_holm": None, "ranks": [0.0, 1.0]},
        {
            "policy": "least-request",
            "difference": -1216.0,
            "lower": -1433.0,
            "upper": -999.0,
            "p_holm": 0.0001,
            "ranks": [1.0, 0.0],
            "slo_gate": {"verdict": "below", "decisions": 1010, "estimand": "…"},
        },
    ]
    return {
        "dataset": "mine",
        "baseline": "random",
        "requests": 2491,
        "instances": 7,
        "window": {"requests": 2367},
        "trust": {"verdict": "trusted", "reasons": []},
        "gap": [gap(policy) for policy in POLICIES],
        "gap_notes": [],
        "policies": [closed_loop(policy) for policy in POLICIES],
        "one_step": [estimate(policy, name) for policy in POLICIES for name in ("dm", "dr")],
        "one_step_differences": differences,
        "one_step_tails": [tail("p50"), tail("slo", value=0.756, low=0.647, high=0.865)],
        "one_step_diagnostics": [diagnostics(policy) for policy in POLICIES],
        "derivatives": [path(policy) for policy in POLICIES],
        "test": None,
        "one_step_note": None,
        "inferred": {},
        **changes,
    }


def drawn(document: dict[str, Any], width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width).print(estimate_tables(document))
    return out.getvalue()


def test_one_step_never_stands_without_the_closed_loop_or_why_there_is_none() -> None:
    whole = drawn(found())
    assert whole.index("One step beside closed loop (trusted)") < whole.index("One-step, logged states: a diagnostic")
    alone = drawn(
        found(gap=[], policies=[], trust=None, gap_notes=["no closed loop was asked for: these are no performance"])
    )
    assert "No closed loop was asked for: these are no performance." in alone
    for text in (whole, alone):
        assert "not the policy's performance" in " ".join(text.split())


def test_a_policy_without_a_one_step_value_has_its_closed_loop_and_its_flags() -> None:
    policies = [*(closed_loop(policy) for policy in POLICIES), closed_loop("lodestar-online", "the queue grows")]
    text = drawn(found(policies=policies))
    table = text[text.index("Closed loop without one step beside it (trusted)") : text.index("One step beside")]
    assert "lodestar-online" in table
    assert "1,779–2,194" in table
    assert "least-request" not in table
    assert "lodestar-online: the queue grows." in text


@pytest.mark.parametrize("width", [80, 120])
def test_no_name_or_number_is_cut_off(width: int) -> None:
    text = drawn(found(), width)
    assert "…" not in text
    assert "least-request" in text
    assert "1,335–1,776" in text


def test_an_untrusted_closed_loop_is_marked() -> None:
    grid = gap_grid([gap("random")], "untrusted")
    assert grid.title == "One step beside closed loop (untrusted), mean TTFT"
    assert grid.rows[0][2].mark == "bad"


def test_the_gap_says_what_is_by_feedback_and_what_by_the_simulator() -> None:
    (row,) = gap_grid([gap("random")], "trusted").rows
    assert [cell.text for cell in row[3:]] == ["+427", "+587", "2.1", "978"]
    assert [cell.note for cell in row[4:]] == ["sim −160", "log 1.8", "log 1,831"]


def test_a_corrected_value_stands_below_the_raw_one_and_is_doubted_where_caches_differ() -> None:
    (plain,) = gap_grid([gap("random")], "trusted").rows
    (doubted,) = gap_grid([gap("random", ratio_doubted=True)], "trusted").rows
    assert plain[2].text == doubted[2].text == "1,982"
    assert plain[2].note.endswith("× 0.90 = 1,784")
    assert doubted[2].note.endswith("× 0.90 = 1,784?")


def test_an_estimator_that_says_nothing_of_a_policy_has_a_dash() -> None:
    grid = estimators_grid([estimate("random", "dm"), estimate("random", "mipw"), estimate("least-request", "dm")])
    assert [cell.text for cell in grid.columns[2].cells] == ["1,555", "–"]


def test_weight_that_was_cut_off_is_a_warning() -> None:
    said = "lambda_ 0.1 cuts off 30 % of the weight and lowers the value by 20, which flatters the policy"
    grid = estimators_grid([estimate("random", "sg-ipw", lambda_=0.1, notes=[said])])
    assert grid.warnings == [f"sg-ipw of random: {said}.".replace("lambda_", "λ")]
    mild = said.replace("which flatters", "which does not flatter")
    grid = estimators_grid([estimate("random", "sg-ipw", lambda_=0.1, notes=[mild])])
    assert grid.warnings == []
    assert grid.notes[-1].endswith("which does not flatter the policy.")


def test_differences_are_marked_by_their_interval_and_the_gate_says_when() -> None:
    baseline, other = differences_grid(found()["one_step_differences"], "random").rows
    assert (baseline[1].text, baseline[1].note) == ("–", "baseline")
    assert (other[1].text, other[1].mark) == ("−1,216", "good")
    assert (other[4].text, other[4].note) == ("yes", "after 1,010")


def test_estimates_are_metrics_apart_from_the_closed_loop() -> None:
    named = estimate_metrics(found())  # type: ignore[arg-type]
    assert named["one_step/random/dr_ms"] == 1555.0
    assert named["one_step/random/ess"] == 350.0
    assert named["derivative/least-request/value_ms"] == -900.0
    assert named["gap/random/feedback_ms"] == 587.0
    assert [name for name in named if not name.startswith(("one_step/", "derivative/", "gap/"))] == [
        "random/ttft_ms_mean_ratio_corrected",
        "least-request/ttft_ms_mean_ratio_corrected",
    ]
    refused = found(one_step_tails=[tail("p99", value=None)])
    assert "one_step/random/p99_dr" not in estimate_metrics(refused)  # type: ignore[arg-type]


def test_a_refused_tail_has_no_number_and_one_reason_for_all_it_is_of() -> None:
    none = {"value": None, "low": None, "high": None, "tail_ess": 3.0, "refused": "fewer than thirty beyond p99"}
    rows = [tail("p50"), tail("p99", **none), tail("p50", "snipw"), tail("p99", "snipw", **none)]
    rows.append(tail("p99", "dm", policy="least-request"))
    grid = tails_grid(rows)
    assert [column.title for column in grid.columns] == ["policy", "P50", "P99"]
    assert (grid.rows[0][2].text, grid.rows[0][2].note) == ("–", "refused")
    assert grid.warnings == ["random: P99 by dr, P99 by snipw refused: fewer than 30 weighted requests lie beyond it."]


def test_a_measure_that_is_refused_everywhere_has_no_column() -> None:
    none = {"value": None, "low": None, "high": None, "refused": "p99 lies beyond 0.98"}
    grid = tails_grid([tail("p50"), tail("p99", **none)])
    assert [column.title for column in grid.columns] == ["policy", "P50"]
    assert "it lies beyond 0.98" in grid.warnings[0]


def test_doubted_propensities_are_marked() -> None:
    rows = weights_grid([diagnostics("random"), diagnostics("least-request", "not usable", z=6.0)]).rows
    assert [row[0].mark for row in rows] == ["good", "bad"]
    assert [row[2].mark for row in rows] == ["", "bad"]


def test_what_holds_for_the_log_is_told_once() -> None:
    grid = checks_grid([diagnostics(policy) for policy in POLICIES])
    assert [(row[0].text, row[1].text) for row in grid.rows] == [
        ("the log", "pick rate by instance"),
        ("random", "weight by load"),
        ("least-request", "weight by load"),
    ]
    assert [row[5].mark for row in grid.rows] == ["", "bad", "bad"]


def test_derivatives_show_both_ends_and_name_whose_note_it_is() -> None:
    grid = derivatives_grid([path("random"), path("least-request", ("the slope", "no plateau up to 32 requests"))])
    assert [cell.text for cell in grid.rows[0]] == ["random", "−1,161", "−900", "16"]
    assert [cell.note for cell in grid.rows[0]] == ["", "± 266", "± 600", ""]
    (restless,) = derivatives_grid([path("random", horizon=32)]).rows
    assert (restless[2].text, restless[2].note) == ("–", "no plateau")
    assert grid.notes[-2:] == ["The slope.", "least-request: no plateau up to 32 requests."]


@pytest.mark.parametrize(("design", "along"), [("per request", "horizon"), ("switchback", "burn_in")])
def test_a_test_of_two_routers_marks_the_answer(design: str, along: str) -> None:
    steps = [{along: 1, "value": -130.0, "se": 10.0}, {along: 64, "value": -76.0, "se": 32.0}]
    test = {"design": design, "a": "jsq", "b": "affinity", "value": -76.0, along: 64, "path": steps, "notes": ["n"]}
    grid = router_test_grid(test)
    assert grid.columns[1].title == "affinity − jsq"
    assert [cell.mark for cell in grid.columns[1].cells] == ["", "best"]
