"""An evaluation as tables, figures, page and metrics."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lodestar.models.evaluation.shap import ShapPoints
from lodestar.reports.evaluation import evaluation_tables
from lodestar.reports.evaluation_figures import evaluation_figures
from lodestar.reports.evaluation_grids import evaluation_grids
from lodestar.reports.evaluation_log import flat_metrics
from lodestar.reports.evaluation_page import evaluation_page
from lodestar.reports.grids import Grid

HOSTILE = "x</script><script>alert(1)</script>[bold]"


def figure(value: float | None, by: float = 10.0) -> dict[str, float | None]:
    return {"value": value, "low": None if value is None else value - by, "high": None if value is None else value + by}


def point(mae_ms: float) -> dict[str, Any]:
    return {"mae_ms": figure(mae_ms), "mape": figure(0.2, 0.01), "bias_ms": figure(-30.0), "r2": figure(0.7, 0.1),
            "r2_log": figure(0.8, 0.1)}  # fmt: skip


def ranked() -> dict[str, Any]:
    return {"decisions": 700, "candidates": 7.0, "agreement": 0.14, "ess": 102.0, "logged_ms": 3438.0,
            "snips": figure(-0.7, 0.05), "rank_correlation": figure(0.88, 0.02),
            "cost_correlation": figure(0.9, 0.02)}  # fmt: skip


def sliced(by: str, name: str, covered: float) -> dict[str, Any]:
    return {"by": by, "slice": name, "rows": 100, "censored": 5, "mae_ms": figure(200.0), "bias_ms": figure(3.0),
            "p90_coverage": figure(covered, 0.02)}  # fmt: skip


@pytest.fixture
def found() -> dict[str, Any]:
    covered = {"share": 0.9, "pinball_ms": figure(80.0),
               "coverage": {**figure(0.89, 0.02), "least": 0.88, "most": 0.93},
               "frozen_coverage": figure(0.7, 0.02)}  # fmt: skip
    return {
        "judged": "it has seen all 2491 requests, so its held-out twin stands in",
        "against_judged": None,
        "rows": 748,
        "censored": 10,
        "excluded": {"no decision": 3},
        "requests": 2491,
        "first_request": 1743,
        "last_request": 2490,
        "rows_trained": 1631,
        "predictors": {"model": point(300.0), "constant": point(2000.0), "linear": point(320.0)},
        "quantiles": {"p90": covered},
        "slices": [sliced("waiting requests", "0", 0.9), sliced("waiting requests", "6+", 0.8)],
        "saturation": [{"where": "6 or more waiting", "from_requests": 6.0, "rows": 93, "censored": 0,
                        "measured_ms": 9047.0, "bias_ms": figure(-900.0), "bias_ratio": -0.1}],
        "reliability": [{"decile": 1, "rows": 75, "predicted_ms": 515.0, "measured_ms": figure(520.0)},
                        {"decile": 2, "rows": 75, "predicted_ms": 900.0, "measured_ms": figure(700.0)}],
        "ranking": {"model": ranked()},
        "controls": {"note": None,
                     "seeds": {"seeds": [0, 1], "mae_ms": [300.0, 301.0], "mean_ms": 300.5, "spread_ms": 0.7},
                     "shuffled": {"seeds": [0, 1], "r2_log": 0.01, "limit_r2_log": 0.11,
                                  "mae_ms": 2000.0, "leaks": False}},
        "permutation": [{"features": ["prefill_tokens", "waiting_requests"], "mae_growth_ms": figure(900.0)},
                        {"features": ["prompt_tokens"], "mae_growth_ms": figure(0.0, 0.0)}],
        "shap": [{"feature": "prompt_tokens", "mean_abs": 0.01, "direction": None}],
        "surface": [{"step": "one more waiting request", "waiting_requests": "all", "rows": 748, "falls": 0.25,
                     "mean_fall_ms": 1.0, "mean_fall_ratio": 0.01, "worst_fall_ms": 9.0, "worst_fall_ratio": 0.1}],
        "differences": [],
    }  # fmt: skip


@pytest.fixture
def document(found: dict[str, Any]) -> dict[str, Any]:
    return {"model": "made", "trained_on": "made", "against": None, "dataset": "made", "targets": {"ttft_ms": found},
            "skipped": {"tpot_ms": "no TPOT is logged"}, "notes": {"arrivals": "inferred"}, "seed": 0,
            "seconds": 1.0}  # fmt: skip


@pytest.fixture
def shap() -> ShapPoints:
    rng = np.random.default_rng(0)
    values = rng.random((50, 2))
    values[::5, 1] = np.nan
    return ShapPoints(("prompt_tokens", "hit_ratio"), values, rng.normal(size=(50, 2)))


def drawn(document: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(evaluation_tables(document))
    return console.export_text()


def compared(document: dict[str, Any]) -> dict[str, Any]:
    """Put a second model into a document."""
    found = document["targets"]["ttft_ms"]
    found["predictors"]["against"], found["ranking"]["against"] = point(400.0), ranked()
    found["against_judged"] = "trained on other"
    found["differences"] = [
        {"metric": "mae_ms", "model": 300.0, "against": 400.0, "difference": figure(-100.0), "better": "model"},
        {"metric": "p90.coverage", "model": 0.9, "against": 0.8, "difference": figure(0.1, 0.02), "better": None},
        {"metric": "snips", "model": -0.7, "against": -0.6, "difference": figure(-0.1, 0.02), "better": "model"},
        {"metric": "r2_log", "model": 0.8, "against": 0.9, "difference": figure(-0.1, 0.02), "better": "against"},
    ]
    return {**document, "against": "other@challenger"}


def marks(grid: Grid, title: str) -> list[str]:
    return [cell.mark for cell in next(column for column in grid.columns if column.title == title).cells]


@pytest.mark.parametrize("width", [80, 100])
def test_every_table_fits_and_no_number_is_cut(document: dict[str, Any], width: int) -> None:
    text = drawn(compared(document), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for title in ("errors of the mean", "made against other@challenger", "Quantiles", "By slice", "Near saturation",
                  "Ranking", "Reliability", "Controls", "Against physics", "Permutation", "SHAP", "Not judged",
                  "What the log left out"):  # fmt: skip
        assert title in text


def test_what_was_judged_and_what_was_left_out_is_said(document: dict[str, Any]) -> None:
    text = " ".join(drawn(document).split())
    assert "held-out twin stands in" in text
    assert "748 of 2,491 requests, 1,743 to 2,490, 10 of them cut off" in text
    assert "3 with no decision" in text
    assert "10 requests that were cut off are not among them" in text
    assert "P90 88.0–93.0 %" in text
    assert "no TPOT is logged" in text


def test_a_metric_is_shown_in_its_unit_and_the_better_model_is_named(document: dict[str, Any]) -> None:
    found = compared(document)["targets"]["ttft_ms"]
    grid = evaluation_grids("ttft_ms", found, {"model": "a", "against": "b"})["differences"]
    assert [(row[0].text, row[3].text, row[3].note, row[4].text) for row in grid.rows] == [
        ("MAE", "−100.0", "−110.0 to −90.0", "model"),
        ("P90 covers", "+10.0", "+8.0 to +12.0", ""),
        ("pick against logged", "−10.0", "−12.0 to −8.0", "model"),
        ("R² log", "−0.100", "−0.120 to −0.080", "against"),
    ]
    assert marks(grid, "better") == ["good", "", "good", "bad"]


def test_what_is_off_beyond_doubt_stands_out(found: dict[str, Any]) -> None:
    grids = evaluation_grids("ttft_ms", found, {"model": "made"})
    assert marks(grids["slices"], "P90 covers") == ["", "bad"]
    assert marks(grids["saturation"], "bias") == ["bad"]
    assert marks(grids["reliability"], "measured mean") == ["", "bad"]
    assert marks(grids["controls"], "R² log") == ["", "good"]
    assert marks(grids["accuracy"], "MAE") == ["best", "", ""]
    assert grids["accuracy"].warnings == []


def test_a_leak_and_a_simpler_predictor_that_is_better_are_warnings(found: dict[str, Any]) -> None:
    found["controls"]["shuffled"] |= {"r2_log": 0.6, "leaks": True}
    found["predictors"]["linear"] = point(200.0)
    grids = evaluation_grids("ttft_ms", found, {"model": "made"})
    assert grids["accuracy"].warnings == ["Linear regression has the smaller error here."]
    assert "leaks into the rows judged" in grids["controls"].warnings[0]
    assert marks(grids["controls"], "R² log") == ["", "bad"]


def test_what_a_log_cannot_tell_is_said_and_not_shown(document: dict[str, Any]) -> None:
    found = document["targets"]["ttft_ms"]
    found["ranking"]["model"] |= {"snips": figure(None), "ess": None}
    assert "No SNIPS" in drawn(document)
    found["ranking"]["model"] |= {"decisions": 0}
    found["quantiles"] = None
    found["controls"] = {"note": "no refits were asked for", "seeds": None, "shuffled": None}
    text = drawn(document)
    assert "no decision with two candidates" in " ".join(text.split())
    assert "no refits were asked for" in text
    assert "Quantiles" not in text


def test_the_last_lines_say_it_in_short(document: dict[str, Any]) -> None:
    last = [line for line in drawn(document).splitlines() if line.strip()][-1]
    assert last.split() == ["TTFT", "748", "300.0", "93.8", "0.800", "89.0", "0.880", "−10.0"]
    found = document["targets"]["ttft_ms"]
    del found["predictors"]["linear"]
    found["quantiles"], found["saturation"] = None, []
    last = [line for line in drawn(document).splitlines() if line.strip()][-1]
    assert last.split() == ["TTFT", "748", "300.0", "–", "0.800", "–", "0.880", "–"]


def test_a_twin_has_no_frozen_quantiles_to_show(found: dict[str, Any]) -> None:
    grid = evaluation_grids("ttft_ms", found, {"model": "made"})["quantiles"]
    assert [column.title for column in grid.columns] == ["quantile", "covers", "frozen covers", "pinball loss"]
    assert len(evaluation_figures("ttft_ms", found, None)["calibration"].data) == 3
    found["quantiles"]["p90"]["frozen_coverage"] = None
    grid = evaluation_grids("ttft_ms", found, {"model": "made"})["quantiles"]
    assert [column.title for column in grid.columns] == ["quantile", "covers", "pinball loss"]
    assert len(evaluation_figures("ttft_ms", found, None)["calibration"].data) == 2


def test_figures_show_the_numbers_of_the_tables(found: dict[str, Any], shap: ShapPoints) -> None:
    figures = evaluation_figures("ttft_ms", found, shap)
    assert list(figures) == ["reliability", "calibration", "coverage", "permutation", "shap"]
    _, points = figures["reliability"].data
    assert list(points.y) == [520.0, 700.0]
    assert list(points.error_y.array) == [10.0, 10.0]
    assert list(figures["coverage"].data[0].x) == [90.0, 80.0]
    assert figures["permutation"].data[0].y[0] == "prefill_tokens and 1 more"
    assert sum(len(trace.x) for trace in figures["shap"].data) == 100
    rows = np.concatenate([np.round(trace.y) for trace in figures["shap"].data])
    assert set(rows) == {0.0, 1.0}  # no point strays into its neighbour's row


def test_the_page_stands_alone_and_reads_names_as_text(document: dict[str, Any], shap: ShapPoints) -> None:
    page = evaluation_page({**document, "model": HOSTILE}, {"ttft_ms": shap})
    assert "<script>alert(1)" not in page
    assert not re.search(r"<(?:link|img|iframe)\b", page)
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert set(figures) == set(re.findall(r'data-figure="(\w+)"', page))
    assert "the trees alone" in page
    assert evaluation_page(document, {}).count("data-figure=") == len(figures) - 1  # without SHAP


def test_metrics_have_their_intervals_beside_them(document: dict[str, Any]) -> None:
    metrics = dict(flat_metrics(compared(document)))
    assert (metrics["ttft_ms/model/mae_ms"], metrics["ttft_ms/model/mae_ms.high"]) == (300.0, 310.0)
    assert metrics["ttft_ms/waiting requests/6+/p90_coverage"] == 0.8
    assert metrics["ttft_ms/p90/coverage"] == 0.89
    assert metrics["ttft_ms/difference/mae_ms.low"] == -110.0
    assert metrics["ttft_ms/controls/shuffled/r2_log"] == 0.01
    assert not [name for name, value in metrics.items() if not np.isfinite(value)]
