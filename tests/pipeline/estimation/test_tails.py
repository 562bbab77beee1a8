"""The tails of one-step estimation, by hand and by their definitions."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import block_se
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.estimators.snipw import snipw
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput, weights
from lodestar.pipeline.estimation.tails import TailEstimate, tail_measures
from lodestar.pipeline.estimation.tails.cdf import cost_grid, grid_cdf
from lodestar.pipeline.estimation.tails.conditional import on_grid
from lodestar.pipeline.estimation.tails.direct import direct_cdf
from lodestar.pipeline.estimation.tails.doubly_robust import doubly_robust_cdf
from lodestar.pipeline.estimation.tails.heads import QuantileHeads
from lodestar.pipeline.estimation.tails.residuals import residual_cdf
from lodestar.pipeline.estimation.tails.support import effective_size, unseen_ratio
from lodestar.pipeline.estimation.tails.weighted import weighted_cdf

Floats = NDArray[np.float64]


def ragged(seed: int, n: int = 60) -> OneStepInput:
    """Decisions of 1 to 4 candidates with random policies; costs are 40 % off what is predicted."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 5, n)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    logging, target = (random.gamma(1.0, 1.0, offsets[-1]) + 0.05 for _ in range(2))
    for each in (logging, target):
        each /= np.repeat(np.add.reduceat(each, offsets[:-1]), counts)
    chosen = np.array([random.choice(np.arange(a, b), p=logging[a:b]) for a, b in pairwise(offsets)])
    predicted = random.lognormal(5, 0.7, offsets[-1])
    cost = predicted[chosen] * random.lognormal(0, 0.4, n)
    log = LoggedDecisions(cost, offsets, chosen, logging[chosen], logging)
    return OneStepInput(log, target, predicted)


def of(found: list[TailEstimate], measure: str, estimator: str) -> TailEstimate:
    return next(each for each in found if (each.measure, each.estimator) == (measure, estimator))


def alone(cost: Floats, predicted: float | None = None) -> OneStepInput:
    """Return a log of one candidate a decision, so that all weights are 1."""
    n = len(cost)
    log = LoggedDecisions(cost, np.arange(n + 1), np.arange(n), np.ones(n), np.ones(n))
    return OneStepInput(log, np.ones(n), None if predicted is None else np.full(n, predicted))


@pytest.mark.parametrize("seed", range(5))
def test_cdfs_are_what_their_definitions_say(seed: int) -> None:
    rows, block = ragged(seed), 7
    log, n, w = rows.log, rows.log.decisions, weights(rows)
    assert rows.predicted is not None
    least = np.log(rows.predicted.min())
    predicted = np.exp(least + 0.002 * np.rint((np.log(rows.predicted) - least) / 0.002))
    fold = (np.arange(n) // block) * 4 // 9  # of 9 blocks

    def conditional(t: float, i: int, candidate: int) -> float:
        others = [j for j in range(n) if fold[j] != fold[i]]
        return float(np.mean([log.cost[j] / predicted[log.chosen[j]] <= t / predicted[candidate] for j in others]))

    on = on_grid(residual_cdf(rows, block), np.quantile(log.cost, [0.1, 0.4, 0.7, 0.95]))
    for t, said, corrected in zip(
        on.grid, direct_cdf(rows, on, block).raw, doubly_robust_cdf(rows, on, block).raw, strict=True
    ):
        direct = [
            sum(rows.target[c] * conditional(t, i, c) for c in range(log.offsets[i], log.offsets[i + 1]))
            for i in range(n)
        ]
        error = [w[i] * ((log.cost[i] <= t) - conditional(t, i, log.chosen[i])) for i in range(n)]
        assert said == pytest.approx(np.mean(direct), abs=1e-12)
        assert corrected == pytest.approx(np.mean(direct) + np.mean(error), abs=1e-12)
        weighted = sum(w[i] for i in range(n) if log.cost[i] <= t) / w.sum()
        assert weighted_cdf(rows, block).share(float(t))[0] == pytest.approx(weighted, abs=1e-12)


@given(st.integers(0, 1000), st.integers(2, 300), st.sampled_from([0.25, 0.5, 0.9, 0.99]))
def test_with_weights_of_one_the_quantile_is_numpys(seed: int, n: int, level: float) -> None:
    cost = np.round(np.random.default_rng(seed).lognormal(5, 1, n), 1)
    expected = np.quantile(cost, level, method="inverted_cdf")
    assert weighted_cdf(alone(cost), block=1).quantile(level) == expected


def test_the_mean_of_the_tail_by_hand() -> None:
    cdf = weighted_cdf(alone(np.arange(1.0, 101.0)), block=1)
    assert cdf.beyond(0.9)[0] == pytest.approx(95.5)  # the mean of 91 … 100
    assert cdf.beyond(0.985)[0] == pytest.approx((0.5 * 99 + 100) / 1.5)  # half of 99's share lies beyond


def test_the_mean_beyond_a_straight_cdf_is_half_way_up() -> None:
    grid = np.linspace(0.0, 10.0, 11)
    cdf = grid_cdf(grid, np.tile(grid / 10, (4, 1)), decisions=4, block=1)
    assert cdf.quantile(0.75) == pytest.approx(7.5)
    assert cdf.beyond(0.75) == pytest.approx((8.75, 0.0))


def test_errors_of_quantile_and_tail_are_those_of_the_weighted_costs() -> None:
    rows = ragged(3, n=400)
    cdf, w, cost = weighted_cdf(rows, block=20), weights(rows), rows.log.cost
    start = cdf.quantile(0.8)
    level = np.average(cost <= start, weights=w)
    assert cdf.level_error(start) == pytest.approx(block_se(w * ((cost <= start) - level) / w.mean(), 20))
    excess = np.maximum(cost - start, 0) / 0.2
    expected = block_se(w * (excess - np.average(excess, weights=w)) / w.mean(), 20)
    assert cdf.beyond(0.8)[1] == pytest.approx(expected)


def test_the_tail_of_a_cdf_on_a_grid_has_the_error_of_its_integral() -> None:
    random = np.random.default_rng(0)
    cost = random.exponential(100, 2000)
    grid = np.concatenate([[0.0], np.linspace(1, cost.max(), 4000)])
    blocks = [(part[:, None] <= grid).sum(axis=0) for part in np.split(cost, 40)]
    cdf, weighted = grid_cdf(grid, np.array(blocks, dtype=float), 2000, 50), weighted_cdf(alone(cost), 50)
    assert cdf.beyond(0.9)[0] == pytest.approx(weighted.beyond(0.9)[0], rel=1e-3)
    assert cdf.beyond(0.9)[1] == pytest.approx(weighted.beyond(0.9)[1], rel=0.01)


def test_the_share_within_a_limit_is_the_ordinary_estimate_of_an_indicator() -> None:
    rows, slo, block = ragged(1, n=3000), 200.0, 100
    found = tail_measures(rows, block, slo)
    within = replace(rows.log, cost=(rows.log.cost <= slo).astype(float))
    weighted = snipw(replace(rows, log=within))
    said = of(found, "slo", "snipw")
    assert said.value == pytest.approx(weighted.value)
    unseen = unseen_ratio(rows, block)
    assert 0 < unseen < 0.03
    wide = 2.045 * block_se(weighted.influence, block) + unseen  # Student's t of 30 blocks
    assert said.low == pytest.approx(weighted.value - wide, abs=1e-4)
    assert said.high == pytest.approx(weighted.value + wide, abs=1e-4)
    model = residual_cdf(rows, block)
    shares = np.zeros(rows.log.candidates)  # F̂(slo) of every candidate, as a prediction of the indicator
    fold = np.repeat(np.repeat(model.fold, block), rows.log.counts)
    for each in range(4):
        shares[fold == each] = model.table(each, np.array([slo]))[model.place[fold == each], 0]
    robust = dr(OneStepInput(within, rows.target, shares))
    said = of(found, "slo", "dr")
    assert said.value == pytest.approx(robust.value)
    assert said.high == pytest.approx(robust.value + 2.045 * block_se(robust.influence, block) + unseen, abs=1e-4)


def test_the_interval_of_a_quantile_reads_the_cdf_at_the_level_and_its_error() -> None:
    rows = alone(np.random.default_rng(1).exponential(100, 4000))
    cost = rows.log.cost
    said = of(tail_measures(rows, block=100), "p90", "snipw")
    assert said.value is not None
    half = 2.0227 * block_se((cost <= said.value).astype(float), 100)  # Student's t of 40 blocks
    below = 2.0227 * block_se((cost < said.value).astype(float), 100)
    assert said.low == np.quantile(cost, 0.9 - below, method="inverted_cdf")
    assert said.high == np.quantile(cost, 0.9 + half, method="inverted_cdf")


def test_a_decision_never_enters_its_own_cdf() -> None:
    rows = ragged(2, n=200)
    changed = rows.log.cost.copy()
    changed[:50] *= 100  # the first of four folds
    moved = replace(rows, log=replace(rows.log, cost=changed))
    before, after = (residual_cdf(each, block=10) for each in (rows, moved))
    grid = np.array([50.0, 150.0, 1000.0])
    assert (before.table(0, grid) == after.table(0, grid)).all()
    assert (before.table(1, grid) != after.table(1, grid)).any()


def test_a_candidate_is_no_point_mass() -> None:
    cost = np.random.default_rng(0).lognormal(np.log(100), 0.5, 8000)
    found = tail_measures(alone(cost, predicted=100.0), block=200)
    for level in (0.5, 0.9, 0.99):
        said = of(found, f"p{100 * level:g}", "dm").value
        assert said == pytest.approx(np.quantile(cost, level), rel=0.01)


def test_a_dip_is_mended_by_the_largest_so_far_and_shares_are_kept_within_0_and_1() -> None:
    raw = np.array([-0.1, 0.95, 0.85, 0.95, 1.1])
    cdf = grid_cdf(np.arange(1.0, 6.0), np.tile(raw, (2, 1)), decisions=2, block=1)
    assert cdf.rising.tolist() == [0.0, 0.95, 0.95, 0.95, 1.0]
    assert cdf.raw == pytest.approx(raw)


@pytest.mark.parametrize("seed", range(10))
def test_a_doubly_robust_cdf_rises_from_0_to_1(seed: int) -> None:
    rows = ragged(seed)
    model = residual_cdf(rows, 10)
    cdf = doubly_robust_cdf(rows, on_grid(model, cost_grid(rows.log.cost, model.top, None)), 10)
    assert (np.diff(cdf.rising) >= 0).all()
    assert cdf.rising[0] >= 0
    assert cdf.rising[-1] == pytest.approx(1.0)
    quantiles = [cdf.quantile(level) for level in (0.01, 0.3, 0.5, 0.9, 0.99)]
    assert quantiles == sorted(quantiles)


def test_the_unit_of_the_cost_changes_the_unit_of_the_answer() -> None:
    rows = ragged(4, n=3000)
    assert rows.predicted is not None
    in_s = replace(rows, log=replace(rows.log, cost=rows.log.cost / 1024), predicted=rows.predicted / 1024)
    for ms, s in zip(tail_measures(rows, 100, 256.0), tail_measures(in_s, 100, 0.25), strict=True):
        unit = 1.0 if ms.measure == "slo" else 1024.0
        assert (ms.refused is None) == (s.refused is None)
        if ms.value is not None and s.value is not None and ms.low is not None and s.low is not None:
            assert ms.value == pytest.approx(unit * s.value, rel=1e-6), ms
            assert ms.low == pytest.approx(unit * s.low, rel=1e-6), ms


def test_neither_the_order_of_candidates_nor_a_second_call_changes_anything() -> None:
    rows = ragged(5, n=1500)
    assert rows.predicted is not None
    assert rows.log.logging is not None
    c = rows.log.candidates
    turned = np.lexsort((-np.arange(c), rows.log.decision))  # every decision's candidates back to front
    log = replace(rows.log, chosen=np.argsort(turned)[rows.log.chosen], logging=rows.log.logging[turned])
    first = tail_measures(rows, 50, 200.0)
    assert first == tail_measures(rows, 50, 200.0)
    for one, other in zip(
        first, tail_measures(OneStepInput(log, rows.target[turned], rows.predicted[turned]), 50, 200.0), strict=True
    ):
        assert one.value == (None if other.value is None else pytest.approx(other.value, rel=1e-9))


def test_heads_give_the_distribution_they_state() -> None:
    random, n = np.random.default_rng(0), 6000
    log_median, spread = random.normal(5, 0.5, n), random.uniform(0.1, 0.6, n)
    rows = alone(np.exp(log_median + spread * random.normal(size=n)))
    levels, scores = np.array([0.5, 0.9, 0.99]), np.array([0.0, 1.2815516, 2.3263479])
    values = np.exp(log_median[:, None] + spread[:, None] * scores)
    found = tail_measures(rows, 100, slo=200.0, heads=QuantileHeads(levels, values))
    many = np.exp(log_median + spread * random.normal(size=(400, n)))
    for level in (0.5, 0.9, 0.99):
        assert of(found, f"p{100 * level:g}", "dm").value == pytest.approx(np.quantile(many, level), rel=0.01)
    assert of(found, "slo", "dm").value == pytest.approx((many <= 200).mean(), abs=0.003)
    assert of(tail_measures(rows, 100, heads=QuantileHeads(levels, values[:, [2, 0, 1]])), "p90", "dm").value == (
        of(found, "p90", "dm").value  # heads that cross are put in order
    )
    beyond = of(tail_measures(rows, 100, levels=(0.995,), heads=QuantileHeads(levels, values)), "p99.5", "dm")
    assert "p99.5 lies beyond 0.99" in str(beyond.refused)
    assert "cvar99 lies beyond 0.99" in str(of(found, "cvar99", "dm").refused)
    some = np.where(np.arange(n)[:, None] == 5, np.nan, values)
    lacking = tail_measures(rows, 100, heads=QuantileHeads(levels, some))
    assert "a quantile is not finite" in str(of(lacking, "p50", "dr").refused)


@pytest.mark.parametrize("seed", range(4))
def test_the_unseen_share_is_what_the_log_was_to_make_fewer_than_three_times(seed: int) -> None:
    rows = ragged(seed, n=500)
    assert rows.log.logging is not None
    visits, share = 0.0, 0.0
    for c in np.argsort(-rows.target / rows.log.logging):
        visits += rows.log.logging[c]
        if visits >= 3:
            break
        share += rows.target[c] / 500
    assert unseen_ratio(rows, 20) == pytest.approx(share)
    assert share > 0


@pytest.mark.parametrize(("met", "size"), [(0.0, 40), (1.0, 40), (0.25, 40)])
def test_few_requests_on_one_side_of_a_limit_widen_to_the_binomial_interval(met: float, size: int) -> None:
    cost = np.where(np.arange(4 * size) < 4 * size * met, 1.0, 3.0)
    found = of(tail_measures(alone(cost), block=1, slo=2.0), "slo", "snipw")
    exact = binomtest(int(met * len(cost)), len(cost)).proportion_ci(method="exact")
    assert found.low is not None
    assert found.high is not None
    if met in (0.0, 1.0):
        assert found.low == pytest.approx(exact.low, abs=1e-9)
        assert found.high == pytest.approx(exact.high, abs=1e-9)
        assert "few requests are on one side" in found.notes[0]
    else:
        assert found.notes == ()


def test_what_is_not_usable_is_named() -> None:
    rows = ragged(0)
    with pytest.raises(ConfigError, match="level 1 is no level"):
        tail_measures(rows, 10, levels=(1.0,))
    with pytest.raises(ConfigError, match="slo -5 is not usable"):
        tail_measures(rows, 10, slo=-5.0)
    with pytest.raises(ConfigError, match="at least two blocks"):
        tail_measures(rows, 60)
    with pytest.raises(ConfigError, match="blocks are too many for a CDF"):
        on_grid(residual_cdf(alone(np.ones(10_000), 1.0), 1), np.linspace(1, 2, 3000))
    with pytest.raises(DataError, match="ascending in"):
        QuantileHeads(np.array([0.9, 0.5]), np.ones((3, 2)))
    with pytest.raises(DataError, match=r"expected \(candidates, 2\)"):
        QuantileHeads(np.array([0.5, 0.9]), np.ones((3, 3)))


def test_a_limit_below_all_costs_moves_no_quantile_towards_it() -> None:
    random = np.random.default_rng(0)
    chosen = np.arange(900) * 2 + random.integers(0, 2, 900)
    log = LoggedDecisions(np.full(900, 5.0), np.arange(901) * 2, chosen, np.full(900, 0.5))
    rows = OneStepInput(log, np.full(1800, 0.5), np.full(1800, 5.0))
    told = {each.measure: each for each in tail_measures(rows, 75, slo=1.0, levels=(0.9,)) if each.estimator == "dm"}
    assert told["p90"].value == pytest.approx(5.0)
    assert told["cvar90"].value == pytest.approx(5.0)
    assert told["slo"].value == 0.0


def test_the_effective_size_neither_overflows_nor_vanishes() -> None:
    weight = np.array([1.0, 1.0, 2.0])
    for scale in (1e-200, 1.0, 1e200):
        assert effective_size(scale * weight) == pytest.approx(16 / 6)
