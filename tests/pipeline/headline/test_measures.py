"""Curves whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.headline.learning import Learned, curve_row, learned, learning_row
from lodestar.pipeline.headline.measures import Regret, regret, sliding_means, steady_ms, window_ends_s
from lodestar.pipeline.headline.worlds import World
from lodestar.pipeline.replay.cluster import Cluster


def a_world(requests: int, changed_from: int | None = None) -> World:
    """One request a second."""
    ones, none = np.ones(requests, dtype=np.int64), np.zeros(0, dtype=np.int64)
    workload = Workload(np.arange(requests, dtype=np.float64), ones, ones, none, np.zeros(requests + 1, dtype=int), 16)
    return World(Cluster.of([EngineModel()], workload), changed_from)


def test_sliding_means_are_the_means_of_every_window() -> None:
    values = np.random.default_rng(0).exponential(size=50)
    expected = [values[k : k + 7].mean() for k in range(44)]
    np.testing.assert_allclose(sliding_means(values, 7), expected)
    assert len(window_ends_s(np.arange(50.0), 7)) == 44
    with pytest.raises(DataError, match="a window of 51 requests; expected 1 to 50"):
        sliding_means(values, 51)


def test_a_step_down_is_seen_when_the_window_is_past_it() -> None:
    # 300 until request 99, then 100; the baseline is at 200 all the time.
    ttft_ms = np.repeat([300.0, 100.0], [100, 300])
    its = learned(ttft_ms, np.full(400, 200.0), np.full(400, 150.0), a_world(400), first_model_s=0.0, window=10)
    assert its.at_baseline_s == 104  # five of ten are down: the mean is 200
    assert its.steady_s == 109  # one of ten is up: 120 is more than 110
    assert its.below_ratio == pytest.approx((400 - 104) / (400 - 9))
    assert its.against_baseline == Regret(-20.0, 10.0, 99.0)
    assert its.against_best == Regret(0.0, 15.0, 99.0)
    assert np.isnan(its.adapted_s)


def test_no_window_converges_in_which_there_was_no_model() -> None:
    flat = np.full(400, 100.0)
    for first_model_s, expected in ((0.0, 9.0), (50.5, 60.0), (float("inf"), float("inf"))):
        its = learned(flat, flat, flat, a_world(400), first_model_s, window=10)
        assert its.at_baseline_s == its.steady_s == expected


def test_a_change_divides_the_run_and_adaptation_counts_from_it() -> None:
    # Up for 50 requests from the change at 200, then steady at 100 again.
    ttft_ms = np.repeat([100.0, 400.0, 100.0], [200, 50, 150])
    baseline_ms = np.repeat([90.0, 200.0], [200, 200])
    its = learned(ttft_ms, baseline_ms, baseline_ms, a_world(400, 200), first_model_s=0.0, window=10)
    assert its.at_baseline_s == float("inf")  # it is above until the change, and below only after it
    assert its.steady_s == 9
    assert its.recovered_s == 56  # three of ten are still up: 190
    assert its.adapted_s == 59


def test_steady_is_the_last_quarter_and_regret_adds_up() -> None:
    values = np.arange(8.0)
    assert steady_ms(values) == 6.5
    rng = np.random.default_rng(1)
    mine, other = rng.exponential(1000, 300), rng.exponential(1000, 300)
    its = regret(mine, other, np.arange(300.0))
    assert its.final_s == pytest.approx((mine.sum() - other.sum()) / 1e3)
    assert its.peak_s == pytest.approx(max(0.0, *np.cumsum(mine - other) / 1e3))


def test_a_row_tells_median_and_worst_and_how_often_never() -> None:
    nothing = Regret(0.0, 0.0, 0.0)
    runs = [Learned(at, 20.0, 0.5, float("nan"), float("nan"), nothing, nothing) for at in (10.0, 30.0, float("inf"))]
    row = learning_row(runs, [5.0, 6.0, 7.0])
    assert (row["at_baseline_s"], row["at_baseline_s_worst"], row["at_baseline_s_never"]) == (30.0, None, 1)
    assert (row["steady_s"], row["steady_s_worst"], row["steady_s_never"]) == (20.0, 20.0, 0)
    assert (row["adapted_s"], row["adapted_s_never"], row["first_model_s"]) == (None, 0, 6.0)


def test_a_drawn_curve_is_the_mean_over_seeds() -> None:
    worlds = [a_world(300, 150), a_world(300, 150)]
    curve = curve_row(np.stack([np.full(300, 100.0), np.full(300, 300.0)]), worlds, window=50)
    assert curve["at_s"] == [49.0 + 6 * k for k in range(42)]
    assert (set(curve["mean_ms"]), curve["changed_s"]) == ({200.0}, 150.0)
