from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from lodestar.data.errors import DataError
from lodestar.reports.colours import looks
from lodestar.reports.comparisons import calibration_figure
from lodestar.reports.plots import cdf_figure, replay_figures, ttft_over_time_figure
from lodestar.reports.result import read_result


def test_a_policy_has_one_colour_in_all_figures(make_replay) -> None:
    folder = make_replay()
    colours: dict[str, set[str]] = {}
    for figure in replay_figures(read_result(folder), folder).values():
        for trace in figure.data:
            if trace.name in ("random", "lodestar", "least-request"):
                colours.setdefault(trace.name, set()).add(
                    (trace.line.color if trace.mode == "lines" else None) or trace.marker.color
                )
    assert colours == {"random": {"#0072B2"}, "least-request": {"#009E73"}, "lodestar": {"#CC79A7"}}


def test_twenty_policies_all_look_different() -> None:
    assert len(set(looks(f"policy-{i}" for i in range(20)).values())) == 20


def test_figures_stay_small_however_many_requests(make_replay) -> None:
    folder = make_replay(requests=20_000)
    figures = replay_figures(read_result(folder), folder)
    assert sum(len(figure.to_json()) for figure in figures.values()) < 250_000


def test_every_axis_of_a_latency_names_its_unit(make_replay) -> None:
    folder = make_replay()
    figures = replay_figures(read_result(folder), folder)
    titles = [
        figure.layout.xaxis.title.text for name, figure in figures.items() if name.startswith(("cdf", "diff", "cali"))
    ]
    assert len(titles) == 8
    assert all("(ms)" in title for title in titles)


def test_a_distribution_passes_through_its_median() -> None:
    requests = pl.DataFrame({"policy": ["random"] * 1001, "ttft_ms": np.arange(1.0, 1002.0)})
    line = cdf_figure(requests, "ttft_ms", looks(["random"])).data[0]
    assert line.x[list(line.y).index(50.0)] == 501.0


def test_requests_without_a_latency_are_left_out_of_its_distribution() -> None:
    requests = pl.DataFrame({"policy": ["random"] * 3, "tpot_ms": [10.0, float("nan"), None]})
    line = cdf_figure(requests, "tpot_ms", looks(["random"])).data[0]
    assert set(line.x) == {10.0}


def test_a_span_with_few_requests_has_no_p90_and_an_empty_one_breaks_the_line() -> None:
    requests = pl.DataFrame({"policy": "random", "arrived_at_s": [0.0] * 20 + [60.0], "ttft_ms": [100.0] * 21})
    mean, p90 = ttft_over_time_figure(requests, looks(["random"])).data
    assert [mean.y[0], mean.y[-1]] == [100.0, 100.0]
    assert p90.y[0] == 100.0
    assert np.isnan(p90.y[-1])
    assert np.isnan(mean.y[1:-1]).all()


def test_requests_that_got_no_token_do_not_take_a_span_with_them() -> None:
    ttft_ms = [100.0] * 15 + [float("nan")] * 5
    requests = pl.DataFrame({"policy": "random", "arrived_at_s": [0.0] * 19 + [60.0], "ttft_ms": ttft_ms})
    mean, p90 = ttft_over_time_figure(requests, looks(["random"])).data
    assert mean.y[0] == p90.y[0] == 100.0
    assert np.isnan(mean.y[-1])


def test_distributions_leave_out_the_warm_up(make_replay) -> None:
    folder = make_replay()
    path = folder / "requests.parquet"
    early = pl.when(pl.col("request_index") < 15).then(1e9).otherwise(pl.col("ttft_ms"))
    pl.read_parquet(path).with_columns(ttft_ms=early).write_parquet(path)
    lines = replay_figures(read_result(folder), folder)["cdf_ttft_ms"].data
    assert max(max(line.x) for line in lines) < 1e9


def test_an_exact_predictor_lies_on_the_line() -> None:
    values = np.random.default_rng(1).lognormal(7, 1, 500)
    dots = calibration_figure(pl.DataFrame({"predicted_ms": values, "measured_ms": values}), "ttft_ms").data[-1]
    assert len(dots.x) == 10
    assert dots.x == pytest.approx(dots.y)


def test_calibration_rows_without_a_value_are_refused() -> None:
    rows = pl.DataFrame({"predicted_ms": [1.0, None], "measured_ms": [1.0, 2.0]})
    with pytest.raises(DataError, match="calibration of ttft_ms"):
        calibration_figure(rows, "ttft_ms")
