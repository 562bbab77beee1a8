"""What the router knows is as old, as coarse and as forgetful as its view says."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.view import RouterView, views

METRICS = [
    schema.SNAPSHOT_FIELDS.index(name)
    for name in (schema.RUNNING_REQUESTS, schema.WAITING_REQUESTS, schema.KV_USAGE_RATIO)
]
OWN = [schema.SNAPSHOT_FIELDS.index(name) for name in (schema.INFLIGHT_REQUESTS, schema.INFLIGHT_PREFILL_REQUESTS)]
HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)


def test_metrics_are_as_old_as_the_last_scrape_and_own_counters_are_not(busy: Workload, slow: EngineModel) -> None:
    forced = np.arange(len(busy)) % 3
    live = Cluster.of([slow] * 3, busy).replay(forced=forced, record=True)
    stale = Cluster.of([slow] * 3, busy, RouterView(scrape_interval_ms=1500.0)).replay(forced=forced, record=True)
    assert live.ttft_ms.tobytes() == stale.ttft_ms.tobytes()
    assert live.snapshots[:, :, OWN].tobytes() == stale.snapshots[:, :, OWN].tobytes()
    period = np.floor(busy.arrived_at_s / 1.5)
    for k in np.unique(period):
        rows = stale.snapshots[period == k][:, :, METRICS]
        assert (rows == rows[:1]).all()
    assert (stale.snapshots[:, :, METRICS] != live.snapshots[:, :, METRICS]).mean() > 0.3


def test_a_scrape_reads_what_a_decision_at_that_instant_would_see(busy: Workload, slow: EngineModel) -> None:
    """Requests that arrive just after a reading see nearly what is live."""
    forced = np.arange(len(busy)) % 3
    live = Cluster.of([slow] * 3, busy).replay(forced=forced, record=True)
    often = Cluster.of([slow] * 3, busy, RouterView(scrape_interval_ms=0.01)).replay(forced=forced, record=True)
    same = often.snapshots[1:, :, METRICS[0]] == live.snapshots[1:, :, METRICS[0]]
    assert same.mean() > 0.99


def test_the_gateway_counts_a_request_until_it_hears_of_its_end() -> None:
    workload = Workload(
        np.array([0.0, 0.0005, 0.2]), np.full(3, 100), np.full(3, 1), np.zeros(0, int), np.zeros(4, int), 16
    )
    slow_answer = EngineModel(request_overhead_ms=2.0, response_overhead_ms=50.0)
    outcome = Cluster.of([slow_answer], workload).replay(record=True)
    assert outcome.ttft_ms[0] > 52.0
    assert outcome.snapshots[1, 0, OWN].tolist() == [1.0, 1.0]
    assert outcome.snapshots[1, 0, METRICS[:2]].tolist() == [0.0, 0.0]  # still on its way
    assert outcome.snapshots[2, 0, OWN].tolist() == [0.0, 0.0]


def believed(workload: Workload, instances: int, view: RouterView, chosen: list[int]) -> list[float]:
    """Replay a router's index of blocks, each an entry of an ordered dictionary."""
    shelves: dict[int, OrderedDict[tuple[int, int], float]] = {}
    size, hits = view.index_block_tokens, []
    for i, at_s in enumerate(workload.arrived_at_s):
        blocks = workload.block_ids[workload.block_offsets[i] : workload.block_offsets[i + 1]]
        ends = range(size, workload.prompt_tokens[i] // size * size + 1, size)
        keys = [int(blocks[k]) * 1000 + end for end in ends if (k := (end - 1) // workload.block_tokens) < len(blocks)]
        keys += [-1000 * (i + 1) - end for end in ends[len(keys) :]]
        shelf = shelves.setdefault(chosen[i] if view.index_per_instance else 0, OrderedDict())
        for key, since in list(shelf.items()):
            if view.index_ttl_s and at_s - since > view.index_ttl_s:
                del shelf[key]
        hit = 0
        for key in keys:
            if (key, chosen[i]) not in shelf:
                break
            hit += size
        hits.append(hit / workload.prompt_tokens[i])
        for key in keys:
            shelf.pop((key, chosen[i]), None)
            shelf[(key, chosen[i])] = at_s
        while view.index_capacity_blocks and len(shelf) > view.index_capacity_blocks:
            # A prompt is forgotten as one: its prefix, then what follows.
            shelf.popitem(last=False)
    return hits


@pytest.mark.parametrize("per_instance", [True, False])
def test_a_full_index_forgets_what_was_sent_longest_ago(per_instance: bool) -> None:
    rng = np.random.default_rng(4)
    n, block = 300, 32
    group = rng.integers(0, 12, n)
    prefix = 64 + 32 * (group % 3)
    ids = [[12 * g + k for k in range(p // block)] for g, p in zip(group.tolist(), prefix.tolist(), strict=True)]
    dense = {block_id: k for k, block_id in enumerate(sorted({b for row in ids for b in row}))}
    workload = Workload(
        np.arange(n) * 1.0,
        prefix + 30,
        np.ones(n, int),
        np.array([dense[b] for row in ids for b in row]),
        np.concatenate([[0], np.cumsum([len(row) for row in ids])]),
        block,
    )
    view = RouterView(
        index_block_tokens=32, index_capacity_blocks=30, index_ttl_s=40.0, index_per_instance=per_instance
    )
    chosen = rng.integers(0, 3, n)
    outcome = Cluster.of([EngineModel()] * 3, workload, view).replay(forced=chosen, record=True)
    expected = believed(workload, 3, view, chosen.tolist())
    got = outcome.snapshots[np.arange(n), chosen, HIT]
    exact = np.isclose(got, expected)
    # Whole runs of blocks are forgotten at once here, and block by block there.
    assert exact.mean() > 0.9
    assert 0.2 < np.mean(np.array(expected) > 0) < 0.9
    np.testing.assert_allclose(got.mean(), np.mean(expected), rtol=0.1)


def test_the_index_counts_whole_blocks_of_its_own() -> None:
    offsets = np.array([0, 3, 6])
    workload = Workload(np.array([0.0, 9.0]), np.full(2, 60), np.ones(2, int), np.array([0, 1, 2] * 2), offsets, 16)
    for block, hit in ((1, 48), (32, 32), (64, 0)):
        view = RouterView(index_block_tokens=block)
        assert Cluster.of([EngineModel()], workload, view).replay().router_hit_tokens.tolist() == [0, hit]


@pytest.mark.parametrize("name", views())
def test_every_preset_runs_and_says_where_it_comes_from(name: str, busy: Workload, slow: EngineModel) -> None:
    outcome = Cluster.of([slow] * 3, busy, RouterView.preset(name)).replay(make_policy("aibrix-prefix-cache"))
    assert np.isfinite(outcome.ttft_ms).all()
    assert views()[name]["source"]


def test_an_unknown_view_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'aibrix'"):
        RouterView.preset("aibricks")


def test_an_index_that_knows_believes_nothing_on_engines_without_a_cache(busy: Workload, slow: EngineModel) -> None:
    engines = [slow, replace(slow, prefix_caching=False)]
    for knows in (False, True):
        view = RouterView(index_skips_uncached=knows, index_capacity_blocks=100_000)
        hits = Cluster.of(engines, busy, view).replay(record=True).snapshots[:, :, HIT]
        assert hits[:, 0].max() > 0.4
        assert (hits[:, 1].max() > 0.4) is not knows
