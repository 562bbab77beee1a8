"""`sglang-cache-aware` on cases worked by hand, and on prefixes as the replay has them; the peer is in tests/peers."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.log import Workload
from lodestar.pipeline.replay.policies.sglang_cache_aware import SglangCacheAware
from lodestar.pipeline.replay.prefixes import prefix_tree
from lodestar.pipeline.replay.routing.compiled import Request
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState

INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)


class Router:
    """A policy before prompts whose blocks are single characters; what it sends is over at once."""

    def __init__(self, instances: int = 2, **settings: float) -> None:
        self.state = PolicyState(SglangCacheAware(**settings), Fleet([f"worker-{j}" for j in range(instances)]))
        self.idle = [0.0] * instances

    def send(self, text: str, instance: int, now_s: float = 0.0) -> None:
        request = self.request(text, now_s)
        self.state.sent(request, instance, snapshot(self.idle))
        self.state.done(request, instance, now_s)

    def chances(self, text: str, *loads: float, now_s: float = 0.0) -> list[float]:
        return self.state.decide(self.request(text, now_s), snapshot(loads or self.idle))[1].tolist()

    def request(self, text: str, now_s: float = 0.0) -> Request:
        return self.state.request(now_s, len(text), [text[: k + 1] for k in range(len(text))])

    @property
    def tokens(self) -> list[float]:
        return self.state.memory.of_instance[:, 0].tolist()


def snapshot(loads: Any) -> NDArray[np.float64]:
    table = np.full((len(loads), len(schema.SNAPSHOT_FIELDS)), np.nan)
    table[:, INFLIGHT] = loads
    return table


def test_a_new_prompt_goes_to_the_first_of_the_least_loaded_in_the_routers_list() -> None:
    router = Router(3)
    assert router.chances("abc", 2, 1, 1) == [0, 1, 0]
    router.state.candidates[:] = [2, 1, 0]
    assert router.chances("abc", 2, 1, 1) == [0, 0, 1]
    assert router.chances("", 1, 1, 0) == [0, 0, 1]


def test_a_match_counts_if_it_is_more_than_the_threshold_of_the_prompt() -> None:
    router = Router()
    router.send("abc", 1)
    assert router.chances("abc123456", 5, 9) == [0, 1]
    assert router.chances("abc1234567", 5, 9) == [1, 0]  # 3 of 10 is not more than 0.3


@pytest.mark.parametrize(("loads", "apart"), [((2, 0), False), ((0, 3), True), ((2, 5), True), ((3, 6), False)])
def test_load_decides_if_it_is_apart_by_difference_and_by_ratio(loads: tuple[int, int], apart: bool) -> None:
    router = Router(balance_abs_threshold=2, balance_rel_threshold=2)
    busier = int(np.argmax(loads))
    router.send("abc", busier)
    assert router.chances("abc", *loads)[busier] == (0 if apart else 1)


def test_a_run_belongs_to_who_made_it_and_its_parts_after_a_split_too() -> None:
    router = Router()
    router.send("abcdef", 0)
    router.send("abcdef", 1)
    assert router.chances("abcdef") == [1, 0]
    router.send("abcdxy", 1)
    assert router.chances("abcdxyz") == [0, 1]
    assert router.chances("abcdq") == [1, 0]
    assert router.chances("abcx") == [1, 0]
    assert router.tokens == [6, 8]


def test_who_left_holds_nothing_and_any_other_holder_may_get_it_and_then_keeps_it() -> None:
    router = Router(4)
    for instance in (0, 1, 2):
        router.send("abcdef", instance)
    router.state.leave(0, 1.0)
    assert router.chances("abcdef") == [0, 0.5, 0.5, 0]
    router.send("abcdef", 2)
    assert router.chances("abcdef") == [0, 0, 1, 0]
    router.state.leave(2, 2.0)
    assert router.chances("abcdef") == [0, 1, 0, 0]
    router.state.join(0)
    assert router.chances("abcdef") == [0, 1, 0, 0]
    router.state.leave(1, 3.0)
    assert router.chances("abcdef", 1, 0, 0, 0) == [0, 0, 0, 1]
    assert router.tokens == [0, 0, 0, 0]


def test_an_eviction_takes_whole_runs_that_nothing_comes_after_least_recently_used_first() -> None:
    router = Router(max_tree_tokens=10, eviction_interval_s=60)
    router.send("abcdef", 0, 0.0)
    router.send("abxy", 0, 1.0)
    router.send("zzzz", 0, 2.0)
    router.send("q", 1, 59.0)
    assert router.tokens == [12, 1]
    router.send("r", 1, 60.0)
    assert router.tokens == [8, 2]  # "cdef" was the oldest end; "ab" goes on to "xy"
    assert router.chances("cdef", 1, 0) == [0, 1]
    assert router.chances("abcdef", 1, 0) == [1, 0]
    assert router.chances("abcdefg", 1, 0) == [0, 1]  # 2 of 7
    router.send("wwwwwwww", 0, 61.0)
    router.send("s", 1, 119.0)
    router.send("t", 1, 1000.0)
    assert router.tokens == [8, 4]  # "xy", then "ab", which nothing comes after any more, then "zzzz"


def test_no_interval_no_eviction() -> None:
    router = Router(max_tree_tokens=1, eviction_interval_s=0)
    router.send("abc", 0, 0.0)
    router.send("def", 0, 1e6)
    assert router.tokens == [6, 0]


@pytest.mark.parametrize(("between", "kept"), [(3, "aaaa"), (2, "cccc")])
def test_one_look_up_in_eight_counts_as_a_use(between: int, kept: str) -> None:
    router = Router(3, max_tree_tokens=4)
    # As three register, 6 numbers are taken, and 2 with each prompt: the look-up of the sixth takes 16.
    router.send("aaaa", 0)
    router.send("cccc", 0)
    for letter in "xyz"[:between]:
        router.send(letter, 2)
    router.send("aaaabbbb", 1)
    router.send("w", 2, 60.0)
    assert router.tokens[0] == 4
    assert router.chances(kept, 1, 1, 0) == [1, 0, 0]


def test_a_tail_moves_with_the_request_that_is_sent_again() -> None:
    state = PolicyState(SglangCacheAware(), Fleet(["a", "b"]), block_tokens=4)
    request = state.request(0.0, 10, ["one", "two"])
    state.sent(request, 0, snapshot([0, 0]))
    state.done(request, 0, 1.0)
    assert state.decide(request, snapshot([5, 0]))[1].tolist() == [1, 0]
    state.sent(request, 1, snapshot([0, 0]))
    assert state.memory.of_instance[:, 0].tolist() == [8, 10]
    assert state.decide(request, snapshot([5, 0]))[1].tolist() == [0, 1]


class Compressed(PolicyState):
    """The state as the replay keeps it: runs of blocks that always occur together are one node."""

    def __init__(self, policy: SglangCacheAware, fleet: Fleet, workload: Workload) -> None:
        super().__init__(policy, fleet, workload.block_tokens)
        tree = prefix_tree(workload)
        self._path, self._node_end = tree.path.astype(np.int32), tree.node_end.astype(np.int32)
        self._offsets = tree.offsets
        self.memory = policy.memory.memory(len(fleet.names), len(tree.node_end), len(workload))

    def same(self, request: Request) -> Request:
        start, end = self._offsets[request.index : request.index + 2]
        return request._replace(path_from=int(start), path_to=int(end))


def conversations(n: int, seed: int) -> Workload:
    """Make prompts that continue earlier ones or turn away from them, with some tokens after their last whole block."""
    rng = np.random.default_rng(seed)
    named: dict[tuple[int, ...], int] = {}
    prompts: list[tuple[int, ...]] = [()]
    for _ in range(n):
        old = prompts[-1 - int(rng.integers(min(len(prompts), 40)))]
        old = old[: int(rng.integers(len(old) + 1))] if rng.random() < 0.5 else old
        new = rng.integers(0, 3, rng.integers(0, 4)) if rng.random() < 0.6 else rng.integers(0, 99, rng.integers(9))
        prompts.append((*old, *(int(block) for block in new))[:30])
    blocks = [[named.setdefault(p[: k + 1], len(named)) for k in range(len(p))] for p in prompts[1:]]
    lengths = np.array([len(each) for each in blocks])
    return Workload(
        arrived_at_s=np.arange(n) * 0.1,
        prompt_tokens=lengths * 4 + rng.integers(0, 4, n),
        output_tokens=np.ones(n, dtype=np.int64),
        block_ids=np.array([block for each in blocks for block in each], dtype=np.int64),
        block_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        block_tokens=4,
    )


def test_runs_of_blocks_and_single_blocks_give_the_same_decisions() -> None:
    workload = conversations(1500, seed=1)
    policy = SglangCacheAware(balance_abs_threshold=3, eviction_interval_s=5.0, max_tree_tokens=400)
    fleet = Fleet([f"worker-{j}" for j in range(4)])
    single, runs = PolicyState(policy, fleet, 4), Compressed(policy, fleet, workload)
    assert len(runs.prefixes.node_end) < 0.7 * len(np.unique(workload.block_ids))
    rng = np.random.default_rng(2)
    loads, going = np.zeros(4), deque[tuple[Request, int]]()
    counts = {"load": 0, "match": 0, "chance": 0, "evicted": 0}
    for i, now_s in enumerate(workload.arrived_at_s):
        start, end = workload.block_offsets[i : i + 2]
        request = single.request(now_s, workload.prompt_tokens[i], workload.block_ids[start:end])
        before = single.memory.of_instance[:, 0].sum()
        while len(going) > rng.integers(4, 16):
            done, j = going.popleft()
            loads[j] -= 1
            for state in (single, runs):
                state.done(done, j, now_s)
        counts["evicted"] += int(single.memory.of_instance[:, 0].sum() < before)
        cost, probability = single.decide(request, snapshot(loads))
        assert runs.decide(runs.same(request), snapshot(loads))[0].tolist() == cost.tolist()
        j = int(rng.choice(4, p=probability))
        counts["chance" if probability[j] < 1.0 else "load" if loads[j] == loads.min() else "match"] += 1
        single.sent(request, j, snapshot(loads))
        runs.sent(runs.same(request), j, snapshot(loads))
        loads[j] += 1
        going.append((request, j))
        assert single.memory.of_instance.tolist() == runs.memory.of_instance.tolist()
        if i % 200 == 150:
            gone = single.candidates[int(rng.integers(len(single.candidates)))]
            for state in (single, runs):
                state.leave(gone, now_s)
        elif i % 200 == 190:
            for state in (single, runs):
                state.join(gone)
    assert min(counts.values()) >= 5, counts
