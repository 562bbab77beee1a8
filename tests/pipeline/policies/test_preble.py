from __future__ import annotations

import heapq
from collections import deque
from itertools import count, takewhile

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.policies.preble import Preble
from lodestar.pipeline.replay.routing.compiled import Request
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState

BLOCK = 160
GPUS = 4
NOTHING = np.full((GPUS, len(schema.SNAPSHOT_FIELDS)), np.nan)


def router(policy: Preble | None = None) -> PolicyState:
    return PolicyState(policy or Preble(), Fleet.of([EngineModel()] * GPUS), BLOCK)


def prefill_s(new: int, context: int) -> float:
    ms = 0.10842571 * new + 4.209777054806409
    if new < 384:
        ms = -118 + 1.25 * new - 2.56e-3 * new**2 if new >= 192 else 22.0
    attention = 0.32
    if context > 1024:
        attention = (1.86e-4 * context + 0.159) / (2 if new <= 1024 else 1)
    if new * context > 1024 * 1024:
        attention += 1.13e-3 * new + 1.75e-3 * context + 2.19e-6 * new * context
    return (ms + attention) / 1000 / 0.9


def shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


class Node:
    def __init__(self, parent: Node | None, key: tuple[int, ...]) -> None:
        self.parent, self.key = parent, key
        self.children: dict[int, Node] = {}
        self.context: int = len(key) + (parent.context if parent else 0)
        self.allocated: set[int] = set()
        self.active = [0] * GPUS
        self.count, self.hits, self.prompts, self.miss = 0, 0, 0, 0.0

    @property
    def before(self) -> int:
        return self.context - len(self.key)

    @property
    def large(self) -> bool:
        return len(self.key) > self.before

    def up(self) -> list[Node]:
        return [self, *(self.parent.up() if self.parent else [])]

    def below(self) -> list[Node]:
        return [each for child in self.children.values() for each in (child, *child.below())]


class Peer:
    """The peer's scheduler as one reads its source, with the best of several taken for what it is."""

    def __init__(self, warm_up: int, window_s: float) -> None:
        self.root, self.warm_up, self.window_s = Node(None, ()), warm_up, window_s
        self.entries: list[list[object]] = []  # time, counted node, last node
        self.tpots = [deque([0.15], maxlen=200) for _ in range(GPUS)]
        self.ttfts: dict[tuple[Node, int], list[tuple[float, float]]] = {}
        self.here: set[int] = set()
        self.sent_requests = self.steals = self.shares = 0

    def insert(self, tokens: tuple[int, ...]) -> Node:
        node, left = self.root, tokens
        while left and left[0] in node.children:
            child = node.children[left[0]]
            same = shared(child.key, left)
            if same < len(child.key):
                child = self._split(child, same)
            node, left = child, left[same:]
        if left:
            node.children[left[0]] = Node(node, left)
            node = node.children[left[0]]
        return node

    def _split(self, child: Node, same: int) -> Node:
        assert child.parent
        upper = Node(child.parent, child.key[:same])
        upper.allocated, upper.active = set(child.allocated), list(child.active)
        upper.children, child.parent.children[child.key[0]] = {child.key[same]: child}, upper
        child.parent, child.key = upper, child.key[same:]
        if upper.large and not child.large:
            for gpu in child.allocated:
                if (child, gpu) in self.ttfts:
                    self.ttfts[upper, gpu] = self.ttfts.pop((child, gpu))
        if upper.large and not child.large and child.count:
            upper.count, upper.hits, upper.prompts, upper.miss = child.count, child.hits, child.prompts, child.miss
            child.count = 0
            for entry in self.entries:
                entry[1] = upper if entry[1] is child else entry[1]
        return upper

    def cost(self, node: Node, gpu: int) -> float:
        prefill = node.miss * node.count * prefill_s(len(node.key), node.context) / len(node.allocated)
        return prefill + node.active[gpu] * 45 * float(np.median(self.tpots[gpu]))

    def loads(self, least: int) -> list[float]:
        counted = {id(entry[1]): entry[1] for entry in self.entries}.values()
        chosen = [node for node in counted if isinstance(node, Node) and node.count >= least]
        return [sum(self.cost(node, gpu) for node in chosen if gpu in node.allocated) for gpu in range(GPUS)]

    def choose(self, leaf: Node) -> list[float]:
        loads, among = self.loads(1), set(range(GPUS))
        if len(leaf.key) < leaf.before:
            among = next((each.allocated for each in leaf.up() if each.allocated), among)
        return [load if gpu in among else np.inf for gpu, load in enumerate(loads)]

    def sent(self, leaf: Node, gpu: int, now_s: float) -> None:
        for each in leaf.up():
            each.allocated.add(gpu)
            each.active[gpu] += 1
        node = next(each for each in leaf.up() if each.large)
        self.entries.append([now_s, node, leaf])
        node.count, node.hits, node.prompts = node.count + 1, node.hits + leaf.before, node.prompts + leaf.context
        node.miss = 1 - node.hits / node.prompts
        while self.entries[0][0] < now_s - self.window_s:  # type: ignore[operator]
            _, old, last = self.entries.pop(0)
            assert isinstance(old, Node)
            assert isinstance(last, Node)
            old.count, old.hits, old.prompts = old.count - 1, old.hits - last.before, old.prompts - last.context
            if old.prompts <= 0:
                old.count = old.hits = 0
                old.allocated = set()
        self.here.add(gpu)
        self.sent_requests += 1
        if leaf.up().index(node) < 3 and self.sent_requests >= self.warm_up * len(self.here):
            loads = self.loads(2)
            ranked = sorted(([gpu, loads[gpu]] for gpu in sorted(self.here)), key=lambda each: -each[1])
            self.rebalance(ranked, now_s)

    def rebalance(self, ranked: list[list[float]], now_s: float) -> None:
        if len(ranked) == 1 or ranked[0][1] < 1.5 * ranked[-1][1]:
            return
        heavy, light, order = int(ranked[0][0]), int(ranked[-1][0]), count()
        counted = {id(entry[1]): entry[1] for entry in self.entries}.values()
        heap = [
            (self.cost(node, heavy), next(order), node)
            for node in counted
            if isinstance(node, Node) and heavy in node.allocated and node.large and node.count > 1
        ]
        heapq.heapify(heap)
        if len(heap) == 1:
            cost, _, node = heap.pop()
            if light not in node.allocated and self.overloaded(node, heavy, now_s):
                ranked[0][1] -= cost / 2
                ranked[-1][1] += cost / 2
                self.shares += 1
                node.allocated.add(light)
                del self.ttfts[node, heavy]
        while heap:
            cost, _, node = heapq.heappop(heap)
            if ranked[0][1] - cost < ranked[-1][1] + cost:
                break
            ranked[0][1] -= cost
            ranked[-1][1] += cost
            self.steals += 1
            for each in (node, *node.below()):
                each.allocated = {light}
            if ranked[0][1] < 1.5 * ranked[-1][1]:
                break
        self.rebalance(ranked[1:], now_s)

    def overloaded(self, node: Node, gpu: int, now_s: float) -> bool:
        points = self.ttfts.get((node, gpu), [])
        early = [ttft for at_s, ttft in points if at_s < now_s - self.window_s / 2]
        late = [ttft for at_s, ttft in points if at_s >= now_s - self.window_s / 2]
        return bool(early) and bool(late) and bool(np.mean(late) >= 2 * np.mean(early))

    def done(self, leaf: Node, gpu: int, now_s: float, ttft_s: float, tpot_s: float) -> None:
        key = next(each for each in leaf.up() if each.large), gpu
        points = [*self.ttfts.get(key, []), (now_s, ttft_s)]
        self.ttfts[key] = [point for point in points if point[0] >= now_s - self.window_s]
        for each in leaf.up():
            each.active[gpu] -= 1
        self.tpots[gpu].append(tpot_s)


@pytest.mark.parametrize("seed", range(3))
def test_every_load_is_what_the_peers_tree_and_dictionaries_give(seed: int) -> None:
    rng = np.random.default_rng(seed)
    state, peer = router(Preble(warm_up_requests=5.0, window_minutes=2.0)), Peer(5, 120.0)
    now_s, exploited, under_way = 0.0, 0, []
    for i in range(500):
        now_s += rng.exponential(3.0)
        # A block's id says all that stands before it; few of them, so that prompts end within each other.
        shape = rng.integers(0, 3, size=rng.integers(1, 24)).tolist()
        blocks = [hash(tuple(shape[: depth // 6 + 1])) % 100_003 * 40 + depth + 1 for depth in range(len(shape))]
        tail = int(rng.choice([0, 0, 7, 700, 3000]))
        tokens = tuple(1_000 * block + k for block in blocks for k in range(BLOCK)) + (-i - 1,) * tail
        request = state.request(now_s, len(tokens), blocks)
        cost, probability = state.decide(request, NOTHING)
        leaf = peer.insert(tokens)
        expected = peer.choose(leaf)
        assert cost == pytest.approx(expected, abs=1e-6), i
        exploited += int(np.isinf(cost).any())
        gpu = int(rng.integers(GPUS)) if rng.random() < 0.2 else int(np.argmax(probability))
        state.sent(request, gpu, NOTHING)
        peer.sent(leaf, gpu, now_s)
        under_way.append((request, leaf, gpu))
        while len(under_way) > 12 or (under_way and rng.random() < 0.4):
            request, leaf, gpu = under_way.pop(int(rng.integers(len(under_way))))
            ttft_s, tpot_s = float(rng.exponential(0.1 + (now_s / 200) % 1)), float(rng.uniform(0.01, 0.1))
            state.first_token(request, gpu, request.now_s + ttft_s)
            state.done(request, gpu, now_s, decode_s=9 * tpot_s, output_tokens=10)
            peer.done(leaf, gpu, now_s, ttft_s, tpot_s)
    assert 100 < exploited < 450
    assert peer.steals > 20
    assert peer.shares > 2


def send(state: PolicyState, now_s: float, prompt: int, blocks: list[int], instance: int) -> Request:
    request = state.request(now_s, prompt, blocks)
    state.sent(request, instance, NOTHING)
    return request


def test_a_new_prompt_goes_to_the_least_load_and_the_first_among_equals() -> None:
    state = router()
    assert state.decide(state.request(0.0, 800, [1]), NOTHING)[1].tolist() == [1.0, 0.0, 0.0, 0.0]
    send(state, 0.0, 1000, [], 0)
    cost, probability = state.decide(state.request(1.0, 800, [1]), NOTHING)
    # By hand: (0.10842571 * 1000 + 4.209777 + 0.32) / 900 s of prefill, and one active request of 45 tokens of 0.15 s.
    assert cost.tolist() == pytest.approx([0.125506 + 6.75, 0.0, 0.0, 0.0], abs=1e-5)
    assert probability.tolist() == [0.0, 1.0, 0.0, 0.0]


def test_a_prefix_longer_than_what_is_new_is_exploited_where_it_is_allocated() -> None:
    state = router()
    send(state, 0.0, 2 * BLOCK + 10, [1, 2], 2)
    send(state, 0.0, 2 * BLOCK + 10, [1, 2], 3)
    send(state, 0.0, 900, [], 2)
    longer = state.decide(state.request(1.0, 4 * BLOCK - 1, [1, 2, 5]), NOTHING)[1]
    equal = state.decide(state.request(1.0, 4 * BLOCK, [1, 2, 5, 6]), NOTHING)[1]
    assert longer.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert equal.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_the_time_per_token_is_the_median_of_the_last_two_hundred() -> None:
    state, rng, times = router(), np.random.default_rng(0), deque([0.15], maxlen=200)
    for i in range(260):
        request = send(state, 0.001 * i, 100, [], 1)
        times.append(float(rng.uniform(0.01, 0.3)))
        state.done(request, 1, 0.001 * i, decode_s=4 * times[-1], output_tokens=5)
    send(state, 1.0, 1000, [], 1)
    request = send(state, 1.0, 1000, [], 1)
    two = state.decide(state.request(1.0, 500), NOTHING)[0][1]
    state.done(request, 1, 1.0)  # lost: no times
    one = state.decide(state.request(1.0, 500), NOTHING)[0][1]
    assert two - one == pytest.approx(45 * np.median(times))


def test_a_chain_of_three_nodes_is_not_rebalanced() -> None:
    def exploited_by(chain_nodes: float) -> int:
        state = router(Preble(warm_up_requests=0.0, chain_nodes=chain_nodes))
        send(state, 0.0, 900, [], 3)
        for group in (1, 2, 3):
            for tail in (20, 30):
                send(state, 0.0, 2 * BLOCK + tail, [10 * group, 10 * group + 1], 0)
        return int(np.argmax(state.decide(state.request(1.0, 2 * BLOCK + 40, [10, 11]), NOTHING)[1]))

    assert exploited_by(3.0) == 3
    assert exploited_by(0.0) == 0


def test_an_instance_that_leaves_is_forgotten_and_may_come_back() -> None:
    state = router()
    kept = send(state, 0.0, 2 * BLOCK + 10, [1, 2], 2)
    send(state, 0.0, 900, [], 2)
    state.leave(2, 1.0)
    cost, probability = state.decide(state.request(2.0, 2 * BLOCK + 20, [1, 2]), NOTHING)
    assert probability.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert cost[2] == np.inf
    state.done(kept, 2, 3.0)
    state.join(2)
    assert state.decide(state.request(4.0, 300, [7]), NOTHING)[0].tolist() == [0.0] * GPUS


def test_a_request_that_is_sent_again_is_active_where_it_went_last() -> None:
    state = router()
    request = send(state, 0.0, 1000, [1], 0)
    state.done(request, 0, 1.0)
    state.sent(request, 1, NOTHING)
    cost = state.decide(state.request(2.0, 500, []), NOTHING)[0]
    assert cost[0] == 0.0
    assert cost[1] > 6.75


@pytest.mark.parametrize("settings", [{"window_minutes": 0.0}, {"imbalance": 0.9}])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Preble(**settings)
