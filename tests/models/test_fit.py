from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lodestar.data.errors import ConfigError, DataError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import COUNTS, WORKS, Baseline, fit_baseline
from lodestar.models.fit import extend, fit
from lodestar.models.latency import QUANTILES, LatencyModel
from lodestar.models.metrics import coverage, mae_ms
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.textmodel import parse_trees
from lodestar.models.uncertainty.calibrate import calibrate
from lodestar.models.uncertainty.heads import HEADS

SMALL = Parameters(rounds=20, min_data_in_leaf=20)
MakeRows = Callable[..., Rows]


def test_the_baseline_finds_the_law_behind_noise_and_goes_on_beyond_the_data(make_rows: MakeRows) -> None:
    rows = make_rows(2000)
    model, _ = fit(rows, "ttft_ms", SMALL, seed=0)
    far = rows.features[:1].copy()
    far[0, FEATURE_NAMES.index("prefill_tokens")] = 30_000.0
    assert model.predict(far)[0] == pytest.approx(40 + 0.1 * 30_000, rel=0.15)


def test_works_never_make_a_request_faster(make_rows: MakeRows) -> None:
    rows = make_rows(500)
    baseline = fit_baseline(rows.features, rows.latency_ms[::-1].copy())
    assert all(baseline.coefficients_ms[term] >= 0 for term in WORKS)
    assert set(baseline.coefficients_ms) == {*WORKS, *COUNTS}


def test_a_missing_feature_adds_nothing_to_the_baseline() -> None:
    baseline = Baseline({(): 10.0, ("waiting_requests",): 5.0, ("kv_usage_ratio", "queued_requests"): 7.0}, 1.0)
    assert baseline.predict(np.full((1, len(FEATURE_NAMES)), np.nan)).tolist() == [10.0]


def test_the_baseline_never_falls_below_the_shortest_latency_of_the_window() -> None:
    baseline = Baseline({(): 10.0, ("decode_tokens",): -5.0}, 3.0)
    assert baseline.predict(np.full((1, len(FEATURE_NAMES)), 100.0)).tolist() == [3.0]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(make_rows: MakeRows) -> None:
    texts = [fit(make_rows(400), "ttft_ms", SMALL, seed)[0].text() for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


def test_the_mean_prediction_is_the_mean_latency_of_the_window(make_rows: MakeRows) -> None:
    rows = make_rows(800)
    model, _ = fit(rows, "ttft_ms", SMALL, seed=0)
    assert model.predict(rows.features).mean() == pytest.approx(rows.latency_ms.mean(), rel=1e-9)


def test_quantiles_cover_what_they_promise_on_new_rows_and_never_cross(make_rows: MakeRows) -> None:
    raw, _ = fit(make_rows(3000), "ttft_ms", SMALL, seed=0)
    _, model = calibrate(raw, make_rows(2000, seed=1, slower=1.3))
    new = make_rows(3000, seed=2, slower=1.3)
    quantiles_ms = model.predict_quantiles(new.features)
    assert (np.diff(quantiles_ms, axis=1) >= 0).all()
    for k, (quantile, share) in enumerate(QUANTILES.items()):
        assert coverage(new.latency_ms, quantiles_ms[:, k]) == pytest.approx(share, abs=0.05)
        np.testing.assert_array_equal(model.predict_quantile(new.features, quantile), quantiles_ms[:, k])
    assert coverage(new.latency_ms, raw.predict_quantile(new.features, "p90")) < 0.8


def test_calibration_states_quantiles_by_what_had_finished_alone(make_rows: MakeRows) -> None:
    model, _ = fit(make_rows(500), "ttft_ms", SMALL, seed=0)
    rows, changed = make_rows(200, seed=1), make_rows(200, seed=1)
    changed.latency_ms[100:] *= 5  # the first of them finishes 2 s, eight rows, after it arrived
    stated, other = (calibrate(model, each)[0] for each in (rows, changed))
    np.testing.assert_array_equal(stated[:108], other[:108])
    assert (other[109:] > stated[109:]).any()


def test_a_model_keeps_its_trees_heads_and_calibration_on_disk(make_rows: MakeRows, tmp_path: Path) -> None:
    rows = make_rows(600)
    model = calibrate(fit(rows, "ttft_ms", replace(SMALL, features=FEATURE_NAMES[3:9]), seed=0)[0], make_rows(90, 1))[1]
    model.save(tmp_path)
    read = LatencyModel.load(tmp_path, "ttft_ms")
    np.testing.assert_array_equal(read.predict(rows.features), model.predict(rows.features))
    np.testing.assert_array_equal(read.predict_quantiles(rows.features), model.predict_quantiles(rows.features))
    assert read.features == FEATURE_NAMES[3:9]


def test_trees_told_to_be_monotone_never_predict_less_with_more_queue(make_rows: MakeRows) -> None:
    rows = make_rows(600)
    rows.latency_ms[:] /= 1 + rows.features[:, FEATURE_NAMES.index("waiting_requests")]  # against all physics
    more = rows.features.copy()
    more[:, FEATURE_NAMES.index("waiting_requests")] += 1.0
    for monotone in (False, True):
        model, _ = fit(rows, "ttft_ms", replace(SMALL, monotone=monotone, features=FEATURE_NAMES), seed=0)
        falls = model.booster.predict(more) < model.booster.predict(rows.features)
        assert falls.any() != monotone
        assert set(model.heads) == set(HEADS)


def test_a_feature_that_is_left_out_moves_only_the_baseline(make_rows: MakeRows) -> None:
    rows = make_rows(300)
    seen = tuple(name for name in FEATURE_NAMES if name != "decode_tokens")
    model, _ = fit(rows, "ttft_ms", replace(SMALL, features=seen), seed=0)
    changed = rows.features.copy()
    changed[:, FEATURE_NAMES.index("decode_tokens")] *= 9
    ratio = model.predict(changed) / model.predict(rows.features)
    np.testing.assert_allclose(ratio, model.baseline.predict(changed) / model.baseline.predict(rows.features))


def test_an_unknown_feature_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="feature 'waiting' is not known"):
        Parameters(features=("waiting",))
    assert Parameters(**Parameters().to_dict()) == Parameters()


def test_a_model_without_heads_has_the_same_mean(make_rows: MakeRows) -> None:
    whole, mean = (fit(make_rows(300), "ttft_ms", SMALL, seed=0, heads=heads)[0] for heads in (True, False))
    assert whole.text() == mean.text()
    assert mean.heads == {}


def test_the_curve_has_a_point_a_round_and_watching_changes_nothing(make_rows: MakeRows) -> None:
    rows, newer = make_rows(400), make_rows(100, seed=1)
    watched, curve = fit(rows, "ttft_ms", SMALL, seed=0, watch=newer)
    alone, _ = fit(rows, "ttft_ms", SMALL, seed=0)
    assert len(curve.training) == len(curve.held_out) == SMALL.rounds
    assert watched.text() == alone.text()


def test_the_window_limits_what_is_learned_from(make_rows: MakeRows) -> None:
    slow_then_fast = make_rows(600)
    slow_then_fast.latency_ms[:300] *= 10
    windowed, _ = fit(slow_then_fast, "ttft_ms", replace(SMALL, window_requests=300), seed=0)
    newest = slow_then_fast.last(300)
    assert mae_ms(newest.latency_ms, windowed.predict(newest.features)) < 0.3 * newest.latency_ms.mean()
    assert windowed.text() == fit(newest, "ttft_ms", SMALL, seed=0)[0].text()


def test_extending_keeps_the_old_trees_and_their_bins_can_grow(make_rows: MakeRows) -> None:
    model, _ = fit(make_rows(400), "ttft_ms", SMALL, seed=0)
    extended = extend(model, make_rows(300, seed=1, slower=2.0), SMALL, seed=0)
    assert extended.trees == SMALL.rounds + SMALL.update_rounds
    assert parse_trees(extended.booster)[: SMALL.rounds] == parse_trees(model.booster)
    assert extended.baseline == model.baseline


def test_extending_follows_a_change(make_rows: MakeRows) -> None:
    model, _ = fit(make_rows(800), "ttft_ms", SMALL, seed=0)
    extended = extend(model, make_rows(400, seed=1, slower=2.0), SMALL, seed=0)
    newer = make_rows(400, seed=2, slower=2.0)
    errors = [mae_ms(newer.latency_ms, each.predict(newer.features)) for each in (model, extended)]
    assert errors[1] < 0.5 * errors[0]


def test_too_few_rows_are_refused_with_their_number(make_rows: MakeRows) -> None:
    with pytest.raises(DataError, match="49 of 80 requests are left to train ttft_ms; expected at least 50"):
        fit(make_rows(80).last(49), "ttft_ms", SMALL, seed=0)


def test_a_mean_fitted_to_requests_with_a_time_limit_is_that_of_all_of_them(make_rows: MakeRows) -> None:
    """Without the limit the mean of 3,000 rows is known; with it, a quarter of the latencies are bounds."""
    rows, new = make_rows(3000), make_rows(2000, seed=1)
    limit_ms = float(np.quantile(rows.latency_ms, 0.75))
    cut = replace(rows, censored=rows.latency_ms > limit_ms, latency_ms=np.minimum(rows.latency_ms, limit_ms))
    dropped = cut.only(~cut.censored)
    means = {
        name: fit(each, "ttft_ms", SMALL, seed=0)[0].predict(new.features).mean() / new.latency_ms.mean()
        for name, each in {"all": rows, "censored": cut, "dropped": dropped}.items()
    }
    assert means["all"] == pytest.approx(1.0, abs=0.03)
    assert means["censored"] == pytest.approx(1.0, abs=0.06)
    assert means["dropped"] < 0.93


def test_extending_by_cut_off_requests_follows_what_they_would_have_taken(make_rows: MakeRows) -> None:
    model, _ = fit(make_rows(800), "ttft_ms", SMALL, seed=0)
    rows = make_rows(600, seed=1)
    cut = replace(rows, censored=np.arange(600) % 3 == 0, latency_ms=np.where(np.arange(600) % 3, rows.latency_ms, 5.0))
    new = make_rows(600, seed=2)
    ratio = extend(model, cut, SMALL, seed=0).predict(new.features).mean() / new.latency_ms.mean()
    assert ratio == pytest.approx(1.0, abs=0.05)
