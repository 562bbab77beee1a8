from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import COUNTS, WORKS, Baseline, fit_baseline
from lodestar.models.fit import extend, fit
from lodestar.models.metrics import coverage, mae_ms
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.textmodel import parse_trees

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


def test_quantiles_cover_what_they_promise_on_new_rows(make_rows: MakeRows) -> None:
    model, _ = fit(make_rows(3000), "ttft_ms", SMALL, seed=0)
    new = make_rows(3000, seed=1)
    for quantile, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert coverage(new.latency_ms, model.predict_quantile(new.features, quantile)) == pytest.approx(
            share, abs=0.04
        )


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
