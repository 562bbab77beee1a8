"""The whole validation: its parts, its page, and that the page in the docs is that of its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lodestar.data.errors import ConfigError
from lodestar.pipeline.validation.validate import PARTS, Effort, validate, write_document
from lodestar.reports.validation_grids import coverage_grid, targets_grid
from lodestar.reports.validation_log import metrics_of
from lodestar.reports.validation_page import page, validation_grids
from lodestar.reports.validation_picture import picture

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """What the page in the docs was made of."""
    found: dict[str, Any] = json.loads((DOCS / "validation.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return validate(["queueing"], Effort(requests=2_000, seeds=2), None, 0, "lodestar validate --part queueing")


def test_the_page_and_the_picture_are_those_of_the_numbers(document: dict[str, Any]) -> None:
    assert (DOCS / "validation.md").read_text(encoding="utf-8") == page(document)
    assert (DOCS / "validation.svg").read_text(encoding="utf-8") == picture(document)


def test_the_page_has_every_part_and_hides_no_target(document: dict[str, Any]) -> None:
    assert set(PARTS) <= set(document)
    text = page(document)
    targets = targets_grid(document).rows
    assert len(targets) == 6
    assert all(row[3].text in ("met", "missed") for row in targets)
    for row in targets:
        assert f"| {row[0].text} | {row[1].text} | {row[2].text} | {row[3].text} |" in text


def test_a_part_alone_is_run_and_written(small: dict[str, Any], tmp_path: Path) -> None:
    assert set(small) == {"command", "seed", "cores", "seconds", "queueing"}
    files = write_document(small, tmp_path)
    assert json.loads(Path(files["validation.json"]).read_text()) == small
    assert Path(files["validation.md"]).read_text() == page(small)
    assert Path(files["validation.svg"]).read_text().count("<circle") == 2 + 2 * len(small["queueing"]["rows"])


def test_every_error_is_a_metric(small: dict[str, Any]) -> None:
    found = dict(metrics_of(small))
    for row in small["queueing"]["rows"]:
        assert found[f"queueing/{row['policy']}/replayed_error_mean"] == row["replayed"]["relative_error"]


def test_a_missed_target_is_shown_as_missed_and_a_small_world_judges_none(small: dict[str, Any]) -> None:
    target = {"target": "t", "wanted": "at most 3%", "measured": 0.0712, "met": False}
    queueing = {**small["queueing"], "summary": {**small["queueing"]["summary"], "targets": [target]}}
    (row,) = targets_grid({"queueing": {**queueing, "requests": 100_000}}).rows
    assert (row[2].text, row[3].text, row[3].mark) == ("7.12 %", "missed", "bad")
    (row,) = targets_grid({"queueing": queueing}).rows
    assert (row[3].text, row[3].mark) == ("too small to judge", "")


def test_too_few_repetitions_judge_nothing_and_a_coverage_outside_is_marked() -> None:
    row = {"setting": "s", "interval": "dr", "coverage": 0.88, "mean_width": 1.0, "repetitions": 60}
    assert coverage_grid([row], "t").rows[0][1].mark == "bad"

    def verdict(repetitions: int) -> str:
        bandits = [{**row, "repetitions": repetitions}]
        (target,) = targets_grid({"coverage": {"bandits": bandits, "replayed": [], "limits": []}}).rows
        return target[3].text

    assert [verdict(60), verdict(300)] == ["too small to judge", "missed"]


def test_no_table_is_wider_than_eighty_columns(document: dict[str, Any]) -> None:
    from io import StringIO

    from rich.console import Console

    from lodestar.reports.tables import grid_table

    for grid in validation_grids(document).values():
        out = StringIO()
        Console(file=out, width=80).print(grid_table(grid))
        assert "…" not in out.getvalue(), grid.title


@pytest.mark.parametrize(("parts", "traces"), [(["measured-arms"], "nowhere"), (None, "nowhere")])
def test_a_part_that_is_asked_for_and_has_no_logs_is_a_mistake(parts: list[str] | None, traces: str) -> None:
    with pytest.raises(ConfigError, match=r"measured-arms has no logs to look at: nowhere/.* is not there"):
        validate(parts, Effort.quick(), Path(traces), 0, "c")


def test_a_part_that_nobody_asked_for_may_have_no_logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LODESTAR_TRACES", str(tmp_path))
    only = {"measured-arms": PARTS["measured-arms"]}
    monkeypatch.setattr("lodestar.pipeline.validation.validate.PARTS", only)
    found = validate(None, Effort.quick(), None, 0, "c")
    assert "is not there" in found["measured-arms"]["skipped"]["sharing09"]


def test_an_unknown_part_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="part 'queuing' is not known; did you mean 'queueing'"):
        validate(["queuing"], Effort.quick(), None, 0, "c")
