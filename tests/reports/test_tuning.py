"""What a reader sees of a tuning: table, figure, page and MLflow."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from lodestar.data.workspace import Workspace
from lodestar.reports.colours import looks
from lodestar.reports.html import write_report
from lodestar.reports.mlflow_log import log_replay
from lodestar.reports.result import read_result
from lodestar.reports.tables import replay_tables
from lodestar.reports.tuning import tuning_grid
from lodestar.reports.tuning_figure import tuning_figure


def ends(name: str, value: float | None, by: float = 0.0) -> dict[str, float | None]:
    low, high = (None, None) if value is None else (value - by, value + by)
    return {f"{name}_ms": value, f"{name}_low_ms": low, f"{name}_high_ms": high}


def row(policy: str, variant: str, settings: str, mean_ms: float | None, *flags: str, **to: float) -> dict[str, Any]:
    searched = variant != "default"
    return {
        "policy": policy, "variant": variant, "settings": settings,
        **ends("ttft_mean", mean_ms, 100), **ends("ttft_p99", mean_ms and 8 * mean_ms, 900),
        **ends("ttft_difference", None), **ends("to_default", to.get("default"), 50),
        **ends("to_hindsight", to.get("hindsight"), 20),
        "hit_ratio": 0.25, "slo_attainment": 0.5, "trials_complete": 18 if searched else None,
        "trials_pruned": 12 if searched else None, "flags": list(flags), "verdict": "trusted",
    }  # fmt: skip


ROWS = [
    row("random", "default", "random", 3100.0),
    row("lodestar", "default", "lodestar", 2500.0),
    row("lodestar", "tuned", "lodestar,tau=0.3", 2100.0, "unstable: the queue grows", default=-400.0, hindsight=100.0),
    row("lodestar", "hindsight", "lodestar,tau=0.25", 2000.0),
]
HOW = {
    "objective": "mean", "trials": 30, "search_seeds": 5, "search_requests": 1500, "report_requests": 1400,
    "report_counted": 1330, "cut_s": 214.0, "seeds": 20, "baseline": "random", "intervals": "95 % from 1000 draws",
}  # fmt: skip


@pytest.fixture
def tuned(make_replay) -> Path:
    folder: Path = make_replay()
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "tuning": ROWS, "tuning_how": HOW}))
    return folder


def cells(tuned: Path, what: str, full: bool = False) -> dict[str, list[str]]:
    return {
        column.title: [getattr(cell, what) for cell in column.cells]
        for column in tuning_grid(read_result(tuned), full).columns
    }


def test_hindsight_is_never_the_best(tuned: Path) -> None:
    marks = cells(tuned, "mark")
    assert marks["TTFT mean"] == marks["TTFT P99"] == ["", "", "best", ""]
    assert marks["mean tuned − default"] == ["", "", "good", ""]
    assert marks["mean lost to hindsight"] == ["", "", "bad", ""]


def test_each_row_says_its_variant_and_how_to_replay_it(tuned: Path) -> None:
    assert cells(tuned, "note")["policy"] == ["default", "default", "tuned", "hindsight"]
    grid = tuning_grid(read_result(tuned))
    assert grid.notes[-2:] == [
        "lodestar, tuned:\n  --policy lodestar,tau=0.3",
        "lodestar, hindsight:\n  --policy lodestar,tau=0.25",
    ]
    assert "36 had every seed, 24 were given up" in grid.notes[0]
    assert grid.warnings == ["lodestar, tuned: unstable: the queue grows."]


def test_a_policy_without_a_search_has_dashes_for_trials(tuned: Path) -> None:
    assert cells(tuned, "text", full=True)["trials"] == ["–", "–", "18 + 12", "18 + 12"]


def test_what_was_tuned_for_is_what_is_compared(tuned: Path) -> None:
    result = read_result(tuned)
    result["tuning_how"]["objective"] = "p99"
    assert [column.title for column in tuning_grid(result).columns][3:] == [
        "P99 tuned − default",
        "P99 lost to hindsight",
    ]


def test_it_fits_into_eighty_columns(tuned: Path) -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(replay_tables(read_result(tuned)))
    text = out.getvalue()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(shown in text for shown in ("2,000–2,200", "−450 to −350", "+80 to +120"))


def test_the_figure_has_one_mark_a_row_in_the_colour_of_its_policy(tuned: Path) -> None:
    figure = tuning_figure([*ROWS, row("learned", "default", "learned", None)], "p99", looks(["random", "lodestar"]))
    drawn = [(trace.y[0], trace.x[0], trace.marker.symbol, trace.marker.color) for trace in figure.data]
    assert drawn == [
        ("random", 24_800.0, "circle-open", "#0072B2"),
        ("lodestar", 20_000.0, "circle-open", "#D55E00"),
        ("lodestar", 16_800.0, "circle", "#D55E00"),
        ("lodestar", 16_000.0, "line-ns-open", "#D55E00"),
    ]


def test_the_page_has_a_section_only_where_there_was_a_tuning(tuned: Path, make_replay, tmp_path: Path) -> None:
    page = write_report(tuned, tmp_path / "tuned.html").read_text()
    assert "<h2>Tuned " in page
    assert 'data-figure="tuning"' in page
    assert "lodestar,tau=0.3" in page
    assert "<h2>Tuned " not in write_report(make_replay("other"), tmp_path / "other.html").read_text()


def test_mlflow_has_the_rows_as_a_table_and_the_means_as_metrics(tuned: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    run_id = log_replay(workspace, tuned, write_report(tuned, tuned / "report.html"))
    (file,) = workspace.mlflow_artifacts.glob("*/*/artifacts/tuning.json")
    table = json.loads(file.read_text())
    assert [line[table["columns"].index("settings")] for line in table["data"]] == [each["settings"] for each in ROWS]
    metrics = MlflowClient(workspace.tracking_uri).get_run(run_id).data.metrics
    assert metrics["lodestar/tuned_ttft_ms_mean"] == 2100.0


def test_one_seed_is_drawn_and_told_without_intervals(tuned: Path) -> None:
    rows = [
        {name: None if name.endswith(("_low_ms", "_high_ms")) else value for name, value in row.items()} for row in ROWS
    ]
    figure = tuning_figure(rows, "mean", looks(["random", "lodestar"]))
    assert [trace.x[0] for trace in figure.data] == [3100.0, 2500.0, 2100.0, 2000.0]
    result = read_result(tuned)
    result["tuning"], result["tuning_how"]["intervals"] = rows, "no intervals and no ranks: one seed does not tell"
    grid = tuning_grid(result)
    gained = next(column for column in grid.columns if column.title == "mean tuned − default")
    assert gained.cells[2].text == "−400"
    assert "No intervals and no ranks: one seed does not tell." in grid.notes
