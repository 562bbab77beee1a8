"""The prefix cache of an engine, and what the router believes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.errors import DataError
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.prefixes import prefix_tree
from lodestar.pipeline.replay.view import RouterView


def sharing(arrived_at_s: list[float], blocks: list[list[int]], tail: int = 8, output: int = 2) -> Workload:
    """Requests with the given blocks of 16 tokens and a tail of their own."""
    counts = [len(own) for own in blocks]
    return Workload(
        arrived_at_s=np.array(arrived_at_s),
        prompt_tokens=np.array(counts) * 16 + tail,
        output_tokens=np.full(len(blocks), output),
        block_ids=np.array([block for own in blocks for block in own], dtype=np.int64),
        block_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        block_tokens=16,
    )


def test_a_repeated_prefix_is_found() -> None:
    workload = sharing([0.0, 10.0], [[0, 1, 2], [0, 1, 2]])
    outcome = Cluster.of([EngineModel()], workload).replay()
    assert outcome.cached_tokens.tolist() == [0, 48]
    assert outcome.router_hit_tokens.tolist() == [0, 48]
    assert outcome.ttft_ms[1] < outcome.ttft_ms[0]


def test_a_prefix_helps_a_request_that_goes_on_from_it() -> None:
    workload = sharing([0.0, 10.0, 20.0], [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3]])
    assert Cluster.of([EngineModel()], workload).replay().cached_tokens.tolist() == [0, 32, 64]


def test_an_engine_without_prefix_caching_finds_nothing() -> None:
    workload = sharing([0.0, 10.0], [[0, 1, 2], [0, 1, 2]])
    engine = replace(EngineModel(), prefix_caching=False)
    outcome = Cluster.of([engine], workload).replay()
    assert outcome.cached_tokens.tolist() == [0, 0]
    assert outcome.router_hit_tokens.tolist() == [0, 48]


def test_an_engine_without_prefix_caching_holds_a_prefix_once_a_request() -> None:
    workload = sharing([0.0, 0.001, 0.002], [[0, 1, 2, 3]] * 3, output=50)
    shared = Cluster.of([EngineModel()], workload).replay(record=True)
    apart = Cluster.of([replace(EngineModel(), prefix_caching=False)], workload)
    usage = schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)
    capacity = EngineModel().kv_capacity_tokens
    # 64 shared tokens and 8 of its own in one block
    assert shared.snapshots[1, 0, usage] * capacity == pytest.approx(80)
    assert apart.replay(record=True).snapshots[1, 0, usage] * capacity == pytest.approx(80)
    late = sharing([0.0, 0.05, 0.1], [[0, 1, 2, 3]] * 3, output=50)
    shared = Cluster.of([EngineModel()], late).replay(record=True)
    separate = Cluster.of([replace(EngineModel(), prefix_caching=False)], late).replay(record=True)
    # the first has filled a second block of its own by then
    assert shared.snapshots[2, 0, usage] * capacity == pytest.approx(64 + 32 + 16)
    assert separate.snapshots[2, 0, usage] * capacity == pytest.approx(64 + 32 + 64 + 16)


def test_a_full_engine_evicts_what_was_used_longest_ago_and_the_router_does_not_know() -> None:
    a, b, c = [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]
    workload = sharing([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [a, b, a, c, a, b])
    # Each request holds 64 + 16 tokens: room for two prefixes and the tails of a few.
    engine = replace(EngineModel(), kv_capacity_tokens=200)
    outcome = Cluster.of([engine], workload).replay()
    assert outcome.cached_tokens[2] == 64
    assert outcome.cached_tokens[5] < 64
    assert outcome.router_hit_tokens[5] == 64


def test_the_router_forgets_what_it_has_not_sent_for_long() -> None:
    workload = sharing([0.0, 100.0], [[0], [0]])
    cluster = Cluster.of([EngineModel()], workload, RouterView(index_ttl_s=60.0))
    assert cluster.replay().router_hit_tokens.tolist() == [0, 0]


def test_a_prompt_is_never_cached_to_its_last_token() -> None:
    workload = sharing([0.0, 10.0], [[0, 1], [0, 1]], tail=0)
    assert Cluster.of([EngineModel()], workload).replay().cached_tokens.tolist() == [0, 16]


def test_the_tree_has_every_shared_block_once() -> None:
    rng = np.random.default_rng(0)
    chains = [[10 * g + k for k in range(rng.integers(1, 9))] for g in rng.integers(0, 12, 200)]
    known = {block: k for k, block in enumerate(sorted({block for chain in chains for block in chain}))}
    dense = [[known[block] for block in chain] for chain in chains]
    workload = sharing(list(range(200)), dense)
    tree = prefix_tree(workload)
    uses = np.bincount(workload.block_ids)
    assert (tree.node_end - tree.node_start).sum() == 16 * (uses > 1).sum()
    for i, chain in enumerate(dense):
        path = tree.path[tree.offsets[i] : tree.offsets[i + 1]]
        assert tree.node_start[path].tolist() == [0, *tree.node_end[path]][:-1] if len(path) else True
        assert tree.node_end[path].max(initial=0) == 16 * sum(uses[block] > 1 for block in chain)


def test_a_block_after_two_different_blocks_is_refused() -> None:
    with pytest.raises(DataError, match="prefix block 2 follows two different blocks"):
        prefix_tree(sharing([0.0, 1.0], [[0, 2], [1, 2]]))
