"""The tails of one-step estimation against a known truth, and where no number may be told."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr

from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.tails import TailEstimate, tail_measures
from lodestar.pipeline.estimation.tails.support import unseen_ratio
from lodestar.pipeline.estimation.tails.weighted import weighted_cdf

Floats = NDArray[np.float64]

N, M, SLO = 8000, 4, 250.0
LEVELS = (0.5, 0.9, 0.95)
QUANTILES = ("p50", "p90", "p95")


@dataclass(frozen=True)
class World:
    """Log-normal costs whose spread grows with the queue; the policy takes the shortest queue, corrected for hits."""

    log_mean: Floats
    log_sd: Floats
    logging: Floats
    target: Floats
    hit: NDArray[np.bool_]


def world(seed: int, n: int = N) -> World:
    random = np.random.default_rng(seed)
    queue, hit = random.lognormal(0.3, 0.9, (n, M)), random.random((n, M)) < 0.3
    log_mean = np.log(100 * random.lognormal(0, 0.6, (n, 1)) * np.where(hit, 0.4, 1.0) + 60 * queue)
    preference = (1 + queue) ** -1.5 * np.where(hit, 1.8, 1.0)
    score = np.log1p(queue) - 0.8 * hit
    return World(
        log_mean,
        0.15 + 0.12 * np.log1p(queue),
        0.7 * preference / preference.sum(axis=1)[:, None] + 0.3 / M,
        (score == score.min(axis=1)[:, None]).astype(float),
        hit,
    )


def logged(seed: int, blind: bool) -> OneStepInput:
    made, random, rows = world(seed), np.random.default_rng([seed, 1]), np.arange(N)
    column = (random.random((N, 1)) > made.logging.cumsum(axis=1)[:, :-1]).sum(axis=1)
    cost = np.exp(made.log_mean + made.log_sd * random.normal(size=(N, M)))[rows, column]
    chosen = rows * M + column
    log = LoggedDecisions(cost, np.arange(N + 1) * M, chosen, made.logging[rows, column], made.logging.ravel())
    predicted = np.exp(made.log_mean + (0.4 * made.hit if blind else 0.03 * np.sin(5 * made.log_mean)))
    return OneStepInput(log, made.target.ravel(), predicted.ravel())


@pytest.fixture(scope="module")
def truth() -> dict[str, float]:
    made, grid = world(10**6, 60_000), np.geomspace(30, 5000, 400)
    mean, sd = made.log_mean[made.target > 0], made.log_sd[made.target > 0]
    reached = np.array([ndtr((np.log(t) - mean) / sd).mean() for t in grid])
    found = {f"p{100 * level:g}": float(np.interp(level, reached, grid)) for level in LEVELS}
    for level in LEVELS[1:]:
        costs = np.interp(np.linspace(level, 1, 10_001)[:-1] + (1 - level) / 20_000, reached, grid)
        found[f"cvar{100 * level:g}"] = float(costs.mean())
    return {**found, "slo": float(np.interp(SLO, grid, reached))}


@pytest.fixture(scope="module", params=[False, True], ids=["a good model", "a model blind to hits"])
def told(request: pytest.FixtureRequest) -> dict[tuple[str, str], list[TailEstimate]]:
    found: dict[tuple[str, str], list[TailEstimate]] = {}
    for seed in range(14):
        for each in tail_measures(logged(seed, blind=request.param), N // 25, SLO, LEVELS):
            found.setdefault((each.measure, each.estimator), []).append(each)
    return found


def off(told: list[TailEstimate], truth: float) -> float:
    return float(np.sqrt(np.mean([(each.value / truth - 1) ** 2 for each in told if each.value is not None])))


def test_doubly_robust_is_right_and_never_worst(
    told: dict[tuple[str, str], list[TailEstimate]], truth: dict[str, float]
) -> None:
    for measure, most in (("p50", 0.02), ("p90", 0.025), ("p95", 0.04), ("cvar90", 0.03), ("slo", 0.01)):
        by = {name: off(told[measure, name], truth[measure]) for name in ("snipw", "dm", "dr")}
        assert by["dr"] < most, (measure, by)
        assert by["dr"] < 1.1 * max(by["snipw"], by["dm"]), (measure, by)


def test_intervals_hold_the_truth(told: dict[tuple[str, str], list[TailEstimate]], truth: dict[str, float]) -> None:
    held = [
        each.low <= truth[measure] <= each.high
        for measure in (*QUANTILES, "cvar90", "slo")
        for name in ("snipw", "dr")
        for each in told[measure, name]
        if each.low is not None and each.high is not None
    ]
    assert len(held) == 2 * 5 * 14
    assert 0.88 <= np.mean(held) <= 0.995


def test_every_number_has_its_estimand_and_the_model_says_that_it_speaks_alone() -> None:
    for each in tail_measures(logged(0, blind=False), N // 25, SLO):
        assert each.to_dict()["estimand"] == "one-step, logged states"
        assert any("only the model speaks" in note for note in each.notes) == (each.estimator == "dm")
        assert (each.ess is None) == (each.tail_ess is None) == (each.estimator == "dm")


def of(found: list[TailEstimate], measure: str, estimator: str) -> TailEstimate:
    return next(each for each in found if (each.measure, each.estimator) == (measure, estimator))


def alone(cost: Floats) -> OneStepInput:
    """Return a log of one candidate a decision, foretold to cost 1."""
    n = len(cost)
    log = LoggedDecisions(cost, np.arange(n + 1), np.arange(n), np.ones(n), np.ones(n))
    return OneStepInput(log, np.ones(n), np.ones(n))


def test_20_000_requests_tell_a_p99_and_no_p999() -> None:
    found = tail_measures(alone(np.random.default_rng(0).lognormal(0, 1, 20_000)), 800, levels=(0.99, 0.999))
    for name in ("snipw", "dm", "dr"):
        assert of(found, "p99", name).value is not None
        for measure in ("p99.9", "cvar99.9"):
            refused = of(found, measure, name)
            assert (refused.value, refused.low, refused.high) == (None, None, None)
            assert "log more" in str(refused.refused)
    assert of(found, "p99.9", "snipw").tail_ess == pytest.approx(20)
    assert "weighs like 20.0 requests beyond p99.9 (tail ESS), fewer than 30" in str(
        of(found, "p99.9", "snipw").refused
    )


def two_instances(seed: int, hard: float, n: int = 20_000, held: bool = True) -> OneStepInput:
    """Three requests in a hundred cost 100 times as much on instance 1, where the log sends them with chance `hard`.

    The policy always takes instance 1, so its P99 is beyond 50.
    """
    random = np.random.default_rng(seed)
    slow = random.random(n) < 0.03
    logging = np.where(slow, hard, 0.5)
    column = (random.random(n) < logging).astype(np.int64)
    cost = random.uniform(0.5, 1.5, n) * np.where(slow & (column == 1), 100.0, 1.0)
    every = np.stack([1 - logging, logging], axis=1)
    chosen = np.arange(n) * 2 + column
    log = LoggedDecisions(cost, np.arange(n + 1) * 2, chosen, every.ravel()[chosen], every.ravel() if held else None)
    return OneStepInput(log, np.tile([0.0, 1.0], n))


@pytest.mark.parametrize("hard", [0.003, 0.0005, 0.0])
def test_a_tail_that_the_log_never_took_is_refused_rather_than_flattered(hard: float) -> None:
    flattered = 0
    for seed in range(6):
        rows = two_instances(seed, hard)
        found = tail_measures(rows, 800, slo=50.0)
        assert of(found, "p99", "snipw").value is None
        assert of(found, "p50", "snipw").value == pytest.approx(1.0, abs=0.05)
        flattered += weighted_cdf(rows, 800).quantile(0.99) < 2
        share = of(found, "slo", "snipw")
        assert share.low is not None
        assert share.low < 0.975  # about 0.97 is true
    assert flattered > 0 or hard == 0.003  # with some luck the tail is seen, by few
    assert hard > 0 or flattered == 6


def test_a_tail_seen_by_few_heavy_requests_is_refused_for_its_tail_ess() -> None:
    found = of(tail_measures(two_instances(3, 0.01), 800), "p99", "snipw")
    assert found.tail_ess is not None
    assert 0 < found.tail_ess < 30
    assert "(tail ESS), fewer than 30" in str(found.refused)


def test_a_tail_well_seen_is_told() -> None:
    found = of(tail_measures(two_instances(0, 0.5), 800), "p99", "snipw")
    assert found.value is not None
    assert 60 < found.value < 160


def test_without_logged_probabilities_the_mean_weight_tells_what_is_unseen() -> None:
    rows = two_instances(0, 0.0, held=False)
    assert 0.005 < unseen_ratio(rows, 800) < 0.03
    found = of(tail_measures(rows, 800), "p99", "snipw")
    assert found.tail_ess is not None
    assert found.tail_ess > 30  # what is there looks well
    assert "hardly ever made" in str(found.refused)
    assert unseen_ratio(two_instances(0, 0.0), 800) == pytest.approx(0.03, abs=0.005)
    assert unseen_ratio(two_instances(0, 0.5, held=False), 800) == 0.0


@pytest.mark.parametrize("shared", [60, 0])
def test_a_policy_far_from_the_log_has_the_model_only(shared: int) -> None:
    rows = logged(0, blind=False)
    chosen, first = rows.log.chosen, np.arange(N) * M
    target = np.zeros(N * M)
    target[np.where(np.arange(N) < shared, chosen, first + (chosen - first + 1) % M)] = 1.0
    found = tail_measures(replace(rows, target=target), N // 25, SLO, LEVELS)
    for measure in (*QUANTILES, "slo"):
        for name in ("snipw", "dr"):
            assert "fewer than 100; only dm, the model, can speak" in str(of(found, measure, name).refused)
        assert of(found, measure, "dm").value is not None
    assert (of(found, "p50", "snipw").ess == 0) == (shared == 0)


def test_what_a_model_lacks_silences_the_model_and_not_the_log() -> None:
    rows = logged(0, blind=False)
    assert rows.predicted is not None
    unneeded = np.where((rows.target == 0) & ~np.isin(np.arange(N * M), rows.log.chosen), np.nan, rows.predicted)
    assert tail_measures(replace(rows, predicted=unneeded), 320) == tail_measures(rows, 320)
    lacking = np.where(rows.target > 0, np.nan, rows.predicted)
    lacking[rows.log.chosen] = rows.predicted[rows.log.chosen]
    below = replace(rows.log, cost=rows.log.cost - 100)
    for damaged, why in (
        (replace(rows, predicted=lacking), "the prediction is not finite and above 0 for a candidate"),
        (replace(rows, predicted=None), "no prediction is given"),
        (replace(rows, log=below), "expected costs above 0"),
    ):
        found = tail_measures(damaged, 320)
        assert why in str(of(found, "p90", "dm").refused)
        assert why in str(of(found, "p90", "dr").refused)
        assert of(found, "p90", "snipw").value is not None


def test_a_tail_in_one_burst_has_no_upper_end() -> None:
    cost = np.random.default_rng(0).uniform(1, 2, 20_000)
    cost[400:800] *= 50  # all the slow requests of the log are neighbours
    found = tail_measures(alone(cost), 800)
    for name in ("snipw", "dr"):
        assert of(found, "p99", name).tail_ess == pytest.approx(200, abs=2)
        assert "the interval of p99 has no upper end" in str(of(found, "p99", name).refused)
        assert of(found, "p50", name).value is not None


def test_a_tail_of_which_more_than_half_may_be_unseen_is_refused() -> None:
    """In a share of the decisions the policy goes where the log never does; its P90 is told where that is 4 %."""
    n = 8000
    cost = np.random.default_rng(0).lognormal(0, 1, n)
    for share, is_told in ((0.04, True), (0.06, False)):
        away = np.where(np.arange(n) % 100 < 100 * share, 1.0, 0.0)
        logging, target = np.tile([1.0, 0.0], n), np.stack([1 - away, away], axis=1).ravel()
        log = LoggedDecisions(cost, 2 * np.arange(n + 1), 2 * np.arange(n), np.ones(n), logging)
        rows = OneStepInput(log, target)
        assert unseen_ratio(rows, 400) == pytest.approx(share)
        found = of(tail_measures(rows, 400), "p90", "snipw")
        assert (found.value is not None) == is_told
        assert ("the tail beyond p90 may lie there" in str(found.refused)) != is_told


def test_a_share_that_bursts_decide_is_no_surer_than_blocks_say_however_few_are_beyond() -> None:
    cost = np.random.default_rng(0).uniform(1, 2, 8000)
    cost[400:420] = 9.0  # twenty requests beyond, all in one block
    found = of(tail_measures(alone(cost), 400, slo=5.0), "slo", "snipw")
    assert "few requests are on one side" in found.notes[0]
    assert found.low is not None
    half = 2.093 * 20 / 8000  # Student's t of 20 blocks, of which one has them all
    assert found.low == pytest.approx(1 - 20 / 8000 - half, abs=2e-4)


def test_the_mean_beyond_a_quantile_is_told_of_tails_alone() -> None:
    found = tail_measures(alone(np.random.default_rng(0).lognormal(0, 1, 4000)), 200, levels=(0.5, 0.8, 0.9, 0.95))
    assert {each.measure for each in found if each.measure.startswith("cvar")} == {"cvar90", "cvar95"}
