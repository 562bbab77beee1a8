from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lodestar.data.log import Floats, Ints, RequestLog, Workload
from lodestar.data.reconstruction.arms import aligned, held_out, own_arm
from lodestar.data.reconstruction.prefix_groups import (
    Arm,
    depths_differ,
    group_blocks,
    infer_groups,
    infer_groups_jointly,
    reproduced,
)
from lodestar.data.workloads.sharing import sharing_workload


def jaccard(found: Ints, truth: Ints) -> float:
    """Of the pairs that either puts together, the share that both do."""
    pairs = [np.unique(labels, axis=0, return_counts=True)[1] for labels in (np.c_[found, truth], found, truth)]
    both, one, other = (float((count * (count - 1) / 2).sum()) for count in pairs)
    return both / (one + other - both)


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
    groups = infer_groups(log.prompt_tokens, log.snapshot["hit_ratio"], log.chosen)
    assert reproduced(groups, 16, log.prompt_tokens, own_arm(log)) >= 0.97
    assert 230 <= len(groups.size) <= 250
    assert groups.size.sum() == len(log)


@pytest.mark.parametrize(
    ("load", "least", "least_held_out", "most_alone"), [("sharing09", 0.99, 0.65, 0.25), ("sharing47", 0.98, 0.6, 0.3)]
)
def test_groups_from_every_arm_reproduce_each_and_foretell_one_held_out(
    load: str, least: float, least_held_out: float, most_alone: float, real_log: Callable[[str], RequestLog]
) -> None:
    logs = [real_log(f"{load}-{name}") for name in ("random", "prefix", "rl")]
    prompt = logs[0].prompt_tokens
    arms = [own_arm(logs[0]), *(aligned(logs[0], other) for other in logs[1:])]
    groups = infer_groups_jointly(prompt, arms)
    for first in range(3):
        turned = [arms[first], *(arm for arm in arms if arm is not arms[first])]
        assert reproduced(groups, 16, prompt, turned[0]) >= least
        assert held_out(prompt, turned, 16) >= least_held_out
        assert held_out(prompt, turned[:2], 16) <= most_alone  # one arm alone leaves twins


@pytest.mark.parametrize("sharing_ratio", [0.1, 0.5, 0.9])
def test_groups_of_a_generated_workload_reproduce_its_hits(sharing_ratio: float) -> None:
    workload = sharing_workload(1000, rate_per_s=8, sharing_ratio=sharing_ratio, seed=3)
    chosen = np.random.default_rng(3).integers(0, 5, len(workload))
    hits = router_hits(workload, chosen, 5)
    groups = infer_groups(workload.prompt_tokens, hits, chosen)
    assert reproduced(groups, 16, workload.prompt_tokens, Arm(hits, chosen)) >= 0.97


def test_arms_of_a_generated_workload_give_back_its_groups() -> None:
    workload = sharing_workload(2000, rate_per_s=8, sharing_ratio=0.5, seed=3)
    first_block = np.array([workload.block_ids[at] for at in workload.block_offsets[:-1]])
    choices = np.random.default_rng(3).integers(0, 7, (4, len(workload)))
    arms = [Arm(router_hits(workload, chosen, 7), chosen) for chosen in choices]
    alone, joint = (infer_groups_jointly(workload.prompt_tokens, part).group for part in (arms[:1], arms))
    assert jaccard(joint, first_block) > 0.95
    assert jaccard(alone, first_block) < 0.5


def test_a_request_that_an_arm_lacks_keeps_its_group() -> None:
    hits = np.array([[0.0, 0.0], [0.5, 0.0], [0.5, 0.5]])
    one = Arm(hits, np.array([0, 1, 0]))
    lacking = Arm(np.array([[0.0, 0.0], [np.nan, np.nan], [0.5, 0.0]]), np.array([0, -1, 0]))
    assert infer_groups_jointly(np.full(3, 100), [one, lacking]).group.tolist() == [0, 0, 0]


def test_hits_of_different_depth_share_what_all_have() -> None:
    hits = np.array([[0.0, 0.0], [0.2, 0.0], [0.2, 0.6]])
    groups = infer_groups(np.full(3, 1000), hits, np.array([0, 1, 0]))
    assert groups.group.tolist() == [0, 0, 0]
    assert groups.shared_tokens[0] == pytest.approx(200, abs=20)
    assert depths_differ(hits) == pytest.approx(1 / 3)


def branching(requests: int, instances: int, seed: int) -> tuple[Ints, Arm]:
    """Requests that all share a fifth of their prompts, and three fifths within groups of ten."""
    rng = np.random.default_rng(seed)
    group, chosen = rng.permutation(np.arange(requests) // 10), rng.integers(0, instances, requests)
    hits, warm = np.zeros((requests, instances)), np.zeros((requests // 10 + 1, instances), dtype=np.bool_)
    for i in range(requests):
        hits[i] = np.where(warm[group[i]], 0.6, np.where(warm[-1], 0.2, 0.0))
        warm[[group[i], -1], chosen[i]] = True
    return group, Arm(hits, chosen)


def test_prefixes_within_a_common_one_are_found() -> None:
    _, arm = branching(1000, 7, seed=1)
    prompt = np.full(1000, 4000)
    groups = infer_groups(prompt, arm.hit_ratio, arm.chosen)
    assert [len(level.size) for level in groups.levels()] == [1, 100]
    assert reproduced(groups, 16, prompt, arm) >= 0.97
    ids, offsets = group_blocks(groups, prompt, 16)
    assert np.diff(offsets).tolist() == [150] * 1000
    assert len(np.unique(ids)) == 48 + 100 * 102
    assert len(np.unique(ids[offsets[:-1]])) == 1


def test_blocks_of_branches_hit_like_the_groups_they_stand_for() -> None:
    _, arm = branching(400, 4, seed=2)
    prompt = np.random.default_rng(2).integers(2000, 4000, 400)
    groups = infer_groups(prompt, arm.hit_ratio, arm.chosen)
    ids, offsets = group_blocks(groups, prompt, 16)
    none = np.zeros(400)
    hits = router_hits(Workload(none, prompt, prompt, ids, offsets, 16), arm.chosen, 4)
    as_logged = np.all(np.abs(hits - arm.hit_ratio) <= 0.01 + 1e-9, axis=1).mean()
    assert as_logged == pytest.approx(reproduced(groups, 16, prompt, arm), abs=0.1)


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


@pytest.mark.parametrize("instances", [63, 64, 65, 130])
def test_groups_on_many_instances_reproduce_their_hits(instances: int) -> None:
    workload = sharing_workload(1000, rate_per_s=8, sharing_ratio=0.5, seed=3)
    chosen = np.random.default_rng(3).integers(0, instances, len(workload))
    hits = router_hits(workload, chosen, instances)
    groups = infer_groups(workload.prompt_tokens, hits, chosen)
    assert reproduced(groups, 16, workload.prompt_tokens, Arm(hits, chosen)) >= 0.97
