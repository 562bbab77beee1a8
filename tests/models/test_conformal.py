from __future__ import annotations

import json
from statistics import NormalDist

import lightgbm as lgb
import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import fit_baseline
from lodestar.models.slices import SLICES, load_slice
from lodestar.models.uncertainty.conformal import QUANTILES, WINDOW_ROWS, Conformal
from lodestar.models.uncertainty.coverage import coverage_by_slice
from lodestar.models.uncertainty.heads import fit_heads, quantile_log_ratios

COMMON = {"verbose": -1, "num_threads": 1, "seed": 0, "deterministic": True, "force_col_wise": True}
MEAN = {"objective": "l2", "num_leaves": 15, "min_data_in_leaf": 60, "learning_rate": 0.05}
LEARNED = 2000


class Stream:
    """Seven thousand requests; from the middle on twice as many wait, and all take 1.5 times as long.

    The longer the queue, the more a latency varies; its tail is that of Student's t. Outcomes are known some seconds,
    that is some twenty requests, after the decision. Heads learn from the first requests and stay as they are.
    """

    def __init__(self, seed: int, n: int = 7000) -> None:
        rng = np.random.default_rng(seed)
        late = np.arange(n) >= n // 2
        level = np.zeros(n)
        for i in range(1, n):
            level[i] = 0.98 * level[i - 1] + 0.2 * rng.normal()
        waiting = rng.poisson(np.exp(0.6 * level + np.where(late, 1.2, 0.6)))
        features = np.full((n, len(FEATURE_NAMES)), np.nan)
        prompt, ahead = rng.integers(200, 4000, n), waiting * 1500 + rng.integers(0, 1500, n)
        for name, values in {"prompt_tokens": prompt, "prefill_tokens": ahead, "waiting_requests": waiting}.items():
            features[:, FEATURE_NAMES.index(name)] = values
        spread = 0.15 + 0.08 * np.minimum(waiting, 6)
        latency_ms = (40 + 0.1 * (prompt + ahead)) * np.exp(spread * rng.standard_t(4, n)) * np.where(late, 1.5, 1.0)
        self.arrived_at_s = np.cumsum(rng.exponential(1 / 8, n))
        self.finished_at_s = self.arrived_at_s + latency_ms / 1000 + 2.0 * rng.lognormal(0.0, 0.5, n)
        self.slices, self.log_ms = load_slice(features), np.log(latency_ms)
        self.raw = _raw(features, latency_ms)

    def follow(self, state: Conformal, rows: slice) -> tuple[np.ndarray, Conformal]:
        residuals = self.log_ms[rows, None] - self.raw[rows]
        return state.follow(self.slices[rows], residuals, self.arrived_at_s[rows], self.finished_at_s[rows])


def _raw(features: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
    """Return the log of the raw quantiles, by heads that learned from the first 1,400 rows."""
    rows = slice(0, round(0.7 * LEARNED))
    baseline = fit_baseline(features[rows], latency_ms[rows])
    physical = np.log(baseline.predict(features))
    log_ratio = np.log(latency_ms[rows]) - physical[rows]
    data = lgb.Dataset(features[rows], log_ratio, params={"feature_pre_filter": False})
    mean = lgb.train({**COMMON, **MEAN}, data, 40)
    return physical[:, None] + quantile_log_ratios(mean, fit_heads(data, COMMON), features)


@pytest.fixture(scope="module")
def streams() -> list[Stream]:
    return [Stream(seed) for seed in range(4)]


def _warm(stream: Stream) -> Conformal:
    _, state = stream.follow(Conformal.fresh(), slice(round(0.7 * LEARNED), LEARNED))
    return state.restarted()


def _p90(stream: Stream, offsets: np.ndarray) -> list[float]:
    after = slice(LEARNED, None)
    table = coverage_by_slice(stream.slices[after], stream.log_ms[after], stream.raw[after] + offsets)
    return [line["p90"] for line in table if line["rows"] >= 200]


def test_p90_covers_in_every_slice_through_a_shift(streams: list[Stream]) -> None:
    for stream in streams:
        stated, _ = stream.follow(_warm(stream), slice(LEARNED, None))
        covered = _p90(stream, stated)
        assert len(covered) == 4
        assert all(0.88 <= share <= 0.92 for share in covered), covered


def test_without_following_the_shift_it_does_not(streams: list[Stream]) -> None:
    for stream in streams:
        static = _p90(stream, _warm(stream).offsets(stream.slices[LEARNED:]))
        assert min(static) < 0.85


@pytest.mark.parametrize("name", list(QUANTILES))
def test_every_quantile_covers_its_share(streams: list[Stream], name: str) -> None:
    for stream in streams:
        stated, _ = stream.follow(_warm(stream), slice(LEARNED, None))
        q = list(QUANTILES).index(name)
        covered = stream.log_ms[LEARNED:] <= stream.raw[LEARNED:, q] + stated[:, q]
        assert covered.mean() == pytest.approx(QUANTILES[name], abs=0.01)


def test_coverage_is_held_whatever_the_scores_are() -> None:
    """A script that knows the rule: every score beats the last offset, then none does, for stretches of any length."""
    rng = np.random.default_rng(0)
    residuals = np.repeat(rng.choice([-2.0, 2.0, 0.0], 300), rng.integers(1, 60, 300))[:, None]
    slices, state = np.zeros(len(residuals), dtype=np.int64), Conformal.fresh(("p90",))
    after = state.observe(slices, residuals)
    # |miscount| <= span / (GAIN * LEAST_TAIL) + 1 in the worst case; it stays far below.
    assert abs(after.miscount[0, 0]) / len(residuals) < 0.01


def test_miscount_is_what_was_missed_less_what_was_expected(streams: list[Stream]) -> None:
    stream, after = streams[0], slice(LEARNED, None)
    before = _warm(stream)
    stated, later = stream.follow(before, after)
    missed = (stream.log_ms[after, None] - stream.raw[after]).round(6) > stated
    expected = np.array([1 - share for share in QUANTILES.values()])
    for of in range(len(SLICES)):
        inside = stream.slices[after] == of
        counted = later.miscount[of] - before.miscount[of]
        np.testing.assert_allclose(counted, (missed[inside] - expected).sum(axis=0), atol=1e-6)


def test_batches_give_the_state_of_one_go(streams: list[Stream]) -> None:
    stream = streams[0]
    residuals = stream.log_ms[:, None] - stream.raw
    once, batched = Conformal.fresh().observe(stream.slices, residuals), Conformal.fresh()
    for start in range(0, len(residuals), 997):
        rows = slice(start, start + 997)
        batched = Conformal.from_dict(json.loads(json.dumps(batched.to_dict())))
        batched = batched.observe(stream.slices[rows], residuals[rows])
    assert batched.to_dict() == once.to_dict()
    assert len(json.dumps(once.to_dict())) < 150_000


def test_no_row_is_stated_what_was_not_known_when_it_arrived(streams: list[Stream]) -> None:
    stream, cut = streams[1], 1500
    whole, _ = stream.follow(Conformal.fresh(), slice(0, 3000))
    known = stream.finished_at_s[:3000] <= stream.arrived_at_s[cut]
    other = np.where(known[:, None], stream.log_ms[:3000, None] - stream.raw[:3000], 9.0)
    times = stream.arrived_at_s[:3000], stream.finished_at_s[:3000]
    changed, _ = Conformal.fresh().follow(stream.slices[:3000], other, *times)
    np.testing.assert_array_equal(whole[: cut + 1], changed[: cut + 1])
    assert not np.array_equal(whole, changed)


@pytest.mark.parametrize("batch", [10, 60, 240, 997])
def test_batches_state_what_one_go_does(streams: list[Stream], batch: int) -> None:
    """Outcomes are known some twenty rows after the decision, so that batches end with rows in flight."""
    stream, n = streams[2], 3000
    residuals, censored = stream.log_ms[:n, None] - stream.raw[:n], stream.log_ms[:n] > 8.0
    arrived_at_s, finished_at_s = stream.arrived_at_s[:n], stream.finished_at_s[:n]
    whole, drained = Conformal.fresh().follow(stream.slices[:n], residuals, arrived_at_s, finished_at_s, censored)
    state, stated = Conformal.fresh(), []
    left, offsets, aims = np.zeros(0, dtype=np.int64), np.zeros((0, 3)), np.zeros((0, 3))
    for start in range(0, n, batch):
        rows = np.concatenate([left, np.arange(start, min(start + batch, n))])
        columns = stream.slices[rows], residuals[rows], arrived_at_s[rows], finished_at_s[rows]
        until_s = arrived_at_s[rows[-1]]
        offsets, aims, learned, state = state.follow_on(*columns, offsets, aims, until_s, censored[rows])
        np.testing.assert_array_equal(learned, finished_at_s[rows] <= until_s)
        stated.append(offsets[len(left) :])
        left, offsets, aims = rows[~learned], offsets[~learned], aims[~learned]
    assert len(left)
    np.testing.assert_array_equal(np.concatenate(stated), whole)
    *_, state = state.follow_on(
        stream.slices[left],
        residuals[left],
        arrived_at_s[left],
        finished_at_s[left],
        offsets,
        aims,
        np.inf,
        censored[left],
    )
    np.testing.assert_allclose(state.miscount, drained.miscount, atol=1e-9)
    np.testing.assert_array_equal(state.scores, drained.scores)


def test_what_another_model_stated_is_learned_but_no_miss_of_the_feedback() -> None:
    slices, times = np.zeros(40, dtype=np.int64), np.arange(40.0)
    unstated = np.full((40, 1), np.nan)
    _, _, learned, state = Conformal.fresh(("p90",)).follow_on(
        slices, np.ones((40, 1)), times, times + 1.0, unstated, unstated, 30.0
    )
    assert learned.sum() == 30
    assert state.rows.tolist() == [30, 0, 0, 0, 0, 30]
    assert state.miscount[0, 0] == 0.0
    assert state.table()[0, 0] == pytest.approx(1.0, abs=0.02)


def test_window_forgets_and_has_the_rank_of_split_conformal() -> None:
    scores = np.random.default_rng(3).normal(size=(2000, 1))
    slices = np.full(2000, 2)
    state = Conformal.fresh(("p90",), window_rows=399).observe(slices, scores)
    # The 360th of 399 scores, rank 0.9 * (399 + 1); the pooled window is the same here.
    assert state.table()[2, 0] == pytest.approx(np.sort(scores[-399:, 0])[359], abs=1e-6)


def test_a_slice_with_few_rows_borrows_from_all(streams: list[Stream]) -> None:
    rng = np.random.default_rng(4)
    slices = np.concatenate([np.zeros(400, dtype=np.int64), np.full(5, 3)])
    residuals = np.concatenate([rng.normal(0.0, 0.1, 400), np.full(5, 1.0)])[:, None]
    table = Conformal.fresh(("p90",)).observe(slices, residuals).table()[:, 0]
    assert table[0] < table[1] == table[2] < table[3] < 1.0
    assert (Conformal.fresh().table() == 0.0).all()


def test_bounds_count_by_how_likely_they_were_missed() -> None:
    rng = np.random.default_rng(5)
    true, slices = rng.normal(0.0, 0.5, (6000, 1)), np.zeros(6000, dtype=np.int64)
    bound = rng.normal(0.5, 0.5, (6000, 1))
    known, censored = np.minimum(true, bound), (true > bound)[:, 0]
    assert 0.2 < censored.mean() < 0.3
    fresh = Conformal.fresh(("p90",), window_rows=2000)
    truth = np.quantile(true, 0.9)
    assert fresh.observe(slices, known, censored).table()[0, 0] == pytest.approx(truth, abs=0.06)
    assert fresh.observe(slices, known).table()[0, 0] < truth - 0.15
    stated, _ = fresh.follow(slices, known, np.arange(6000.0), np.arange(6000.0) + 20.5, censored)
    assert (true[500:] <= stated[500:]).mean() == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize("bound", ["at any time", "one timeout"])
@pytest.mark.parametrize("cut", [0.05, 0.25])
def test_p99_covers_where_rows_are_cut_off_whatever_they_would_have_come_to(bound: str, cut: float) -> None:
    n, covered = 8000, []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        true = rng.normal(0.0, 0.4, (n, 1))
        bounds = rng.normal(0.4 * np.sqrt(2) * NormalDist().inv_cdf(1 - cut), 0.4, (n, 1))
        if bound == "one timeout":
            bounds = np.full((n, 1), np.quantile(true, 1 - cut))
        known, censored = np.minimum(true, bounds), (true > bounds)[:, 0]
        assert censored.mean() == pytest.approx(cut, abs=0.02)
        arrived_at_s, slices = np.arange(n) * 0.1, np.zeros(n, dtype=np.int64)
        stated, _ = Conformal.fresh(("p99",)).follow(slices, known, arrived_at_s, arrived_at_s + 2.05, censored)
        assert stated[1000:].max() < 2.5  # e^2.5 is the twelvefold
        covered.append((true[1000:] <= stated[1000:]).mean())
    assert np.mean(covered) == pytest.approx(0.99, abs=0.008)


def _outage(kind: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Ordinary rows, so many in an outage, and rows of a new regime, 1.2 times as slow; and which are bounds."""
    rng = np.random.default_rng(7)
    residuals = np.concatenate([rng.normal(0.0, 0.3, 1500 + rows), rng.normal(0.2, 0.3, 2500)])
    censored = np.zeros(len(residuals), dtype=bool)
    during = slice(1500, 1500 + rows)
    if kind == "half time out":
        censored[during] = rng.random(rows) < 0.5
        residuals[during] = np.where(censored[during], 4.1, residuals[during] + 1.0)
    else:
        censored[during] = True
        residuals[during] = {
            "all time out": np.full(rows, 4.1),
            "clients leave at any time": rng.uniform(-3.0, 4.1, rows),
            "clients leave at once": np.full(rows, -3.0),
        }[kind]
    return np.repeat(residuals[:, None], 3, axis=1), censored


@pytest.mark.parametrize("rows", [30, 350, 1000])
@pytest.mark.parametrize(
    "kind", ["all time out", "half time out", "clients leave at any time", "clients leave at once"]
)
def test_after_an_outage_the_quantiles_are_those_of_the_new_regime_within_a_window(kind: str, rows: int) -> None:
    residuals, censored = _outage(kind, rows)
    arrived_at_s, slices = np.arange(len(residuals)) * 0.1, np.zeros(len(residuals), dtype=np.int64)
    stated, state = Conformal.fresh().follow(slices, residuals, arrived_at_s, arrived_at_s + 1.05, censored)
    assert np.isfinite(stated).all()
    assert stated.max() < 5.0  # 4.1 is the timeout
    assert stated.min() > -1.0
    later = 1500 + rows + WINDOW_ROWS + 20  # ten are in flight when it ends
    p99, of_regime = stated[later:, 2], 0.2 + 0.3 * NormalDist().inv_cdf(0.99)
    assert p99.max() < of_regime + 0.6
    assert np.median(p99) == pytest.approx(of_regime, abs=0.15)
    covered = (residuals[later:] <= stated[later:]).mean(axis=0)
    np.testing.assert_allclose(covered, [0.5, 0.9, 0.99], atol=0.01)
    assert np.isfinite(state.miscount).all()


def test_in_an_outage_the_p99_is_at_least_the_timeout_and_no_multiple_of_it() -> None:
    residuals, censored = _outage("all time out", 350)
    arrived_at_s, slices = np.arange(len(residuals)) * 0.1, np.zeros(len(residuals), dtype=np.int64)
    stated, _ = Conformal.fresh().follow(slices, residuals, arrived_at_s, arrived_at_s + 1.05, censored)
    assert stated[1530:1850, 2] == pytest.approx(4.1, abs=1e-6)


def test_a_slice_that_always_times_out_does_not_stretch_the_quantiles_of_one_that_never_does() -> None:
    n = 8000
    rng = np.random.default_rng(11)
    slices, true = rng.integers(0, 2, n), rng.normal(0.0, 0.3, n)
    out = slices == 1
    residuals, arrived_at_s = np.repeat(np.where(out, 4.1, true)[:, None], 3, axis=1), np.arange(n) * 0.1
    stated, _ = Conformal.fresh().follow(slices, residuals, arrived_at_s, arrived_at_s + 1.05, out)
    assert (stated[1000:][out[1000:], 1:] >= 4.1 - 1e-6).all()
    judged = np.flatnonzero(~out)[1000:]
    covered = (residuals[judged] <= stated[judged]).mean(axis=0)
    np.testing.assert_allclose(covered, [0.5, 0.9, 0.99], atol=0.01)


def test_time_outs_far_beyond_rows_that_are_alike_leave_every_quantile_a_number() -> None:
    n = 2000
    residuals, censored, took_s = np.random.default_rng(12).normal(0.0, 0.005, n), np.zeros(n, dtype=bool), np.ones(n)
    for rows, after_s in ((slice(1000, 1040), 1.0), (slice(1060, 1070), 60.0)):
        residuals[rows], censored[rows], took_s[rows] = 9.0, True, after_s  # 8,000 times as long
    arrived_at_s, slices = np.arange(n) * 0.1, np.zeros(n, dtype=np.int64)
    spread = np.repeat(residuals[:, None], 3, axis=1)
    stated, state = Conformal.fresh().follow(slices, spread, arrived_at_s, arrived_at_s + took_s, censored)
    assert np.isfinite(stated).all()
    assert np.isfinite(state.miscount).all()


def test_no_bounds_are_the_same_as_none_given() -> None:
    residuals = np.random.default_rng(6).normal(size=(700, 3))
    slices = np.arange(700) % 5
    given = Conformal.fresh().observe(slices, residuals, np.zeros(700, dtype=bool))
    assert given.to_dict() == Conformal.fresh().observe(slices, residuals).to_dict()


@pytest.mark.parametrize("residuals", [np.zeros((3, 2)), np.full((3, 3), np.nan)])
def test_rows_without_residuals_are_refused(residuals: np.ndarray) -> None:
    with pytest.raises(DataError, match="Leave out the rows without a latency"):
        Conformal.fresh().observe(np.zeros(3, dtype=np.int64), residuals)
