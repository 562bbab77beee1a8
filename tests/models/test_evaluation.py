"""The figures of an evaluation: what they are, what may move them and what may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.evaluation.censored import coverage, coverage_bounds, kaplan_meier_coverage
from lodestar.models.evaluation.compare import differences
from lodestar.models.evaluation.controls import refitted, shuffled
from lodestar.models.evaluation.errors import point_scores, reliability, saturation
from lodestar.models.evaluation.parts import POINT_METRICS, estimate, point_parts
from lodestar.models.evaluation.permutation import correlated_groups, permutation_importance
from lodestar.models.evaluation.ranking import Choices, pick_probability, rank_parts, ranking, snips_parts
from lodestar.models.evaluation.shap import shap_points, shap_table
from lodestar.models.evaluation.slicing import slices_of
from lodestar.models.evaluation.spearman import spearman_parts
from lodestar.models.fit import fit
from lodestar.models.metrics import accuracy
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
MakeRows = Callable[..., Rows]
WAITING, TOKENS = FEATURE_NAMES.index("waiting_requests"), FEATURE_NAMES.index("prefill_tokens")


def make_choices(n: int = 400, m: int = 4, noise: float = 0.2, seed: int = 0) -> tuple[Choices, Floats]:
    """Uniform choices among candidates whose true cost is 100 ms and 1 ms a prefill token; return that cost too."""
    rng = np.random.default_rng(seed)
    features = np.full((n, m, len(FEATURE_NAMES)), np.nan)
    features[:, :, TOKENS] = rng.uniform(0.0, 1000.0, (n, m)) + rng.uniform(0.0, 3000.0, (n, 1))
    cost_ms = 100.0 + features[:, :, TOKENS]
    chosen = rng.integers(0, m, n)
    latency_ms = cost_ms[np.arange(n), chosen] * np.exp(rng.normal(0.0, noise, n))
    return Choices(features, np.ones((n, m), dtype=np.bool_), chosen, latency_ms, np.full(n, 1.0 / m)), cost_ms


def value(parts: Floats) -> float:
    return float(parts.mean())


@pytest.mark.parametrize("metric", POINT_METRICS)
def test_the_parts_of_a_metric_have_it_as_their_mean(metric: str) -> None:
    rng = np.random.default_rng(0)
    measured = rng.lognormal(6.0, 1.0, 300)
    predicted = measured * rng.lognormal(0.0, 0.3, 300)
    assert value(point_parts(measured, predicted)[metric]) == pytest.approx(accuracy(measured, predicted)[metric])


def test_the_parts_of_r2_are_what_a_little_more_weight_of_a_row_does() -> None:
    """Oracle: the derivative of weighted R² by the weight of each row, by difference."""
    rng = np.random.default_rng(1)
    measured = rng.lognormal(6.0, 0.5, 100)
    predicted = measured * rng.lognormal(0.0, 0.3, 100)

    def weighted(weight: Floats) -> float:
        mean = float(weight @ measured)
        return 1.0 - float(weight @ (measured - predicted) ** 2) / float(weight @ (measured - mean) ** 2)

    equal, little = np.full(100, 0.01), 1e-7
    slopes = [(weighted((1 - little) * equal + little * row) - weighted(equal)) / little for row in np.eye(100)]
    assert point_parts(measured, predicted)["r2"] == pytest.approx(weighted(equal) + np.array(slopes), abs=1e-4)


def test_the_parts_of_spearman_are_those_of_the_jackknife_ties_included() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 7, 200).astype(np.float64)
    y = x + rng.normal(0.0, 4.0, 200)
    parts = spearman_parts(x, y)
    assert value(parts) == pytest.approx(spearmanr(x, y).statistic)
    without = [spearmanr(np.delete(x, i), np.delete(y, i)).statistic for i in range(200)]
    pseudo = 200 * value(parts) - 199 * np.array(without)
    assert parts == pytest.approx(pseudo, abs=0.05 * pseudo.std())


def test_what_never_varies_has_no_correlation_and_no_r2() -> None:
    assert np.isnan(spearman_parts(np.ones(50), np.arange(50.0))).all()
    assert estimate(point_parts(np.full(50, 7.0), np.arange(1.0, 51.0))["r2"])["value"] is None


def test_few_rows_have_a_value_and_no_interval() -> None:
    assert estimate(np.array([1.0, 2.0])) == {"value": 1.5, "low": None, "high": None}
    assert estimate(np.empty(0))["value"] is None


def test_snips_of_the_right_order_is_the_mean_of_the_cheapest_and_of_a_coin_the_logged_mean() -> None:
    choices, cost_ms = make_choices(n=20_000, noise=0.1)
    best = cost_ms.min(axis=1).mean() / cost_ms.mean() - 1.0
    assert value(snips_parts(choices, cost_ms)) == pytest.approx(best, abs=0.02)
    found = estimate(snips_parts(choices, np.random.default_rng(5).random(cost_ms.shape)))
    assert found["low"] < 0.0 < found["high"]


def test_equal_predictions_share_the_pick_and_change_nothing() -> None:
    choices, cost_ms = make_choices()
    level = np.ones_like(cost_ms)
    assert pick_probability(choices, level) == pytest.approx(0.25)
    assert value(snips_parts(choices, level)) == pytest.approx(0.0)
    assert ranking(choices, level)["rank_correlation"]["value"] is None


def test_only_the_order_within_a_decision_moves_the_ranking() -> None:
    choices, cost_ms = make_choices()
    rng = np.random.default_rng(3)
    predicted = cost_ms * rng.lognormal(0.0, 0.2, cost_ms.shape)
    before, shifted = ranking(choices, predicted), ranking(choices, predicted + rng.normal(0.0, 1e4, (len(choices), 1)))
    for name in ("snips", "rank_correlation", "cost_correlation"):
        assert shifted[name] == pytest.approx(before[name], abs=1e-9)
    scaled = rank_parts(choices, predicted * rng.uniform(0.1, 9.0, (len(choices), 1)))
    assert value(scaled["rank_correlation"]) == pytest.approx(before["rank_correlation"]["value"])
    assert value(scaled["snips"]) == pytest.approx(before["snips"]["value"])


def test_a_better_order_has_a_higher_correlation_and_noise_has_none() -> None:
    choices, cost_ms = make_choices()
    rng = np.random.default_rng(4)
    exact, near, blind = (
        ranking(choices, cost_ms * np.exp(rng.normal(0.0, noise, cost_ms.shape))) for noise in (0.0, 0.4, 20.0)
    )
    assert exact["rank_correlation"]["low"] > near["rank_correlation"]["value"] > 0.0
    assert blind["rank_correlation"]["low"] < 0.0 < blind["rank_correlation"]["high"]
    assert value(rank_parts(choices, -cost_ms)["rank_correlation"]) == pytest.approx(
        -exact["rank_correlation"]["value"]
    )


def test_a_request_level_forecast_ranks_nothing() -> None:
    choices, cost_ms = make_choices()
    found = ranking(choices, np.repeat(cost_ms.mean(axis=1, keepdims=True), 4, axis=1))
    assert found["rank_correlation"]["value"] is None
    assert found["snips"]["value"] == pytest.approx(0.0, abs=1e-9)


def test_instances_that_are_no_candidates_are_never_picked() -> None:
    choices, cost_ms = make_choices()
    candidate = choices.candidate.copy()
    candidate[np.arange(len(choices)), (choices.chosen + 1) % 4] = False
    fewer = replace(choices, candidate=candidate, propensity=np.full(len(choices), 1 / 3))
    wild = np.where(candidate, cost_ms, -1e9)
    assert ranking(fewer, wild) == ranking(fewer, cost_ms)


def test_without_propensities_there_is_no_snips_and_with_few_decisions_nothing() -> None:
    choices, cost_ms = make_choices()
    unknown = ranking(replace(choices, propensity=np.full(len(choices), np.nan)), cost_ms)
    assert unknown["snips"]["value"] is None
    assert unknown["ess"] is None
    assert unknown["rank_correlation"]["low"] > 0.0
    few, cost_ms = make_choices(n=10)
    assert ranking(few, cost_ms)["rank_correlation"]["value"] is None


def test_kaplan_meier_finds_the_coverage_that_censoring_hides() -> None:
    rng = np.random.default_rng(0)
    true_ms, cut_ms = rng.exponential(100.0, 5000), rng.exponential(200.0, 5000)
    measured, censored, p90_ms = np.minimum(true_ms, cut_ms), true_ms > cut_ms, np.full(5000, 100.0 * np.log(10.0))
    assert kaplan_meier_coverage(measured, p90_ms, censored) == pytest.approx(0.9, abs=0.015)
    assert (measured <= p90_ms)[~censored].mean() > 0.93  # dropping them flatters
    least, most = coverage_bounds(measured, p90_ms, censored)
    found = coverage(measured, p90_ms, censored)
    assert least < found["low"] < found["value"] < found["high"] < most
    assert (found["least"], found["most"]) == (least, most)


def test_without_censored_rows_kaplan_meier_is_the_plain_share() -> None:
    rng = np.random.default_rng(1)
    measured, predicted = rng.exponential(100.0, 300), rng.exponential(200.0, 300)
    none = np.zeros(300, dtype=np.bool_)
    assert kaplan_meier_coverage(measured, predicted, none) == pytest.approx(float((measured <= predicted).mean()))
    assert "least" not in coverage(measured, predicted, none)


def test_of_requests_that_were_all_cut_off_only_the_bounds_are_known() -> None:
    found = coverage(np.array([50.0, 150.0]), np.full(2, 100.0), np.ones(2, dtype=np.bool_))
    assert found == {"value": None, "low": None, "high": None, "least": 0.0, "most": 0.5}


def test_cut_off_requests_are_left_out_of_errors_and_kept_in_saturation(make_rows: MakeRows) -> None:
    rows = make_rows(400)
    rows.features[:, WAITING] = 8.0
    predicted = rows.latency_ms + 1.0
    rows.censored[::4] = True
    rows.latency_ms[::4] += 1000.0
    assert point_scores(rows, predicted)["mae_ms"]["value"] == pytest.approx(1.0)
    found = saturation(rows, predicted)[0]
    assert (found["rows"], found["censored"]) == (400, 100)
    assert found["bias_ms"]["value"] == pytest.approx(1.0 - 250.0)


def test_optimism_near_saturation_is_found_with_its_sign(make_rows: MakeRows) -> None:
    rows = make_rows(400)
    rows.features[:, WAITING] = np.arange(400) // 40
    full = rows.features[:, WAITING] >= 6
    found = saturation(rows, np.where(full, 0.5, 1.0) * rows.latency_ms)
    assert [each["where"] for each in found] == ["6 or more waiting", "longest tenth of queues"]
    assert found[0]["bias_ratio"] == pytest.approx(-0.5)
    assert found[0]["bias_ms"]["high"] < 0.0
    assert found[1]["from_requests"] == 9.0


def test_reliability_has_a_tenth_of_the_rows_a_line_in_order(make_rows: MakeRows) -> None:
    rows = make_rows(305)
    lines = reliability(rows, rows.latency_ms * 2.0)
    assert [line["rows"] for line in lines] == [31, 30, 31, 30, 31, 30, 31, 30, 31, 30]
    predicted = [line["predicted_ms"] for line in lines]
    assert predicted == sorted(predicted)
    assert predicted == pytest.approx([2.0 * line["measured_ms"]["value"] for line in lines])


def test_every_row_is_in_one_slice_of_each_kind(make_rows: MakeRows) -> None:
    features = make_rows(200).features
    features[:50, FEATURE_NAMES.index("hit_ratio")] = np.nan
    gpu = ["L20", "", "H100", "L20"] * 50
    found = slices_of(features, gpu)
    assert {each.by for each in found} == {"waiting requests", "hit ratio", "prompt tokens", "GPU"}
    for by in {each.by for each in found}:
        assert (sum(each.rows.astype(int) for each in found if each.by == by) == 1).all()
    assert [each.name for each in found if each.by == "GPU"] == ["H100", "L20", "unknown"]
    assert not [each for each in slices_of(features) if each.by == "GPU"]


def test_a_model_against_itself_differs_in_nothing_and_a_better_one_is_named(make_rows: MakeRows) -> None:
    rows = make_rows(400)
    choices, cost_ms = make_choices()
    noisy = cost_ms * np.random.default_rng(2).lognormal(0.0, 0.5, cost_ms.shape)
    exact = 40.0 + 0.1 * rows.features[:, TOKENS]
    quantiles = np.stack([exact, 1.3 * exact, 1.6 * exact], axis=1)
    same = differences(rows, (exact, exact), (quantiles, quantiles), choices, (cost_ms, cost_ms))
    assert {line["difference"]["value"] for line in same} == {0.0}
    assert {line["better"] for line in same} == {"neither", None}
    found = differences(rows, (exact, 1.5 * exact), (quantiles, None), choices, (cost_ms, noisy))
    better = {line["metric"]: line["better"] for line in found}
    assert {better[name] for name in ("mae_ms", "mape", "r2", "r2_log", "rank_correlation")} == {"model"}
    assert better["bias_ms"] is None
    assert not [name for name in better if "pinball" in name]
    turned = differences(rows, (1.5 * exact, exact), (None, quantiles), choices, (noisy, cost_ms))
    assert {line["metric"]: line["better"] for line in turned}["mae_ms"] == "against"


def test_permutation_finds_what_a_prediction_stands_on_also_where_features_stand_in_for_each_other() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(0.0, 100.0, (500, len(FEATURE_NAMES)))
    features[:, 1] = features[:, 0] + rng.normal(0.0, 1.0, 500)
    features[:, 2] = np.nan
    features[:, 3] = 5.0
    found = permutation_importance(
        lambda x: (x[:, 0] + x[:, 1]) / 2.0 + x[:, 4], features, features[:, 0] + features[:, 4]
    )
    growth = {tuple(each["features"]): each["mae_growth_ms"] for each in found}
    together = growth[FEATURE_NAMES[0], FEATURE_NAMES[1]]
    assert together["low"] > growth[FEATURE_NAMES[0],]["high"] > 0.0
    assert growth[FEATURE_NAMES[5],]["value"] == 0.0
    assert (FEATURE_NAMES[2],) not in growth
    assert (FEATURE_NAMES[3],) not in growth


def test_a_chain_of_correlations_is_no_group() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2000))
    features = np.stack([a, a + b, b, -a], axis=1)  # 0.7 between neighbours, none between the ends
    groups = correlated_groups(features, [0, 1, 2, 3])
    assert [0, 3] in [[of for of in group if of in (0, 3)] for group in groups]
    assert not any({0, 2} <= set(group) for group in groups)


def test_shap_values_add_up_to_what_the_trees_say(make_rows: MakeRows) -> None:
    rows = make_rows(300)
    model, _ = fit(rows, "ttft_ms", Parameters(rounds=10, min_data_in_leaf=10), seed=0, heads=False)
    points = shap_points(model, rows.features)
    log_ratio = np.log(model.predict(rows.features) / model.mean_ratio / model.baseline.predict(rows.features))
    offset = log_ratio - points.contributions.sum(axis=1)
    assert offset == pytest.approx(np.full(300, offset[0]))
    table = shap_table(points)
    assert len(table) == len(model.features)
    assert [line["mean_abs"] for line in table] == sorted((line["mean_abs"] for line in table), reverse=True)


def test_labels_without_meaning_teach_nothing(make_rows: MakeRows) -> None:
    training, rows = make_rows(800), make_rows(400, seed=1)
    parameters = Parameters(rounds=10)
    found = shuffled(training, rows, "ttft_ms", parameters, [0, 1])
    assert abs(found["r2_log"]) < found["limit_r2_log"] < 0.4
    assert not found["leaks"]
    assert found["mae_ms"] > 2 * refitted(training, rows, "ttft_ms", parameters, [0, 1])["mean_ms"]
    rows.latency_ms[:] *= 5.0  # a change of the level is no knowledge
    slower = shuffled(training, rows, "ttft_ms", parameters, [0, 1])
    assert slower["r2_log"] == pytest.approx(found["r2_log"])
    assert slower["mae_ms"] > found["mae_ms"]


def test_a_shuffle_that_does_not_shuffle_is_caught(make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lodestar.models.evaluation.controls._relabelled", lambda training, order: training)
    assert shuffled(make_rows(800), make_rows(400, seed=1), "ttft_ms", Parameters(rounds=10), [0])["leaks"]
