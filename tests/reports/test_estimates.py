from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from lodestar.reports.beyond_one_step import derivatives_grid
from lodestar.reports.differences import differences_grid
from lodestar.reports.estimate_metrics import estimate_metrics
from lodestar.reports.estimate_tables import estimate_tables
from lodestar.reports.estimates import estimators_grid
from lodestar.reports.gap import gap_grid
from lodestar.reports.tails import tails_grid
from lodestar.reports.weights import checks_grid, weights_grid

POLICIES = ("random", "least-request")
WEIGH = "the logged decisions weigh like 350 of 2,367 (ESS 15 %)"


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
        "verdict": {"word": word, "sentence": f"{word}: {WEIGH}", "no_tails": ["p99"]},
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
        "miscalibrated": None,
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
        "slo": {"ttft_ms": 1500.0, "tpot_ms": 200.0},
        "window": {"requests": 2367, "warmup_requests": 124, "why": "the first 124 requests meet idle engines"},
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
        "one_step_notes": [],
        "inferred": {},
        **changes,
    }


def drawn(document: dict[str, Any], width: int = 80, whole: bool = False) -> str:
    out = StringIO()
    Console(file=out, width=width).print(estimate_tables(document, whole))
    return out.getvalue()


def words(document: dict[str, Any], whole: bool = False) -> str:
    return " ".join(drawn(document, 120, whole).split())


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
    split = {"feedback_ms": 587.0, "log_replay_error_ms": -100.0, "simulator_ms": -60.0, "made_by": "round-robin"}
    sure, unsure = (gap("random", **split, feedback_told=told) for told in (True, False))
    rows = gap_grid([sure, unsure], "trusted").rows
    assert [cell.text for cell in rows[0][3:]] == ["+427", "+587", "−100", "−60", "2.1", "978"]
    assert [cell.note for cell in rows[0][7:]] == ["log 1.8", "log 1,831"]
    assert rows[1][4].text == "+587?"


def test_the_gap_says_which_policies_have_the_predictor_alone() -> None:
    grid = gap_grid([gap("random", estimator="dr"), gap("least-request", estimator="dm")], "trusted")
    assert "One-step (doubly robust; of least-request dm, the predictor alone): " in " ".join(grid.notes)


def test_a_corrected_value_stands_below_the_raw_one_and_is_doubted_where_caches_differ() -> None:
    (plain,) = gap_grid([gap("random")], "trusted").rows
    (doubted,) = gap_grid([gap("random", ratio_doubted=True)], "trusted").rows
    assert plain[2].text == doubted[2].text == "1,982"
    assert plain[2].note.endswith("× 0.90 = 1,784")
    assert doubted[2].note.endswith("× 0.90 = 1,784?")


def test_an_estimator_that_says_nothing_of_a_policy_has_a_dash() -> None:
    grid = estimators_grid([estimate("random", "dm"), estimate("random", "mipw"), estimate("least-request", "dm")])
    assert [cell.text for cell in grid.columns[2].cells] == ["1,555", "–"]


def test_every_note_of_an_estimate_is_printed_once() -> None:
    shared, cut = "the policy shares none of the logged decisions", "lambda_ 0.1 cuts off 30 % of the weight"
    rows = [
        estimate("random", "dm", notes=["the interval does not contain the predictor's own error"]),
        estimate("random", "sg-ipw", lambda_=0.1, notes=[shared, cut]),
        estimate("least-request", "dm", notes=["the interval does not contain the predictor's own error"]),
        estimate("least-request", "dr", notes=[shared]),
        estimate("least-request", "sg-ipw", notes=[shared]),
    ]
    grid = estimators_grid(rows)
    assert grid.notes[-4:-1] == [
        "dm of every policy: the interval does not contain the predictor's own error.",
        "sg-ipw of random; dr, sg-ipw of least-request: the policy shares none of the logged decisions.",
        "sg-ipw of random: λ 0.1 cuts off 30 % of the weight.",
    ]


def test_differences_are_marked_by_their_interval_and_the_gate_says_when() -> None:
    grid = differences_grid(found()["one_step_differences"], "random", 1500.0)
    baseline, other = grid.rows
    assert grid.columns[4].title.replace("\N{NO-BREAK SPACE}", " ") == "TTFT ≤ 1,500 ms more often"
    assert (baseline[1].text, baseline[1].note) == ("–", "baseline")
    assert (other[1].text, other[1].mark) == ("−1,216", "good")
    assert (other[4].text, other[4].note) == ("yes", "from 1,010 on")


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
    doubted = found(gap=[gap("random", ratio_doubted=True), gap("least-request")])
    assert "random/ttft_ms_mean_ratio_corrected" not in estimate_metrics(doubted)  # type: ignore[arg-type]
    no_cause = found(gap=[gap("random", feedback_told=False)])
    assert "gap/random/feedback_ms" not in estimate_metrics(no_cause)  # type: ignore[arg-type]
    refused = found(one_step_tails=[tail("p99", value=None)])
    assert "one_step/random/p99_dr" not in estimate_metrics(refused)  # type: ignore[arg-type]


def test_a_refused_tail_has_no_number_and_one_reason_for_all_it_is_of() -> None:
    none = {"value": None, "low": None, "high": None, "tail_ess": 3.0, "refused": "fewer than thirty beyond p99"}
    rows = [tail("p50"), tail("p99", **none), tail("p50", "snipw"), tail("p99", "snipw", **none)]
    rows.append(tail("p99", "dm", policy="least-request"))
    grid = tails_grid(rows)
    assert [column.title for column in grid.columns] == ["policy", "P50", "P99"]
    assert (grid.rows[0][2].text, grid.rows[0][2].note) == ("–", "refused")
    assert grid.warnings == []  # a refusal is no news
    assert grid.notes[-1] == "random: no P99 by dr, snipw: the requests beyond it weigh like fewer than 30."


def test_a_measure_that_is_refused_everywhere_has_no_column() -> None:
    none = {"value": None, "low": None, "high": None, "refused": "p99 lies beyond 0.98"}
    grid = tails_grid([tail("p50"), tail("p99", **none)])
    assert [column.title for column in grid.columns] == ["policy", "P50"]
    assert grid.notes[-1] == "random: no P99 by dr: it lies beyond 0.98."


def test_the_share_within_the_slo_says_which_limit_it_is() -> None:
    grid = tails_grid([tail("slo", value=0.756, low=0.647, high=0.865)], 1500.0)
    assert (grid.columns[1].title.replace("\N{NO-BREAK SPACE}", " "), grid.columns[1].unit) == (
        "TTFT ≤ 1,500 ms",
        "% met",
    )
    assert grid.rows[0][1].text == "75.6"


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


def test_a_verdict_that_policies_share_is_said_once() -> None:
    grid = weights_grid([diagnostics("random"), diagnostics("least-request"), diagnostics("slow", "direct only")])
    assert grid.notes[0] == f"random, least-request: usable: {WEIGH}."
    assert grid.warnings == [f"slow: direct only: {WEIGH}."]
    assert words(found()).count("weigh like 350 of 2,367") == 1


def test_which_estimator_to_read_follows_from_what_is_there() -> None:
    dm, dr = estimate("random", "dm"), estimate("least-request", "dr")
    unlogged = " ".join(estimators_grid([dm]).notes)
    assert "Read dr" not in unlogged
    assert "Of random only dm, the predictor alone: the log has no, or too few, propensities" in unlogged
    mixed = " ".join(estimators_grid([dm, dr], judged=["random", "least-request"]).notes)
    assert "Read dr first" in mixed
    assert "random: only dm, the predictor alone; the verdict on the weights says why." in mixed


def test_the_brief_output_leaves_out_what_all_shows() -> None:
    steps = [estimate("random", name) for name in ("dm", "ipw", "snipw", "dr", "mipw")]
    tails = [tail("p50", name) for name in ("snipw", "dm", "dr")]
    inferred = {"arrivals": "from the order", "blocks": "from hits", "prefill_tokens": "from hits"}
    document = found(one_step=steps, one_step_tails=tails, inferred=inferred)
    brief, whole = drawn(document, 120), drawn(document, 120, whole=True)
    for title in ("mipw", "Checks of the propensities", "Closed-loop derivative", "from the order"):
        assert title in whole
        assert title not in brief
    assert len([line for line in brief.splitlines() if line.startswith("snipw")]) == 1
    assert len([line for line in whole.splitlines() if line.startswith("snipw")]) == 2
    assert whole.count("from hits") == 1
    assert "arrivals, blocks, prefill_tokens" in brief


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Next: lodestar report writes every table"),
        ({"trust": {"verdict": "untrusted", "reasons": []}}, "act on no closed loop before they pass"),
        ({"trust": None, "gap": [], "policies": []}, "Next: leave out --one-step-only"),
    ],
)
def test_the_last_line_says_what_to_do_next(changes: dict[str, Any], said: str) -> None:
    last = drawn(found(**changes), 120).rstrip().splitlines()[-1]
    assert last.startswith("Next: ")
    assert said in last


def test_every_note_is_a_sentence_on_a_line_of_its_own() -> None:
    text = drawn(found(one_step_notes=["the first", "the second"]), 120)
    assert "The first.\nThe second.\n" in text


def test_one_seed_has_no_interval_of_the_closed_loop_and_a_reason_before_the_numbers() -> None:
    rows = [gap(policy, closed_loop_ci95=None, ratio_corrected_ci95=None) for policy in POLICIES]
    how = {"how": "no intervals and no ranks: one seed does not tell how far off the next would be"}
    text = drawn(found(gap=rows, seeds=1, intervals=how), 120)
    assert "1,779–2,194" not in text
    assert text.index("Closed loop: no intervals and no ranks: one seed") < text.index("One step beside")
    several = words(found(seeds=20, intervals={"how": "95 % from 1000 draws of 20 seeds"}))
    assert "Closed-loop intervals: 95 % from 1000 draws of 20 seeds." in several


def test_what_a_question_mark_means_is_said_where_there_is_one() -> None:
    assert "?: not to be relied on" not in words(found())
    assert "?: not to be relied on" in words(found(gap=[gap("random", ratio_doubted=True)]))
    assert "?: not to be relied on" in words(found(gap=[gap("random", feedback_told=False)]))


def test_how_numbers_are_made_is_for_all_and_the_report() -> None:
    made = ("(Σw)² / Σw²", "both in the simulator, less the same of what made the log")
    assert not any(each in words(found()) for each in made)
    assert all(each in words(found(), whole=True) for each in made)


def test_requests_that_do_not_count_have_a_reason() -> None:
    assert "2,367 of 2,491 requests, 7 instances Not counted: the first 124 requests meet idle engines." in words(
        found()
    )


def test_derivatives_show_both_ends_and_name_whose_note_it_is() -> None:
    grid = derivatives_grid([path("random"), path("least-request", ("the slope", "no plateau up to 32 requests"))])
    assert [cell.text for cell in grid.rows[0]] == ["random", "−1,161", "−900", "16"]
    assert [cell.note for cell in grid.rows[0]] == ["", "± 266", "± 600", ""]
    (restless,) = derivatives_grid([path("random", horizon=32)]).rows
    assert (restless[2].text, restless[2].note) == ("–", "no plateau")
    assert grid.notes[-2:] == ["The slope.", "least-request: no plateau up to 32 requests."]
