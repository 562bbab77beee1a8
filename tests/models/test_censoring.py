from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf

from lodestar.data.errors import DataError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import Baseline, fit_baseline
from lodestar.models.slices import load_slice
from lodestar.models.uncertainty.censoring import Imputed, impute, kaplan_meier
from lodestar.models.uncertainty.conformal import QUANTILES, Conformal
from lodestar.models.uncertainty.heads import fit_heads, quantile_log_ratios

COMMON = {"verbose": -1, "num_threads": 1, "seed": 0, "deterministic": True, "force_col_wise": True}
P90 = list(QUANTILES).index("p90")


@pytest.mark.parametrize("decimals", [8, 0])
def test_survival_is_that_of_scipy(decimals: int) -> None:
    rng = np.random.default_rng(0)
    true, bound = 5 * rng.normal(size=(2, 500))
    values, censored = np.minimum(true, bound).round(decimals), true > bound  # 0 decimals: many are equal
    theirs = ecdf(CensoredData(uncensored=values[~censored], right=values[censored])).sf
    law = kaplan_meier(values, censored)
    np.testing.assert_allclose(law.at(theirs.quantiles), theirs.probabilities, atol=1e-12)


def test_without_bounds_the_law_is_that_of_the_values() -> None:
    values = np.random.default_rng(1).normal(size=400)
    law = kaplan_meier(values, np.zeros(400, dtype=bool))
    assert law.quantile(0.9) == np.quantile(values, 0.9, method="inverted_cdf")
    assert law.mean_beyond(np.array([-10.0]))[0] == pytest.approx(values.mean())
    assert law.mean_beyond(np.array([0.5]))[0] == pytest.approx(values[values > 0.5].mean())


def test_draws_lie_beyond_their_bounds_and_have_the_law_beyond_them() -> None:
    values = np.random.default_rng(2).normal(size=4000)
    law = kaplan_meier(values, np.zeros(4000, dtype=bool))
    drawn = law.draw_beyond(np.full(2000, 0.5), seed=0)
    assert drawn.min() > 0.5
    assert drawn.mean() == pytest.approx(values[values > 0.5].mean(), abs=0.01)
    assert (drawn == law.draw_beyond(np.full(2000, 0.5), seed=0)).all()
    assert (law.draw_beyond(np.array([9.0]), seed=0) > 9.0).all()


def test_nothing_but_bounds_is_refused() -> None:
    with pytest.raises(DataError, match="all of 3 latencies are only lower bounds"):
        kaplan_meier(np.ones(3), np.ones(3, dtype=bool))


def test_without_bounds_labels_are_the_same_to_the_bit_and_nothing_is_fitted() -> None:
    labels = np.random.default_rng(3).normal(size=100)

    def never(_: np.ndarray) -> np.ndarray:
        raise AssertionError("fitted without need")

    found = impute(labels, np.zeros(100, dtype=bool), np.zeros(100, dtype=np.int64), never)
    assert (found.mean == labels).all()
    assert (found.drawn == labels).all()


def test_measured_rows_keep_their_labels_and_bounds_only_grow() -> None:
    rng = np.random.default_rng(4)
    labels, censored = rng.normal(size=500), rng.random(500) < 0.3
    found = impute(labels, censored, np.arange(500) % 2, lambda y: np.full(500, y.mean()))
    for filled in (found.mean, found.drawn):
        assert (filled[~censored] == labels[~censored]).all()
        assert (filled[censored] > labels[censored]).all()


def _in_outage(bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, Imputed]:
    """Rows of an ordinary law, and in their midst the bounds of an outage; with what is made of them."""
    labels = np.random.default_rng(6).normal(0.0, 0.3, 2000)
    censored = (np.arange(2000) >= 1500) & (np.arange(2000) < 1800)
    labels[censored] = bounds
    mean = lambda y: np.full(2000, y.mean())  # noqa: E731
    return labels, censored, impute(labels, censored, np.zeros(2000, dtype=np.int64), mean)


def test_many_that_time_out_at_once_are_labelled_with_what_is_known_of_them() -> None:
    labels, censored, found = _in_outage(np.full(300, 4.1))
    for filled in (found.mean, found.drawn):
        assert (filled[censored] > 4.1).all()
        assert filled.max() < 4.2
        assert (filled[~censored] == labels[~censored]).all()


def test_many_whose_clients_leave_at_any_time_in_an_outage_are_labelled_within_what_was_seen() -> None:
    labels, censored, found = _in_outage(np.random.default_rng(7).uniform(-3.0, 4.1, 300))
    for filled in (found.mean, found.drawn):
        assert (filled[censored] > labels[censored]).all()
        assert filled.max() < 4.2


def test_a_timeout_amid_the_law_still_lets_it_go_on_beyond() -> None:
    true = np.random.default_rng(8).normal(size=4000)
    law = kaplan_meier(np.minimum(true, 0.5), true > 0.5)
    beyond = true[true > 0.5].mean()
    assert law.mean_beyond(np.array([0.5]))[0] == pytest.approx(beyond, abs=0.25)
    assert law.mean_beyond(np.array([0.5]))[0] > 1.0


def _log(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and latencies (ms): the longer the queue, the longer and the more varied they are."""
    rng = np.random.default_rng(seed)
    features = np.full((n, len(FEATURE_NAMES)), np.nan)
    waiting = rng.poisson(2.5, n)
    features[:, FEATURE_NAMES.index("waiting_requests")] = waiting
    features[:, FEATURE_NAMES.index("prompt_tokens")] = rng.integers(200, 4000, n)
    features[:, FEATURE_NAMES.index("prefill_tokens")] = waiting * 1500 + rng.integers(0, 1500, n)
    work = features[:, FEATURE_NAMES.index("prompt_tokens")] + features[:, FEATURE_NAMES.index("prefill_tokens")]
    return features, (40 + 0.1 * work) * np.exp((0.15 + 0.04 * np.minimum(waiting, 6)) * rng.normal(size=n))


def _grow(features: np.ndarray, labels: np.ndarray) -> tuple[Baseline, lgb.Booster, lgb.Dataset]:
    baseline = fit_baseline(features, np.exp(labels))
    log_ratio = labels - np.log(baseline.predict(features))
    data = lgb.Dataset(features, log_ratio, params={"feature_pre_filter": False})
    shape = {"objective": "l2", "num_leaves": 8, "min_data_in_leaf": 60, "learning_rate": 0.05}
    return baseline, lgb.train({**COMMON, **shape}, data, 60), data


def _mean_and_p90(
    features: np.ndarray, known_ms: np.ndarray, censored: np.ndarray, labels: Imputed, fresh: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and P90 (ms) for fresh features, of a model fitted as `fit` does."""
    baseline, trees, data = _grow(features, labels.mean)
    own = np.log(baseline.predict(features))
    ratio = np.exp(labels.drawn).sum() / np.exp(own + trees.predict(features)).sum()
    data.set_label(labels.drawn - own)
    heads = fit_heads(data, COMMON)
    raw = own[:, None] + quantile_log_ratios(trees, heads, features)
    window = Conformal.fresh(window_rows=2000)
    state = window.observe(load_slice(features), np.log(known_ms)[:, None] - raw, censored)
    theirs = np.log(baseline.predict(fresh))
    quantiles = theirs[:, None] + quantile_log_ratios(trees, heads, fresh) + state.offsets(load_slice(fresh))
    return ratio * np.exp(theirs + trees.predict(fresh)), np.exp(quantiles[:, P90])


@pytest.mark.parametrize(("share", "patience_varies"), [(0.3, False), (0.2, True)])
def test_mean_and_p90_are_recovered_where_dropping_what_timed_out_makes_them_short(
    share: float, patience_varies: bool
) -> None:
    features, latency_ms = _log(3000, seed=0)
    rng = np.random.default_rng(1)
    timeout_ms = np.quantile(latency_ms, 1 - share) * np.exp(rng.normal(0.0, 0.5 * patience_varies, 3000))
    censored, known_ms = latency_ms > timeout_ms, np.minimum(latency_ms, timeout_ms)
    assert 0.18 < censored.mean() < 0.4
    fresh, fresh_ms = _log(4000, seed=2)

    def fit(labels: np.ndarray) -> np.ndarray:
        baseline, trees, _ = _grow(features, labels)
        return np.log(baseline.predict(features)) + trees.predict(features)

    log_ms, kept = np.log(known_ms), ~censored
    whole = impute(log_ms, censored, load_slice(features), fit)
    mean_ms, p90_ms = _mean_and_p90(features, known_ms, censored, whole, fresh)
    dropped = Imputed(log_ms[kept], log_ms[kept])
    short_ms, low_ms = _mean_and_p90(features[kept], known_ms[kept], censored[kept], dropped, fresh)

    error, without = (abs(of.mean() / fresh_ms.mean() - 1) for of in (mean_ms, short_ms))
    assert error < 0.06
    assert without > 2 * error
    assert short_ms.mean() < fresh_ms.mean()
    covered, covered_without = ((fresh_ms <= of).mean() for of in (p90_ms, low_ms))
    assert 0.87 < covered < 0.93
    assert covered_without < 0.85
