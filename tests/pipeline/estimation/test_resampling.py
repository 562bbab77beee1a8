from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation import resampling
from lodestar.pipeline.estimation.resampling import Resamples, resampled_means, resampled_quantiles, resamples

Floats = NDArray[np.float64]


def taken(values: Floats, drawn: Resamples, draw: int) -> Floats:
    """All values of one draw, written out one by one."""
    starts = zip(drawn.starts[draw], drawn.lengths, strict=True)
    requests = np.concatenate([np.arange(start, start + length) % drawn.requests for start, length in starts])
    flat = values[np.ix_(drawn.seeds[draw], requests)].ravel()
    return flat[~np.isnan(flat)]


def latencies(seeds: int, requests: int, seed: int, missing: float) -> Floats:
    random = np.random.default_rng(seed)
    values = np.round(random.lognormal(3, 1, (seeds, requests)), 1)  # rounded, so that some tie
    return np.where(random.random(values.shape) < missing, np.nan, values)


@given(st.integers(1, 4), st.integers(1, 60), st.integers(0, 99), st.sampled_from([0.0, 0.3]), st.data())
def test_a_draw_is_the_values_of_its_seeds_and_blocks(
    seeds: int, requests: int, seed: int, missing: float, data: st.DataObject
) -> None:
    values = latencies(seeds, requests, seed, missing)
    level = data.draw(st.sampled_from([0.5, 0.9, 0.99]))
    drawn = resamples(seeds, requests, data.draw(st.integers(1, requests)), draws=5, seed=seed)
    means, (quantiles,) = resampled_means(values, drawn), resampled_quantiles([values], level, drawn)
    for draw in range(5):
        expected = taken(values, drawn, draw)
        if len(expected):
            assert means[draw] == pytest.approx(expected.mean())
            assert quantiles[draw] == np.quantile(expected, level, method="inverted_cdf")
        else:
            assert np.isnan([means[draw], quantiles[draw]]).all()


def test_many_draws_in_small_portions_are_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values, drawn = latencies(3, 500, 1, missing=0.1), resamples(3, 500, 25, draws=50)
    whole = resampled_means(values, drawn), resampled_quantiles([values], 0.99, drawn)
    monkeypatch.setattr(resampling, "_NUMBERS_AT_ONCE", 2000)
    portions = resampled_means(values, drawn), resampled_quantiles([values], 0.99, drawn)
    np.testing.assert_array_equal(whole[0], portions[0])
    np.testing.assert_array_equal(whole[1], portions[1])


def test_all_seeds_of_a_draw_get_the_same_blocks() -> None:
    by_request = np.tile(np.arange(100.0), (6, 1))
    means = resampled_means(by_request, resamples(6, 100, 10))
    assert means.std() == pytest.approx(resampled_means(by_request[:1], resamples(1, 100, 10)).std(), rel=0.1)


def test_every_request_is_drawn_as_often_also_at_either_end() -> None:
    drawn = resamples(1, 100, block=20, draws=4000)
    for request in (0, 1, 50, 99):
        here = (np.arange(100) == request).astype(float)[None]
        assert resampled_means(here, drawn).mean() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("level", "n"), [(0.9, 10), (0.9, 100), (0.95, 20), (0.99, 100), (0.99, 1000), (0.5, 2)])
def test_a_level_that_falls_on_a_request_is_that_request_whatever_the_rounding(level: float, n: int) -> None:
    """1 − 0.9 is a little less than a tenth."""
    found = resampled_quantiles([np.arange(float(n))[None]], level, resamples(1, n, block=n, draws=3))
    assert found.tolist() == [[round(level * n) - 1.0] * 3]


def test_values_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"values have shape \(2, 9\); expected \(seeds, requests\) \(2, 10\)"):
        resampled_means(np.ones((2, 9)), resamples(2, 10, 2))
