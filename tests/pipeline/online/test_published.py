"""The published loop in closed replay: what it learns, when, from what, and what each quirk of the release does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.engine import EngineModel
from lodestar.models.network.network import PublishedNetwork, network_inputs
from lodestar.pipeline.online.published import AS_INTENDED, LodestarPublished
from lodestar.pipeline.online.published_learner import PublishedLearner, Ranges, Trained
from lodestar.pipeline.online.published_run import PublishedRun
from lodestar.pipeline.online.published_settings import PublishedSettings
from lodestar.pipeline.online.saturation import kept_by_group, prefix_groups
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.events import Event
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.policy_settings import declared, read_settings, split_settings
from lodestar.pipeline.replay.prefixes import prefix_tree
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState
from lodestar.pipeline.replay.state import OK

ENGINE = EngineModel.preset("h100-llama-3.1-8b")
FIELD = {name: place for place, name in enumerate(schema.SNAPSHOT_FIELDS)}
COLUMN = {name: place for place, name in enumerate(FEATURE_NAMES)}
#: Small enough to learn within seconds.
QUICK: dict[str, Any] = {
    "min_training_requests": 200, "update_requests": 200, "flush_s": 2.0, "poll_s": 3.0, "flush_requests": 10,
    "epochs": 2,
}  # fmt: skip


def shared(requests: int, rate_per_s: float, seed: int = 0) -> Workload:
    """Prompts of 256 to 3,000 tokens, of which 192 lie in one of 20 prefixes."""
    rng = np.random.default_rng(seed)
    prompt_tokens, group = rng.integers(256, 3000, requests), rng.integers(0, 20, requests)
    blocks = [[int(g) * 10 + depth for depth in range(3)] + [1000 + i] for i, g in enumerate(group)]
    arrived_at_s = np.cumsum(rng.exponential(1 / rate_per_s, requests))
    output_tokens = rng.integers(1, 100, requests)
    return Workload(arrived_at_s, prompt_tokens, output_tokens, np.concatenate(blocks), np.arange(requests + 1) * 4, 64)


@pytest.fixture(scope="module")
def cell() -> Cluster:
    """Two fast and two slow instances under load."""
    return Cluster.of([ENGINE] * 2 + [ENGINE.slowed(4.0)] * 2, shared(1200, 40.0))


class Watched(PublishedRun):
    """A run that keeps who decided, and what it cost."""

    def decide(self, i: int) -> int:
        chosen = super().decide(i)
        self.sources = [*getattr(self, "sources", []), self.source]
        return chosen


def asked(settings: PublishedSettings, trained: Trained, m: int = 4) -> tuple[PublishedRun, NDArray[np.float64]]:
    """Return a run with a trained network before one request, and the snapshot that it will see."""
    workload = shared(8, 1.0)
    snapshot = np.abs(np.random.default_rng(5).normal(3.0, 2.0, (m, len(FIELD))))
    snapshot[:, FIELD[schema.HIT_RATIO]] = snapshot[:, FIELD[schema.KV_USAGE_RATIO]] = 0.5
    run = PublishedRun(settings, trained)
    state = np.zeros(8, dtype=[("finished_s", float), ("status", int), ("retries", int)])
    state["finished_s"] = np.nan
    fleet = Fleet([f"pod-{j}" for j in range(m)])
    run.begin(workload, prefix_tree(workload), fleet, snapshot, np.zeros(1), state, seed=0)
    return run, snapshot


def network(**quirks: Any) -> Trained:
    """Return a network that has learned that what is in flight, and the prompts ahead, take time."""
    rng = np.random.default_rng(0)
    features = rng.uniform(0.0, 10.0, (512, len(FEATURE_NAMES)))
    features[:, COLUMN[schema.PROMPT_TOKENS]] = rng.uniform(0.0, 4000.0, 512)
    ttft_ms = 100.0 + 200.0 * features[:, COLUMN[schema.INFLIGHT_PREFILL_REQUESTS]]
    settings = replace(PublishedSettings(epochs=10), **quirks)
    return Trained(PublishedNetwork(0, settings.network).fit(features, ttft_ms), Ranges.of(features), 512)


QUIET: dict[str, Any] = {"dropout_at_inference": False, "no_in_flight_at_inference": False}


def test_a_seed_fixes_every_choice_and_another_changes_them(cell: Cluster) -> None:
    first, again, other = (
        cell.replay(LodestarPublished(**QUICK).fresh(), seed=seed).instance.tolist() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_every_request_is_decided_and_answered_though_an_instance_fails(cell: Cluster) -> None:
    failing = Cluster.of(cell.engines, cell.workload, events=[Event(12.0, "fail", 1), Event(20.0, "join", 1)])
    run = Watched(PublishedSettings(**QUICK))
    outcome = failing.replay(run, seed=0)
    assert (outcome.status == OK).all()
    assert (outcome.instance >= 0).all()
    assert len(run.sources) == len(cell.workload) + outcome.retries.sum()
    assert run.sources[0] == "cold start"
    assert run.sources[-1] == "model"


def test_nothing_is_learned_before_it_was_handed_over(cell: Cluster) -> None:
    run = LodestarPublished(**QUICK).fresh()
    outcome = cell.replay(run, seed=0)
    finished_s, there = cell.workload.arrived_at_s + outcome.e2e_ms / 1e3, ~np.isnan(run.flushed_s)
    assert there.sum() > 900
    assert (finished_s[there] <= run.flushed_s[there] + 1e-9).all()
    assert set((run.flushed_s[there] % run.settings.flush_s).tolist()) == {0.0}
    assert len(run.trainings) > 2
    for training in run.trainings:
        assert training.at_s % run.settings.poll_s == 0.0
        assert training.rows == (there & (outcome.ttft_ms <= 15_000.0) & (run.flushed_s <= training.at_s)).sum()


def test_a_flush_waits_until_there_are_enough(cell: Cluster) -> None:
    run = LodestarPublished(**QUICK | {"flush_requests": 150}).fresh()
    cell.replay(run, seed=0)
    _, sizes = np.unique(run.flushed_s[~np.isnan(run.flushed_s)], return_counts=True)
    assert len(sizes) > 1
    assert sizes.min() > 150


def test_a_network_decides_only_after_its_training_time(cell: Cluster) -> None:
    run = Watched(PublishedSettings(**QUICK, training_base_s=7.0))
    cell.replay(run, seed=0)
    first = run.trainings[0]
    assert first.served_from_s >= first.at_s + 7.0
    by_model = np.array(run.sources) == "model"
    assert np.array_equal(by_model, cell.workload.arrived_at_s >= first.served_from_s)
    assert by_model.any()
    assert not by_model.all()
    # No training begins while another one is under way.
    assert all(b.at_s >= a.served_from_s for a, b in zip(run.trainings, run.trainings[1:], strict=False))


def test_until_then_it_is_the_heuristic(cell: Cluster) -> None:
    run = LodestarPublished().fresh()
    outcome = cell.replay(run, seed=0, record=True)
    assert not run.trainings
    heuristic = PolicyState(make_policy("aibrix-prefix-cache"), cell.fleet)
    for i, seen in enumerate(outcome.snapshots):
        cost, probability = heuristic.decide(heuristic.request(0.0, int(cell.workload.prompt_tokens[i])), seen)
        assert np.array_equal(outcome.costs[i], cost)
        assert np.array_equal(outcome.probabilities[i], probability)
        assert probability[outcome.instance[i]] > 0.0


def test_training_time_grows_with_rows_epochs_and_instances() -> None:
    settings = PublishedSettings(training_base_s=1.0, training_row_us=5.0, held_out_ratio=0.5, epochs=10)
    assert settings.training_s(2000, 4) == pytest.approx(1.0 + 1000 * 10 * 4 * 5e-6)


def test_late_snapshots_count_the_request_itself(cell: Cluster) -> None:
    late, timely = (LodestarPublished(late_snapshots=on).fresh() for on in (True, False))
    for run in (late, timely):  # the heuristic decides all along, so both meet the same states
        cell.replay(run, seed=0)
    own = late.rows - timely.rows
    assert (own[:, COLUMN[schema.INFLIGHT_PREFILL_REQUESTS]] == 1.0).all()
    assert np.array_equal(own[:, COLUMN[schema.PREFILL_TOKENS]], cell.workload.prompt_tokens)
    others = np.delete(own, [COLUMN[schema.INFLIGHT_PREFILL_REQUESTS], COLUMN[schema.PREFILL_TOKENS]], axis=1)
    assert not np.nan_to_num(others).any()


@pytest.mark.parametrize("field", [schema.INFLIGHT_PREFILL_REQUESTS, schema.INFLIGHT_DECODE_REQUESTS])
@pytest.mark.parametrize("quirk", [True, False])
def test_in_flight_requests_are_not_seen_only_with_the_quirk(field: str, quirk: bool) -> None:
    settings = replace(PublishedSettings(), **QUIET | {"no_in_flight_at_inference": quirk})
    trained = network(**QUIET | {"no_in_flight_at_inference": quirk})
    run, snapshot = asked(settings, trained)
    run.decide(0)
    before = run.cost.copy()
    snapshot[2, FIELD[field]] += 5.0
    run.decide(0)
    assert np.array_equal(before, run.cost) == quirk
    snapshot[2, FIELD[schema.WAITING_REQUESTS]] += 5.0
    run.decide(0)
    assert before[2] != run.cost[2]


def test_dropout_makes_equal_decisions_differ_and_their_propensity_unknown() -> None:
    for quirk in (True, False):
        quirks = QUIET | {"dropout_at_inference": quirk}
        run, _ = asked(replace(PublishedSettings(), **quirks), network(**quirks))
        chosen, cost = run.decide(0), run.cost.copy()
        assert chosen == cost.argmin()
        run.decide(0)
        assert np.array_equal(cost, run.cost) != quirk
        assert np.isnan(run.probability).all() == quirk
    assert run.probability.tolist() == np.eye(4)[chosen].tolist()


def test_exploration_spreads_its_share_over_all_candidates() -> None:
    run, snapshot = asked(replace(PublishedSettings(exploration=0.2), **QUIET), network(**QUIET))
    snapshot[3] = np.nan
    run.decide(0)
    best = int(run.cost.argmin())
    assert run.probability == pytest.approx([0.0 if j == 3 else 0.2 / 3 + 0.8 * (j == best) for j in range(4)])
    assert run.cost[3] == np.inf


def test_slow_requests_are_no_samples_unless_the_cut_is_off() -> None:
    rows, ttft_ms = np.zeros((3, len(FEATURE_NAMES))), np.array([14_999.0, 15_000.0, 15_001.0])
    for longest_ms, samples in ((15_000.0, 2), (0.0, 3)):
        learner = PublishedLearner(PublishedSettings(longest_ms=longest_ms), 0, seed=0)
        learner.add(rows, ttft_ms)
        assert learner.samples == samples


def test_lost_flushes_teach_nothing(cell: Cluster) -> None:
    rows = []
    for ratio in (0.0, 0.5, 1.0):
        run = LodestarPublished(**QUICK, lost_flush_ratio=ratio).fresh()
        cell.replay(run, seed=0)
        rows.append(run.trainings[-1].rows if run.trainings else 0)
    assert rows[0] > rows[1] > rows[2] == 0


def test_only_the_tested_instances_lead_to_the_heuristic() -> None:
    trained = network(**QUIET)
    for test, at, source in (
        ("off", 0, "model"), ("first", 0, "fallback"), ("first", 1, "model"), ("all", 1, "fallback"),
    ):  # fmt: skip
        run, snapshot = asked(replace(PublishedSettings(out_of_range=test), **QUIET), trained)
        snapshot[:, FIELD[schema.LAST_ACCESS_AGE_S]] = 0.0
        snapshot[at, FIELD[schema.WAITING_REQUESTS]] = 1e6
        run.decide(0)
        assert run.source == source, (test, at)


def test_a_tie_within_a_ratio_happens_only_above_reward_0() -> None:
    # Rewards are negative: the threshold lies above the best, as in the release, and the best alone is left.
    run, _ = asked(replace(PublishedSettings(tie_ratio=0.9), **QUIET), network(**QUIET))
    run.decide(0)
    assert run.cost.min() > 0.0
    assert sorted(run.probability.tolist()) == [0.0, 0.0, 0.0, 1.0]
    features = np.random.default_rng(0).uniform(0.0, 10.0, (512, len(FEATURE_NAMES)))
    settings = replace(PublishedSettings(epochs=10), **QUIET)
    fitted = PublishedNetwork(0, settings.network).fit(features, np.full(512, -1000.0))
    above = Trained(fitted, Ranges.of(features), 512)
    run, _ = asked(replace(PublishedSettings(tie_ratio=0.9), **QUIET), above)
    run.decide(0)
    assert run.cost.max() < 0.0
    assert run.probability.tolist() == [0.25] * 4


def test_the_network_is_told_the_kind_where_there_are_several(cell: Cluster) -> None:
    alike = Cluster.of([ENGINE] * 3, cell.workload)
    for cluster, include, kinds in ((cell, True, 2), (cell, False, 0), (alike, True, 0)):
        run = LodestarPublished(include_gpu=include).fresh()
        outcome = cluster.replay(run, seed=0)
        one_hot = run.rows[:, len(FEATURE_NAMES) :]
        assert one_hot.shape[1] == kinds
        if kinds:
            assert np.array_equal(one_hot.argmax(axis=1), (outcome.instance >= 2).astype(int))
            assert (one_hot.sum(axis=1) == 1.0).all()
            assert network_inputs(run.rows).shape[1] == 12


def test_a_part_is_held_out_and_the_ranges_are_those_of_all_rows() -> None:
    learner = PublishedLearner(replace(PublishedSettings(epochs=1, min_training_requests=50), **QUIET), 0, seed=0)
    rows = np.random.default_rng(0).uniform(0.0, 1.0, (100, len(FEATURE_NAMES)))
    learner.add(rows, np.full(100, 100.0))
    assert learner.due
    trained = learner.train()
    assert trained.rows == 100
    assert not learner.due
    assert learner.samples == 0
    assert not trained.outside(rows).any()
    assert trained.outside(rows + 1.0).all()
    learner.add(rows, np.full(100, 100.0), Ranges.of(rows + 1.0))
    trained = learner.train()
    assert trained.rows == 200
    assert not trained.outside(rows + 1.0).any()
    # A decision without the in-flight requests reads 0 there, whatever they are.
    skewed = PublishedLearner(PublishedSettings(epochs=1, min_training_requests=50), 0, seed=0)
    skewed.add(rows + 1.0, np.full(100, 100.0))
    assert skewed.train().outside(rows + 1.0).all()


@pytest.mark.parametrize("quirks", [{}, {**QUIET, "late_snapshots": False}], ids=["released", "without quirks"])
def test_it_beats_its_own_cold_start_on_unequal_instances(quirks: dict[str, Any]) -> None:
    settings = QUICK | {"min_training_requests": 1000, "update_requests": 500, "poll_s": 5.0, "epochs": 20} | quirks
    second = slice(1500, None)
    for seed in (0, 1):
        cluster = Cluster.of([ENGINE] * 2 + [ENGINE.slowed(4.0)] * 2, shared(3000, 60.0, seed))
        learned = cluster.replay(LodestarPublished(**settings).fresh(), seed=seed).ttft_ms[second].mean()
        assert learned < cluster.replay(make_policy("aibrix-prefix-cache"), seed=seed).ttft_ms[second].mean()


@given(st.integers(0, 1000), st.integers(1, 3), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_filter_keeps_a_group_to_its_instances_while_caches_are_full(
    group: int, count: int, usage: float, hit: float
) -> None:
    snapshot, candidates = np.zeros((6, len(FIELD))), np.array([0, 2, 3, 5])
    snapshot[:, FIELD[schema.KV_USAGE_RATIO]], snapshot[2, FIELD[schema.HIT_RATIO]] = usage, hit
    kept = kept_by_group(1000.0, snapshot, candidates, group, count, 0.8)
    if usage > 0.8 and hit * 1000.0 > 100.0:
        assert 1 <= len(kept) <= count
        assert set(kept.tolist()) <= set(candidates.tolist())
        assert np.array_equal(kept, kept_by_group(1000.0, snapshot, candidates, group, count, 0.8))
    else:
        assert np.array_equal(kept, candidates)
    assert np.array_equal(kept_by_group(1000.0, snapshot, candidates, -1, count, 0.0), candidates)


def test_a_group_is_the_prefix_at_its_depth() -> None:
    workload = shared(50, 1.0)
    tree = prefix_tree(workload)
    first = workload.block_ids[workload.block_offsets[:-1]]
    groups = prefix_groups(tree, 10.0)
    for name in set(first.tolist()):
        members = first == name
        assert (groups[members] == -1).all() if members.sum() == 1 else len(set(groups[members].tolist())) == 1
    assert len(set(groups.tolist()) - {-1}) == sum(int((first == name).sum() > 1) for name in set(first.tolist()))


def test_settings_are_refused_and_the_preset_is_read() -> None:
    with pytest.raises(ConfigError, match="out_of_range 'some'"):
        PublishedSettings(out_of_range="some")
    with pytest.raises(ConfigError, match="poll_s is 0"):
        PublishedSettings(poll_s=0.0)
    _, given_ = split_settings(f"lodestar-published,{AS_INTENDED}")
    intended = LodestarPublished(**read_settings("lodestar-published", given_, declared(LodestarPublished)))
    assert intended.filtered_instances == 2
    assert not intended.late_snapshots
    assert intended.out_of_range == "all"
    doc = LodestarPublished.__doc__ or ""
    assert AS_INTENDED in "".join(doc.split())
