from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.intervals import ratio_bootstrap as ratio_bootstrap_module
from lodestar.pipeline.estimation.intervals.interval import ALONG_PATH, OVER_TRAFFIC
from lodestar.pipeline.estimation.intervals.linearised import linearised_interval
from lodestar.pipeline.estimation.intervals.ratio_bootstrap import drawn_blocks, ratio_bootstrap

Floats = NDArray[np.float64]


def log(n: int = 2000) -> tuple[Floats, Floats]:
    """Weights that err far more than the costs do, as those of a policy that the log seldom follows."""
    random = np.random.default_rng(5)
    return np.where(random.random(n) < 0.125, 8.0, 0.0), 2.0 + random.normal(0, 0.5, n)


def frozen(weight: Floats, cost: Floats, draws: int = 1000) -> float:
    """Width of obp's interval of snipw: the mean of w y / mean(w), with mean(w) that of the log in every draw."""
    random, rows = np.random.default_rng(0), weight * cost / weight.mean()
    means = [rows[random.integers(0, len(rows), len(rows))].mean() for _ in range(draws)]
    return float(np.subtract(*np.quantile(means, [0.975, 0.025])))


def test_numerator_and_denominator_are_drawn_together() -> None:
    weight, cost = log()
    found = ratio_bootstrap(weight * cost, weight, block=1)
    linearised = weight * (cost - found.value) / weight.mean()
    assert found.width == pytest.approx(linearised_interval(found.value, linearised, block=1).width, rel=0.08)
    assert frozen(weight, cost) > 1.4 * found.width


def test_it_is_the_bootstrap_of_the_rows_themselves() -> None:
    weight, cost = log(400)
    random = np.random.default_rng(9)
    taken = random.integers(0, 400, (6_000, 400))
    ratios = (weight * cost)[taken].sum(axis=1) / weight[taken].sum(axis=1)
    found = ratio_bootstrap(weight * cost, weight, block=1, draws=6_000)
    assert found.se == pytest.approx(ratios.std(), rel=0.04)
    assert (found.lower, found.upper) == pytest.approx(
        tuple(np.quantile(ratios, [0.025, 0.975])), abs=0.07 * found.width
    )


def test_what_is_added_is_drawn_with_the_ratio() -> None:
    """The log of sndr, in which what the model says and what is left of the cost cancel in every decision."""
    random = np.random.default_rng(2)
    direct = random.normal(10.0, 3.0, 1000)
    found = ratio_bootstrap(20.0 - direct, np.ones(1000), direct)
    assert (found.value, found.width) == (pytest.approx(20.0), pytest.approx(0.0, abs=1e-9))


def test_blocks_see_what_neighbours_share() -> None:
    random = np.random.default_rng(3)
    cost, weight = np.repeat(random.normal(10.0, 1.0, 40), 50), np.ones(2000)
    one_by_one, blocks = (ratio_bootstrap(cost, weight, block=block) for block in (1, 50))
    assert blocks.width > 5 * one_by_one.width
    assert (one_by_one.estimand, blocks.estimand) == (ALONG_PATH, OVER_TRAFFIC)


def test_the_same_seed_gives_the_same_interval() -> None:
    weight, cost = log()
    first, again, other = (ratio_bootstrap(weight * cost, weight, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_of_few_blocks_it_is_as_wide_as_students_interval_of_their_means(level: float) -> None:
    """Percentiles of 12 blocks alone are 15 % narrower: a bootstrap spreads by 1 / n, and knows no t."""
    random = np.random.default_rng(0)
    widths = []
    for seed in range(40):
        means = random.normal(10.0, 1.0, 12)
        found = ratio_bootstrap(np.repeat(means, 5), np.ones(60), block=5, draws=2000, seed=seed, level=level)
        low, high = ttest_1samp(means, 0.0).confidence_interval(level)
        widths.append(found.width / (high - low))
    assert np.mean(widths) == pytest.approx(1.0, abs=0.025)


def test_many_draws_in_small_portions_are_as_many_draws_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of a million single decisions has to be drawn a few draws at a time."""
    sums = np.random.default_rng(6).normal(5.0, 1.0, (40, 2))
    whole = drawn_blocks(sums, draws=3001, seed=1)
    monkeypatch.setattr(ratio_bootstrap_module, "_NUMBERS_AT_ONCE", 400)
    portions = drawn_blocks(sums, draws=3001, seed=1)
    assert portions.shape == (3001, 2)
    assert len(np.unique(portions[:, 0])) > 2990  # no draw comes twice
    for found in (whole, portions):
        assert found.mean(axis=0) == pytest.approx(sums.sum(axis=0), rel=0.005)
        assert found.std(axis=0) == pytest.approx(sums.std(axis=0) * np.sqrt(40), rel=0.06)


def test_what_gives_no_ratio_is_refused() -> None:
    weight, cost = log()
    with pytest.raises(DataError, match="adds up to 0"):
        ratio_bootstrap(cost * 0, weight * 0)
    with pytest.raises(DataError, match="draws share no decision"):
        ratio_bootstrap(np.eye(2000)[0], np.eye(2000)[0], block=100)
    with pytest.raises(ConfigError, match="at least 2"):
        ratio_bootstrap(weight * cost, weight, draws=1)
