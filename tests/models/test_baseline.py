"""The physical baseline: what it finds, what cannot bend it, and what it costs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models import baseline as of
from lodestar.models.baseline import COUNTS, WORKS, Baseline, fit_baseline
from lodestar.models.robust import mean_ratio, stalls, within_reach

PREFILL, WAITING = FEATURE_NAMES.index("prefill_tokens"), FEATURE_NAMES.index("waiting_requests")


def made(n: int, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TTFT is 50 ms + 0.1 ms a prefill token + 30 ms a waiting request, times noise; returned with the law."""
    rng = np.random.default_rng(seed)
    features = np.full((n, len(FEATURE_NAMES)), np.nan)
    features[:, PREFILL], features[:, WAITING] = rng.uniform(0.0, 9000.0, n), rng.integers(0, 9, n)
    law_ms = 50.0 + 0.1 * features[:, PREFILL] + 30.0 * features[:, WAITING]
    return features, law_ms, law_ms * np.exp(rng.normal(0.0, noise, n))


def test_stalls_at_no_load_do_not_bend_the_slopes() -> None:
    features, law_ms, latency_ms = made(1000)
    latency_ms[np.argsort(law_ms)[:100:5]] = 5000.0
    predicted_ms = fit_baseline(features, latency_ms).predict(features)
    design = np.column_stack([np.ones(1000), features[:, PREFILL], features[:, WAITING]])
    squares_ms = design @ np.linalg.lstsq(design, latency_ms, rcond=None)[0]
    assert np.abs(predicted_ms / law_ms - 1.0).mean() < 0.03 < 0.2 * np.abs(squares_ms / law_ms - 1.0).mean()


def test_noise_in_proportion_leaves_the_short_latencies_right_too() -> None:
    features, law_ms, latency_ms = made(2000, noise=0.3)
    predicted_ms = fit_baseline(features, latency_ms).predict(features)
    short = law_ms < 150.0
    # The law is the median of this noise, and its mean is 5 % higher: it may lie at or near either.
    assert 0.97 < np.median(predicted_ms[short] / law_ms[short]) < 1.1


def test_without_noise_it_is_exact_and_goes_on_beyond_the_data() -> None:
    features, law_ms, _ = made(300)
    far = features.copy()
    far[:, [PREFILL, WAITING]] *= 10.0
    law_far_ms = 50.0 + 0.1 * far[:, PREFILL] + 30.0 * far[:, WAITING]
    assert fit_baseline(features, law_ms).predict(far) == pytest.approx(law_far_ms, rel=1e-3)


def test_other_units_of_a_term_change_no_prediction() -> None:
    features, _, latency_ms = made(500)
    in_thousands = features.copy()
    in_thousands[:, PREFILL] /= 1000.0
    first, second = fit_baseline(features, latency_ms), fit_baseline(in_thousands, latency_ms)
    assert second.predict(in_thousands) == pytest.approx(first.predict(features), rel=1e-6)


def test_slower_engines_scale_it() -> None:
    features, _, latency_ms = made(500)
    once, thrice = fit_baseline(features, latency_ms), fit_baseline(features, 3.0 * latency_ms)
    assert thrice.predict(features) == pytest.approx(3.0 * once.predict(features), rel=1e-6)


def test_many_rows_are_fitted_by_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    features, law_ms, latency_ms = made(5000)
    monkeypatch.setattr(of, "MAX_ROWS", 1000)
    baseline = fit_baseline(features, latency_ms)
    assert np.abs(baseline.predict(features) / law_ms - 1.0).max() < 0.1
    assert baseline.floor_ms == latency_ms.min()


@pytest.mark.parametrize("latency_ms", [np.full(60, 70.0), np.arange(1.0, 61.0)])
def test_features_that_tell_nothing_leave_one_latency_for_all(latency_ms: np.ndarray) -> None:
    predicted_ms = fit_baseline(np.full((60, len(FEATURE_NAMES)), np.nan), latency_ms).predict(
        np.full((1, len(FEATURE_NAMES)), np.nan)
    )
    assert predicted_ms[0] == pytest.approx(np.median(latency_ms), rel=0.05)


def test_works_cost_nothing_or_more_and_it_survives_json() -> None:
    features, _, latency_ms = made(300)
    baseline = fit_baseline(features, latency_ms[::-1].copy())
    assert all(baseline.coefficients_ms[term] >= 0.0 for term in WORKS)
    assert set(baseline.coefficients_ms) == {*WORKS, *COUNTS}
    assert Baseline.from_dict(json.loads(json.dumps(baseline.to_dict()))) == baseline


def test_without_stalls_the_mean_ratio_is_the_ratio_of_the_means() -> None:
    _, law_ms, latency_ms = made(1000)
    assert not stalls(np.log(latency_ms / law_ms)).any()
    assert mean_ratio(latency_ms, law_ms) == pytest.approx(latency_ms.sum() / law_ms.sum(), rel=1e-12)


def test_a_stall_of_any_length_counts_the_same() -> None:
    _, law_ms, latency_ms = made(1000)
    without, ratios = mean_ratio(latency_ms[5:], law_ms[5:]), []
    for stall_ms in (1e5, 1e9):
        latency_ms[:5] = stall_ms
        ratios.append(mean_ratio(latency_ms, law_ms))
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-12)
    assert without < ratios[0] < 1.01 * without


def test_where_most_rows_are_alike_no_row_is_called_a_stall() -> None:
    log_errors = np.array([0.0] * 8 + [0.5, 3.0])
    assert not stalls(log_errors).any()
    assert np.array_equal(within_reach(log_errors), log_errors)


def filled(n: int = 2000, full_tokens: float = 3000.0) -> tuple[np.ndarray, np.ndarray]:
    """TPOT is 20 ms + 0.01 ms a prefill token, up to `full_tokens` of them, times noise of 5 %."""
    rng = np.random.default_rng(0)
    features = np.full((n, len(FEATURE_NAMES)), np.nan)
    features[:, PREFILL] = rng.uniform(0.0, 9000.0, n)
    law_ms = 20.0 + 0.01 * np.minimum(features[:, PREFILL], full_tokens)
    return features, law_ms * np.exp(rng.normal(0.0, 0.05, n))


def test_a_full_step_takes_no_longer_with_more_work_beyond_all_that_was_seen() -> None:
    features, latency_ms = filled()
    baseline = fit_baseline(features, latency_ms, "tpot_ms")
    at = np.full((3, len(FEATURE_NAMES)), np.nan)
    at[:, PREFILL] = [1000.0, 6000.0, 1e6]
    assert baseline.predict(at) == pytest.approx([30.0, 50.0, 50.0], rel=0.06)
    assert baseline.predict(at)[2] == baseline.ceiling_ms
    assert Baseline.from_dict(json.loads(json.dumps(baseline.to_dict()))) == baseline


@pytest.mark.parametrize("target", ["ttft_ms", "e2e_ms"])
def test_no_latency_but_a_step_can_be_full(target: str) -> None:
    baseline = fit_baseline(*filled(), target)
    assert np.isinf(baseline.ceiling_ms)
    assert "ceiling_ms" not in baseline.to_dict()


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_steps_that_go_on_growing_get_no_ceiling(noise: float) -> None:
    features, _, latency_ms = made(1000, noise)
    assert fit_baseline(features, latency_ms, "tpot_ms") == fit_baseline(features, latency_ms, "ttft_ms")


@pytest.mark.parametrize("latency_ms", [np.full(60, 70.0), np.arange(1.0, 61.0)])
def test_steps_that_nothing_tells_apart_get_no_ceiling(latency_ms: np.ndarray) -> None:
    assert np.isinf(fit_baseline(np.full((60, len(FEATURE_NAMES)), np.nan), latency_ms, "tpot_ms").ceiling_ms)
