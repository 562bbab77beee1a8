from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from lodestar.data.generate import sharing_workload
from lodestar.data.log import Floats, RequestLog, Workload
from lodestar.data.prefix_groups import group_blocks, infer_groups, reproduced

ARMS = [f"{load}-{arm}" for load in ("sharing09", "sharing47") for arm in ("random", "prefix", "rl")]


def router_hits(workload: Workload, chosen: np.ndarray, instances: int) -> Floats:
    """What a router with a perfect prefix index logs, in whole percent."""
    seen: list[set[int]] = [set() for _ in range(instances)]
    hits = np.zeros((len(workload), instances))
    for i, j in enumerate(chosen):
        blocks = workload.block_ids[workload.block_offsets[i] : workload.block_offsets[i + 1]].tolist()
        for k in range(instances):
            hits[i, k] = sum(block in seen[k] for block in blocks) * workload.block_tokens / workload.prompt_tokens[i]
        seen[j].update(blocks)
    return np.round(hits, 2)


@pytest.mark.parametrize("name", ARMS)
def test_groups_reproduce_the_logged_hits(name: str, real_log: Callable[[str], RequestLog]) -> None:
    log = real_log(name)
    hits = log.snapshot["hit_ratio"]
    groups = infer_groups(log.prompt_tokens, hits, log.chosen)
    _, offsets = group_blocks(groups, log.prompt_tokens, 16)
    assert reproduced(groups, offsets, 16, log.prompt_tokens, hits, log.chosen) >= 0.97
    assert 230 <= len(groups.size) <= 250
    assert groups.size.sum() == len(log)


@pytest.mark.parametrize("sharing_ratio", [0.1, 0.5, 0.9])
def test_groups_of_a_generated_workload_reproduce_its_hits(sharing_ratio: float) -> None:
    workload = sharing_workload(1000, rate_per_s=8, sharing_ratio=sharing_ratio, seed=3)
    chosen = np.random.default_rng(3).integers(0, 5, len(workload))
    hits = router_hits(workload, chosen, 5)
    groups = infer_groups(workload.prompt_tokens, hits, chosen)
    _, offsets = group_blocks(groups, workload.prompt_tokens, 16)
    assert reproduced(groups, offsets, 16, workload.prompt_tokens, hits, chosen) >= 0.97


def test_a_request_without_hits_starts_a_group() -> None:
    groups = infer_groups(np.full(3, 100), np.zeros((3, 2)), np.array([0, 1, 0]))
    assert groups.group.tolist() == [0, 1, 2]
    assert groups.shared_tokens.tolist() == [0, 0, 0]


def test_a_hit_nobody_can_explain_starts_a_group_that_later_requests_join() -> None:
    hits = np.array([[0.0, 0.5], [0.0, 0.5], [0.5, 0.5]])
    groups = infer_groups(np.full(3, 100), hits, np.array([1, 0, 0]))
    assert groups.group.tolist() == [0, 0, 0]


def test_shared_prefixes_are_whole_blocks_within_the_prompt() -> None:
    hits = np.array([[0.0], [0.33], [0.33]])
    prompt = np.array([1000, 1000, 1010])
    groups = infer_groups(prompt, hits, np.zeros(3, dtype=np.int64))
    ids, offsets = group_blocks(groups, prompt, 16)
    assert np.diff(offsets).tolist() == [21, 21, 21]
    assert sorted(set(ids.tolist())) == list(range(21))


def test_a_hundred_thousand_requests_take_seconds(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("sharing47-random")
    copies = 100_000 // len(log) + 1
    prompt, chosen = np.tile(log.prompt_tokens, copies), np.tile(log.chosen, copies)
    hits = np.tile(log.snapshot["hit_ratio"], (copies, 1))
    start = time.monotonic()
    infer_groups(prompt, hits, chosen)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("instances", [63, 64, 65, 130])
def test_groups_on_many_instances_reproduce_their_hits(instances: int) -> None:
    workload = sharing_workload(1000, rate_per_s=8, sharing_ratio=0.5, seed=3)
    chosen = np.random.default_rng(3).integers(0, instances, len(workload))
    hits = router_hits(workload, chosen, instances)
    groups = infer_groups(workload.prompt_tokens, hits, chosen)
    _, offsets = group_blocks(groups, workload.prompt_tokens, 16)
    assert reproduced(groups, offsets, 16, workload.prompt_tokens, hits, chosen) >= 0.97


def test_lost_hits_on_many_instances_take_no_longer_than_their_number() -> None:
    infer_groups(np.full(2, 100), np.zeros((2, 1)), np.zeros(2, dtype=np.int64))
    rng = np.random.default_rng(0)
    requests, instances = 40_000, 40
    group = rng.permutation(np.arange(requests) // 10)
    chosen, share = rng.integers(0, instances, requests), np.full(requests, 0.47)
    order = np.argsort(group, kind="stable")
    hits = np.zeros((requests, instances))
    for rank in range(10):
        for before in range(rank):
            rows = order.reshape(-1, 10)
            hits[rows[:, rank], chosen[rows[:, before]]] = share[rows[:, rank]]
    hits[rng.random(hits.shape) < 0.1] = 0.0
    prompt = rng.choice(np.array([1000, 2000, 4000, 8000]), requests // 10)[group]
    start = time.monotonic()
    infer_groups(prompt, hits, chosen)
    assert time.monotonic() - start < 6
