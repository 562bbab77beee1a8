"""The whole study, on two tiny cells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from lodestar.pipeline.headline.cell import CellResult
from lodestar.pipeline.headline.document import document_of, read_document, write_document
from lodestar.pipeline.headline.study import study
from lodestar.pipeline.headline_cli import headline
from lodestar.reports.headline_page import page
from lodestar.reports.headline_picture import picture

from .conftest import EFFORT, SPECS


def test_results_depend_on_seed_and_cell_alone_whatever_runs_them(results: list[CellResult]) -> None:
    (alone, _) = study(SPECS[::-1], EFFORT, workers=2)[::-1]
    first = results[0]
    assert alone.spec == first.spec
    assert alone.rows == first.rows
    assert alone.learning == first.learning
    assert alone.curves == first.curves
    for key, logs in first.logs.items():
        np.testing.assert_array_equal(alone.logs[key], logs)


def test_every_policy_stands_in_every_cell_and_none_is_below_the_bound(results: list[CellResult]) -> None:
    for result in results:
        names = [(row["policy"], row["variant"]) for row in result.rows]
        assert len(set(names)) == len(names)
        assert {("lodestar-online", "default"), ("lodestar-published", "default"), ("lmetric", "default")} < set(names)
        assert ("aibrix-prefix-cache", "tuned") in names
        for row in result.rows:
            assert row["whole_mean_ms"] >= row["whole_mean_bound_ms"]
            assert row["whole_mean_low"] <= row["whole_mean_ratio"] <= row["whole_mean_high"]


def test_the_best_heuristic_is_the_lowest_that_neither_learns_nor_asks_engines(results: list[CellResult]) -> None:
    for result in results:
        for name in ("whole_mean", "half_p99"):
            (best,) = [row for row in result.rows if row[f"{name}_is_best"]]
            allowed = [row for row in result.rows if row["mark"] in ("", "session")]
            assert best[f"{name}_ms"] == min(row[f"{name}_ms"] for row in allowed)


def test_summary_is_the_geometric_mean_of_the_cells(results: list[CellResult]) -> None:
    document = document_of(results, EFFORT, "lodestar headline")
    own = [row for row in document["cells"] if row["policy"] == "lodestar-online"]
    claim = next(row for row in document["summary"] if row["scope"] == "all cells" and row["statistic"] == "p99")
    assert claim["whole_ratio"] == pytest.approx(
        np.exp(np.mean([np.log(row["whole_p99_ratio"]) for row in own])), rel=1e-3
    )
    assert claim["whole_worst"] == pytest.approx(min(row["whole_p99_ratio"] for row in own), rel=1e-3)
    assert claim["met"] == (claim["whole_ratio"] >= 1.47)
    after = next(row for row in document["summary"] if row["scope"] == "after the failure, homogeneous")
    best = next(row for row in results[0].rows if row["half_mean_is_best"])
    assert after["half_ratio"] == pytest.approx(best["half_mean_ms"] / own[0]["half_mean_ms"], rel=1e-3)
    assert (after["part"], after["met"]) == ("half", after["half_ratio"] >= 1.15)


def test_the_page_and_picture_are_what_the_files_say(results: list[CellResult], tmp_path: Path) -> None:
    document = document_of(results, EFFORT, "lodestar headline")
    files = write_document(document, tmp_path)
    assert sorted(files) == ["csv", "json", "md", "svg"]
    again = read_document(tmp_path)
    assert page(again) == (tmp_path / "headline.md").read_text()
    assert picture(again) == (tmp_path / "headline.svg").read_text()
    claim = next(row for row in document["summary"] if row["scope"] == "all cells")
    assert f"{claim['whole_ratio']:.2f}" in page(again)


def test_the_command_prints_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lodestar.pipeline.headline.plan.quick", lambda conversation: SPECS[:1])
    app = typer.Typer()
    app.command()(headline)
    told = ["--quick", "--no-published", "--trials", "1", "--workers", "1", "--json"]
    told += ["--to", str(tmp_path), "--home", str(tmp_path / "home")]
    result = CliRunner().invoke(app, told)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert {row["policy"] for row in document["learning"]} == {"lodestar-online"}
    assert document["run_id"]
    assert "--no-published" in (tmp_path / "headline.md").read_text()


def test_a_trace_that_is_not_there_is_told_in_one_line() -> None:
    from lodestar.data.errors import DataError

    app = typer.Typer()
    app.command()(headline)
    result = CliRunner().invoke(app, ["--conversation", "nowhere.jsonl"])
    assert isinstance(result.exception, DataError)
    assert "nowhere.jsonl: no such file" in str(result.exception)
