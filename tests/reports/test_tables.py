from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from lodestar.reports.colours import looks
from lodestar.reports.comparisons import difference_figure
from lodestar.reports.datasets import ingest_tables, inspect_tables
from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.policies import policy_grid
from lodestar.reports.ranks import ranks_grid
from lodestar.reports.result import read_result
from lodestar.reports.tables import grid_table, replay_tables

SPREAD = {"mean": 2731.0, "p50": 2152.0, "p90": 5407.0, "p99": 12337.0, "max": 16736.0}
SUMMARY = {
    "dataset": "sharing09",
    "fingerprint": "ab12",
    "rows": 2491,
    "policy": "random",
    "sources": [
        {
            "file": "random.csv",
            "format": "lodestar-csv",
            "version": None,
            "licence": "Apache-2.0",
            "sha256": "ab",
            "rows": 2494,
            "rejected": 3,
            "clock": None,
            "first_at_s": None,
            "last_at_s": None,
            "notes": None,
        }
    ],
    "rates": [{"from_s": 0.0, "requests_per_s": 7.5, "prompt_tokens_per_s": 30e3}] * 2,
    "prefix_sharing": {"seen_ratio": 0.09, "requests_ratio": 0.9, "blocks": 5000, "requests_per_block": 9.0},
    "engine_samples": [],
    "time": {"clock": None, "origin": None, "span_s": 325.1, "rate_per_s": 7.66},
    "prompt_tokens": SPREAD,
    "output_tokens": None,
    "ttft_ms": SPREAD,
    "tpot_ms": None,
    "e2e_ms": None,
    "instances": [
        {
            "instance": "pod_0000",
            "gpu": None,
            "requests": 335,
            "share": 0.134,
            "inflight_mean": 15.7,
            "waiting_mean": 1.0,
            "kv_usage_mean": 0.31,
            "hit_mean": None,
            "ttft_mean_ms": 2144.0,
        }
    ],
    "coverage": {"arrived_at_s": 0.0, "ttft_ms": 1.0},
    "rejects": [
        {
            "reason": "wrong-value",
            "rows": 3,
            "first": [{"file": "a/random.csv", "line": 7, "record": None, "detail": "a is 0", "raw": "x"}],
        }
    ],
    "inferred": {"arrivals": "from the order of dispatch"},
    "propensity": {"known_ratio": 1.0, "note": "uniform over the candidates", "support": None},
    "allows": {
        "train": {"allowed": True, "why_not": None},
        "one-step": {"allowed": True, "why_not": None},
        "weighted one-step": {"allowed": False, "why_not": "no propensities are logged"},
    },
}


def drawn(table: RenderableType, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


def without_breaks(text: str) -> str:
    return " ".join(text.split())


def without_spaces(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("width", [80, 120])
def test_every_number_of_the_policy_table_fits(make_replay, width: int) -> None:
    result = read_result(make_replay())
    text = drawn(replay_tables(result), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    for policy in result["policies"]:
        assert policy["policy"] in without_spaces(text) or width == 80
        seeds = policy["over_seeds"]
        single = (policy["ttft_ms"]["mean"], policy["e2e_ms"]["mean"])
        ranges = (seeds["ttft_ms"]["min"], seeds["ttft_ms"]["max"], seeds["e2e_ms"]["max"])
        for value in (policy["ttft_ms"]["p99"], *(ranges if policy["path_dependent"] else single)):
            assert f"{value:,.0f}" in text


def test_headings_have_units_and_the_estimand_is_said(make_replay) -> None:
    text = drawn(replay_tables(read_result(make_replay())))
    assert "closed-loop, replayed" in text
    units = next(line for line in text.splitlines() if line.startswith("policy"))
    assert units.split() == ["policy", *["ms"] * 7, "%", "tokens", "%", "met"]


@pytest.mark.parametrize("verdict", ["trusted", "untrusted", "not judged"])
def test_the_verdict_stands_before_the_numbers(make_replay, verdict: str) -> None:
    text = drawn(replay_tables(read_result(make_replay(verdict=verdict))))
    assert f" {verdict.upper()} " in text.split("policy")[0]


def test_an_untrusted_verdict_is_also_the_last_word(make_replay) -> None:
    text = drawn(replay_tables(read_result(make_replay(verdict="untrusted"))))
    assert text.count(" UNTRUSTED ") == 2
    assert text.rstrip().endswith("forced_ttft_mean_error is 0.410, limit 0.1")


def test_one_step_numbers_stand_apart_and_say_what_they_are(make_replay) -> None:
    text = drawn(replay_tables(read_result(make_replay())))
    closed_loop, one_step = text.split("One-step, logged states: a diagnostic")
    assert "snipw" not in closed_loop.lower().split("one step beside closed loop")[0].replace("one-step snipw", "")
    assert "not the policy's performance" in one_step.replace("\n", " ")


def test_a_grid_that_is_too_wide_comes_in_pieces_and_no_number_is_cut() -> None:
    policies = [f"epsilon:least-request,epsilon=0.{k}" for k in range(1, 10)]
    columns = [Column("estimator", "", [Cell("switch-dr")], left=True)]
    columns += [Column(name, "ms", [Cell(f"{k},555", f"{k},278–{k},648")]) for k, name in enumerate(policies, 1)]
    text = drawn(grid_table(Grid("One step", columns)), 80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"{k},278–{k},648" in text for k in range(1, 10))
    assert text.count("switch-dr") == 3
    assert drawn(grid_table(Grid("One step", columns)), 300).count("switch-dr") == 1


def test_what_is_to_know_of_one_step_estimates_stands_below_them(make_replay) -> None:
    result = read_result(make_replay())
    result["one_step_notes"] = ["127 of 1425 requests left out: no decision or no TTFT"]
    result["gap_notes"] = ["the replayed cluster is not the logged one"]
    text = drawn(replay_tables(result))
    assert "127 of 1425 requests left out: no decision or no TTFT." in text
    assert "The replayed cluster is not the logged one." in text


def test_missing_one_step_estimates_have_a_reason(make_replay) -> None:
    text = drawn(replay_tables(read_result(make_replay(one_step=False))))
    assert "No one-step estimates: the log has no propensities" in text


def test_measured_policies_show_both_and_the_error(make_replay) -> None:
    text = drawn(replay_tables(read_result(make_replay())))
    assert "Replayed against measured" in text
    assert "−4.8" in text


def test_names_are_never_read_as_markup(make_replay) -> None:
    text = drawn(replay_tables(read_result(make_replay(dataset="[red]x[/red]"))))
    assert "[red]x[/red]" in text


def test_a_policy_that_depends_on_its_path_is_named(make_replay) -> None:
    text = drawn(replay_tables(read_result(make_replay())))
    assert "prefix-cache-and-load: depends on its path: mean TTFT is " in text


@pytest.mark.parametrize("width", [80, 112])
@pytest.mark.parametrize("verdict", ["trusted", "untrusted", "not judged"])
def test_the_verdict_stands_in_every_row_and_title_of_replayed_numbers(make_replay, verdict: str, width: int) -> None:
    result = read_result(make_replay(verdict=verdict, measured=False, one_step=False))
    text = drawn(replay_tables(result), width)
    policies, ranks = text.split("Rank by mean TTFT, closed-loop, replayed, ")
    pieces = policies.count("% met") + policies.count("difference\n")
    rows = [line for line in policies.splitlines() if line.split("  ")[0].strip() == verdict]
    assert len(rows) == 4 * pieces
    assert f"closed-loop, replayed, {verdict}: 285 of 300 requests" in policies
    assert ranks.startswith(verdict)
    assert len([line for line in ranks.splitlines() if line.strip() == verdict]) == 4 + 1


def test_seeds_that_differ_are_shown_as_a_range_and_never_as_the_best(make_replay) -> None:
    result = read_result(make_replay())
    prefix = next(policy for policy in result["policies"] if policy["policy"] == "prefix-cache-and-load")
    prefix["ttft_ms"]["mean"] = 1.0
    mean = next(column for column in policy_grid(result).columns if column.title == "TTFT mean")
    range_cell, best = mean.cells[1], [cell.mark for cell in mean.cells]
    seeds = prefix["over_seeds"]["ttft_ms"]
    assert range_cell.text == f"{seeds['min']:,.0f}–{seeds['max']:,.0f}"
    assert range_cell.note == f"median {seeds['median']:,.0f}"
    assert best == ["", "", "", "best"]


def test_a_queue_that_grows_marks_every_latency_of_its_policy(make_replay) -> None:
    result = read_result(make_replay(unstable="lodestar"))
    grid = policy_grid(result)
    name, *values = next(row for row in grid.rows if row[0].text == "lodestar")
    latencies = [value for value, column in zip(values, grid.columns[1:], strict=True) if " mean" in column.title]
    assert "unstable" in name.note
    assert all(cell.text.endswith(" ↑") and cell.mark == "" for cell in latencies)
    assert "lodestar: unstable: the queue grows by 31.4 requests per minute" in " ".join(grid.warnings)


def test_one_seed_shows_its_differences_without_intervals_and_says_why(make_replay) -> None:
    result = read_result(make_replay())
    result["seeds"], result["intervals"]["how"] = 1, "no intervals and no ranks: one seed does not tell"
    for policy in result["policies"]:
        for latency in ("ttft_ms", "tpot_ms", "e2e_ms"):
            policy[latency]["ci95"] = None
            if policy["difference"]:
                policy["difference"][latency]["ci95"] = None
    grid = policy_grid(result)
    differences = next(column for column in grid.columns if column.title == "TTFT difference").cells
    assert all(cell.note == "" and cell.mark == "" for cell in differences)
    assert differences[-1].text.startswith("−")
    assert grid.notes[0] == "No intervals and no ranks: one seed does not tell."
    figure = difference_figure(result, "ttft_ms", looks(policy["policy"] for policy in result["policies"]))
    assert len(figure.data) == len(result["policies"]) - 1
    assert all("no interval of one seed" in trace.hovertemplate for trace in figure.data)


def test_ranks_are_shares_of_the_draws(make_replay) -> None:
    grid = ranks_grid(read_result(make_replay()))
    assert [column.title for column in grid.columns] == ["policy", "1st", "2nd", "3rd", "4th", "best P99"]
    assert [cell.text for cell in grid.rows[-1]] == ["lodestar", "90.0", "10.0", "0.0", "0.0", "100.0"]
    assert "1,000 bootstrap draws" in grid.notes[0]
    assert grid.notes[0].endswith("where the interval of a difference holds 0, the order is open.")


def test_the_last_of_many_ranks_are_summed(make_replay) -> None:
    result = read_result(make_replay())
    row = {"by_ttft_mean": [0.0] * 5 + [0.25, 0.5, 0.25], "first_by_ttft_p99": 0.0}
    result["ranks"] = [{"policy": f"p{i}", **row} for i in range(8)]
    grid = ranks_grid(result)
    assert grid.columns[-2].title == "later"
    assert grid.columns[-2].cells[0].text == "100.0"


def test_a_result_of_an_earlier_version_is_still_drawn(make_replay) -> None:
    result = read_result(make_replay())
    for key in ("window", "intervals", "ranks"):
        del result[key]
    for policy in result["policies"]:
        for key in ("queue_growth", "unstable", "path_dependent", "over_seeds", "flags", "cancelled_ratio"):
            del policy[key]
    assert "300 requests, 3 instances, 20 seeds" in drawn(replay_tables(result))


def test_an_ingest_report_accounts_for_every_row() -> None:
    source = {
        "file": "logs/random.csv",
        "format": "lodestar-csv",
        "sha256": "ab",
        "rows_read": 2494,
        "rows_stored": 2491,
        "rows_rejected": 3,
        "already_stored": False,
        "replaced": "random.csv (ab, 2400 rows stored)",
        "notes": ("prompt_tokens of 0 is taken as not known",),
    }
    totals = {"rows_read": 2494, "rows_stored": 2491, "rows_rejected": 3}
    skipped = [{"file": "logs/LICENSE", "why": "no known format"}]
    text = drawn(ingest_tables({"dataset": "sharing09", **totals, "sources": [source], "skipped": skipped}), 80)
    row = next(line for line in text.splitlines() if line.startswith("random.csv "))
    assert row.split() == ["random.csv", "lodestar-csv", "2,494", "2,491", "3"]
    assert "random.csv: prompt_tokens of 0 is taken as not known" in text
    assert "random.csv: replaces its earlier version, random.csv (ab, 2400 rows stored)" in text
    assert "LICENSE: skipped, no known format" in text
    assert "`lodestar inspect sharing09`" in text


def test_a_summary_says_what_a_dataset_allows_and_why_not() -> None:
    text = drawn(inspect_tables(SUMMARY), 80)
    assert "2,491 requests to 1 instances, logged under random" in text
    assert "weighted one-step  no   no propensities are logged" in text
    assert "random.csv line 7" in text
    assert "9.0 % of prompt tokens stand in a prefix that an earlier request had" in without_breaks(text)
    assert "7.50 to 7.50, 2 equal spans" in text
    assert "TPOT" not in text


@pytest.mark.parametrize(
    ("any_at_all", "weighted", "said"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_summary_says_what_one_step_is_without_weights(any_at_all: bool, weighted: bool, said: bool) -> None:
    allows = {
        "one-step": {"allowed": any_at_all, "why_not": None if any_at_all else "no TTFT is logged"},
        "weighted one-step": {"allowed": weighted, "why_not": None if weighted else "no TTFT is logged"},
    }
    text = without_breaks(drawn(inspect_tables({**SUMMARY, "allows": allows}), 120))
    assert ("is dm, the predictor, alone" in text) == said


def test_result_json_has_the_layout_that_the_tables_read(make_replay) -> None:
    folder: Path = make_replay()
    assert read_result(folder) == json.loads((folder / "result.json").read_text())
