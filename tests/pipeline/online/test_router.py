"""An online router's decisions: what is counted, what a choice costs, and what decides when there is no model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.features.definitions import FEATURE_NAMES, FEATURES, candidate_features
from lodestar.models.online.brain import Brain
from lodestar.models.online.finished import Finished
from lodestar.models.online.learner import train_models
from lodestar.pipeline.online.ahead import Ahead
from lodestar.pipeline.online.router import COLD_START, FALLBACK, MODEL, OnlineRouter
from lodestar.pipeline.online.settings import OnlineSettings

FIELDS = {name: place for place, name in enumerate(schema.SNAPSHOT_FIELDS)}
M = 4


def snapshot(**fields: list[float]) -> np.ndarray:
    out = np.zeros((M, len(FIELDS)))
    for name, values in fields.items():
        out[:, FIELDS[name]] = values
    return out


@pytest.fixture(scope="module")
def brain() -> Brain:
    """A brain that has learned: a tenth of a ms a token, three times that on a slow instance."""
    rng, n = np.random.default_rng(0), 800
    features = np.empty((n, len(FEATURES)))
    kind = np.array(["fast", "slow"] * (n // 2))
    for i in range(n):
        one = np.zeros((1, len(FIELDS)))
        waiting = rng.integers(0, 3)
        one[0, FIELDS["inflight_prefill_requests"]] = one[0, FIELDS["inflight_requests"]] = waiting
        one[0, FIELDS["prefill_tokens"]] = waiting * rng.uniform(500, 4000)
        one[0, FIELDS["hit_ratio"]] = rng.uniform(0, 0.9)
        candidate_features(rng.uniform(500, 8000), one, features[i : i + 1])
    tokens = features[:, FEATURE_NAMES.index("tokens_to_first_token")]
    ttft_ms = np.where(kind == "slow", 0.3, 0.1) * tokens + 20.0
    at_s = np.arange(n, dtype=np.float64)
    rows = Finished(features, kind, ttft_ms, np.full(n, np.nan), np.zeros(n, np.bool_), at_s, at_s)
    return Brain.of_models(train_models(rows), rows, 0.0, "taught")


def router(brain: Brain | None, kinds: tuple[str, ...] = ("fast",) * M, **settings: object) -> OnlineRouter:
    made = OnlineRouter(OnlineSettings(**settings), [f"i{j}" for j in range(M)], kinds, brain)  # type: ignore[arg-type]
    for _ in range(50):
        made.sent(-1e3, 0, 4000.0, 0.0)  # so that it knows the mean length
    return made


def test_without_a_model_the_heuristic_decides_and_says_so() -> None:
    seen = snapshot(inflight_requests=[5, 1, 3, 4], prefill_tokens=[9000, 8000, 10, 9000])
    by_tokens = router(None).decide(0.0, 100.0, seen, range(M))
    assert (by_tokens.instance, by_tokens.source) == (2, COLD_START)
    by_requests = router(None, cold_start="least-request").decide(0.0, 100.0, seen, range(M))
    assert (by_requests.instance, by_requests.source) == (1, COLD_START)
    assert np.isnan(by_requests.predicted_ms).all()


def test_the_model_decides_and_a_request_is_not_sent_where_it_must_not_go(brain: Brain) -> None:
    seen = snapshot(prefill_tokens=[0, 3000, 3000, 3000], inflight_prefill_requests=[0, 1, 1, 1])
    made = router(brain, count_uncached=False)
    best = made.decide(0.0, 2000.0, seen, range(M))
    assert (best.instance, best.source, best.explored) == (0, MODEL, False)
    assert best.probability.sum() == pytest.approx(1.0)
    left = made.decide(0.0, 2000.0, seen, [1, 3])
    assert left.instance in (1, 3)
    assert left.probability[[0, 2]].tolist() == [0.0, 0.0]
    assert np.isinf(left.cost[[0, 2]]).all()
    with pytest.raises(ConfigError, match="at least one"):
        made.decide(0.0, 2000.0, seen, [])


def test_a_long_request_leaves_the_queue_to_short_ones_and_a_greedy_one_does_not(brain: Brain) -> None:
    """Fast with work ahead against slow and idle: what the choice imposes on others decides."""
    kinds = ("fast", "slow", "slow", "slow")
    seen = snapshot(prefill_tokens=[4000, 0, 0, 0], inflight_prefill_requests=[1, 0, 0, 0])
    candidates = [0, 1]

    def chosen(prompt_tokens: float, **settings: object) -> int:
        return router(brain, kinds, count_uncached=False, **settings).decide(
            0.0, prompt_tokens, seen, candidates
        ).instance  # fmt: skip

    # 4,000 tokens ahead and 3,000 of its own: 0.7 s there, 0.9 s on the slow one.
    assert chosen(3000.0, imposed=0.0) == 0
    assert chosen(3000.0) == 1
    assert chosen(7000.0, imposed=0.0) == 0


def test_beyond_what_it_has_seen_physics_counts_the_queue(brain: Brain) -> None:
    """A model that learned where nobody waited predicts no wait: it must not send everything to one instance."""
    n = 200
    features = np.empty((n, len(FEATURES)))
    rng = np.random.default_rng(1)
    for i in range(n):
        candidate_features(rng.uniform(500, 8000), np.zeros((1, len(FIELDS))), features[i : i + 1])
    at_s = np.arange(n, dtype=np.float64)
    ttft_ms = 0.1 * features[:, 0] + 20.0
    rows = Finished(features, np.full(n, ""), ttft_ms, np.full(n, np.nan), np.zeros(n, np.bool_), at_s, at_s)
    naive = Brain.of_models(train_models(rows), rows, 0.0, "naive")
    seen = snapshot(prefill_tokens=[90_000, 0, 0, 0], inflight_prefill_requests=[30, 0, 0, 0], hit_ratio=[0.5, 0, 0, 0])

    def greedy(outside: str) -> OnlineRouter:
        return router(naive, ("",) * M, count_uncached=False, imposed=0.0, churn=0.0, outside=outside)

    assert greedy("physics").decide(0.0, 2000.0, seen, range(M)).instance != 0
    herds = greedy("model")
    assert herds.decide(0.0, 2000.0, seen, range(M)).instance == 0


def test_where_no_candidate_is_known_the_heuristic_decides_if_it_is_told_to(brain: Brain) -> None:
    seen = snapshot(prefill_tokens=[1e6, 2e6, 3e6, 4e6], inflight_prefill_requests=[9, 9, 9, 9])
    made = router(brain, count_uncached=False, outside="heuristic").decide(0.0, 2000.0, seen, range(M))
    assert (made.source, made.instance) == (FALLBACK, 0)
    assert made.outside.all()


@given(st.floats(0.01, 1.0), st.integers(0, 9))
def test_exploration_has_the_probabilities_that_it_states(brain: Brain, exploration: float, seed: int) -> None:
    made = router(brain, exploration=exploration, count_uncached=False)
    seen = snapshot(prefill_tokens=[0, 3000, 3000, 3000], inflight_prefill_requests=[0, 1, 1, 1])
    uniform = np.random.default_rng(seed).random()
    its = made.decide(0.0, 2000.0, seen, range(M), uniform=uniform)
    assert its.probability.tolist() == pytest.approx([1 - exploration * 3 / 4] + [exploration / 4] * 3)
    assert its.explored == (its.instance != 0)
    assert np.searchsorted(np.cumsum(its.probability), uniform, side="right") == its.instance


def test_a_full_cache_keeps_a_prefix_group_together(brain: Brain) -> None:
    made = router(brain, filtered_instances=2, saturation_ratio=0.5, count_uncached=False)
    seen = snapshot(kv_usage_ratio=[0.9] * M, hit_ratio=[0.5] * M)
    kept = [np.flatnonzero(np.isfinite(made.decide(0.0, 4000.0, seen, range(M), group=9).cost)) for _ in range(2)]
    assert kept[0].tolist() == kept[1].tolist()
    assert 1 <= len(kept[0]) <= 2
    groups = {
        tuple(np.flatnonzero(np.isfinite(made.decide(0.0, 4000.0, seen, range(M), group=g).cost))) for g in range(40)
    }
    assert len(groups) > 3
    calm = snapshot(kv_usage_ratio=[0.1] * M, hit_ratio=[0.5] * M)
    assert np.isfinite(made.decide(0.0, 4000.0, calm, range(M), group=9).cost).all()


def test_objectives_ask_for_what_they_weigh(brain: Brain) -> None:
    """Without a TPOT model there is no E2E: nothing is guessed, and the heuristic is no silent answer to it."""
    made = router(brain, slo_ttft_ms=500.0, slo_weight=1e6, imposed=0.0, count_uncached=False)
    seen = snapshot(prefill_tokens=[0, 8000, 8000, 8000], inflight_prefill_requests=[0, 2, 2, 2])
    its = made.decide(0.0, 2000.0, seen, range(M))
    assert its.instance == 0
    assert its.cost[1] - its.cost[0] > 5e5


def test_an_instance_that_joins_is_routed_to(brain: Brain) -> None:
    made = router(brain)
    assert made.place("i1") == 1
    assert made.place("new", "slow") == M
    seen = np.vstack(
        [snapshot(prefill_tokens=[9e3] * M, inflight_prefill_requests=[2] * M), np.zeros((1, len(FIELDS)))]
    )
    assert made.decide(0.0, 500.0, seen, range(M + 1)).instance == M


def test_settings_go_through_json() -> None:
    settings = OnlineSettings(imposed=1.5, exploration=0.1)
    assert OnlineSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    for wrong, said in (({"outside": "guess"}, "physics"), ({"cold_start": "lmetric"}, "without model and memory")):
        with pytest.raises(ConfigError, match=said):
            OnlineRouter(OnlineSettings(**wrong), ["a"])  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(1, 9000), st.floats(0, 1)), min_size=1, max_size=30), st.data())
def test_what_is_ahead_is_what_was_sent_last(sent: list[tuple[int, float]], data: st.DataObject) -> None:
    ahead, waiting = Ahead(), data.draw(st.integers(0, len(sent)))
    for prompt_tokens, hit_ratio in sent:
        ahead.sent(0.0, 0, prompt_tokens * (1 - hit_ratio))
    seen = np.zeros((1, len(FIELDS)))
    seen[0, FIELDS["inflight_prefill_requests"]] = waiting
    seen[0, FIELDS["prefill_tokens"]] = sum(tokens for tokens, _ in sent[len(sent) - waiting :])
    counted = ahead.counted(0.0, seen)[0, FIELDS["prefill_tokens"]]
    assert counted == pytest.approx(sum(tokens * (1 - hit) for tokens, hit in sent[len(sent) - waiting :]))


def test_the_first_in_line_comes_on_with_time_and_never_beyond_its_end() -> None:
    ahead, seen = Ahead(), np.zeros((1, len(FIELDS)))
    for tokens in (4000.0, 1000.0):
        ahead.sent(0.0, 0, tokens)
    seen[0, FIELDS["inflight_prefill_requests"]], seen[0, FIELDS["prefill_tokens"]] = 2, 5000

    def left(now_s: float) -> float:
        return float(ahead.counted(now_s, seen, [0.1])[0, FIELDS["prefill_tokens"]])

    assert [left(0.0), left(0.1), left(0.2)] == pytest.approx([5000, 4000, 3000])
    assert left(60.0) == pytest.approx(1000)
    seen[0, FIELDS["inflight_prefill_requests"]], seen[0, FIELDS["prefill_tokens"]] = 1, 1000
    assert left(60.05) == pytest.approx(750)  # it became the first at 60.025 s, as far as anybody knows
    assert left(60.1) == pytest.approx(250)
    others = seen.copy()
    others[0, FIELDS["inflight_prefill_requests"]], others[0, FIELDS["prefill_tokens"]] = 4, 8000
    assert ahead.counted(60.1, others)[0, FIELDS["prefill_tokens"]] == pytest.approx(1000 + 4000 + 8000 * 2 / 4)
