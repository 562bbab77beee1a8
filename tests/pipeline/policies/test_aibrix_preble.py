from __future__ import annotations

from itertools import takewhile

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.policies.aibrix_preble import AibrixPreble
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState

BLOCK = 160
NOTHING = np.full((4, len(schema.SNAPSHOT_FIELDS)), np.nan)


def router(policy: AibrixPreble | None = None, instances: int = 4) -> PolicyState:
    return PolicyState(policy or AibrixPreble(), Fleet.of([EngineModel()] * instances), BLOCK)


def send(state: PolicyState, now_s: float, prompt: int, blocks: list[int], instance: int) -> None:
    state.sent(state.request(now_s, prompt, blocks), instance, NOTHING)


def shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


class Node:
    def __init__(self, parent: Node | None, key: tuple[int, ...]) -> None:
        self.parent, self.key = parent, key
        self.children: dict[int, Node] = {}
        self.context: int = len(key) + (parent.context if parent else 0)
        self.pods: set[int] = set()
        self.last_s = 0.0

    def up(self) -> list[Node]:
        return [self, *(self.parent.up() if self.parent else [])]


class Peer:
    """The peer's router as one reads its source: a radix tree of tokens, and dictionaries by node."""

    def __init__(self) -> None:
        self.root = Node(None, ())
        self.entries: list[tuple[float, Node]] = []
        self.count: dict[Node, int] = {}
        self.hits: dict[Node, int] = {}
        self.prompts: dict[Node, int] = {}

    def insert(self, tokens: tuple[int, ...], now_s: float) -> tuple[Node, int]:
        node, left = self.root, tokens
        while left and left[0] in node.children:
            node.last_s = now_s
            child = node.children[left[0]]
            same = shared(child.key, left)
            if same < len(child.key):
                upper = Node(node, child.key[:same])
                upper.pods, upper.children = set(child.pods), {child.key[same]: child}
                node.children[left[0]] = upper
                child.parent, child.key = upper, child.key[same:]
                child = upper
            node, left = child, left[same:]
        node.last_s = now_s
        matched = len(tokens) - len(left)
        if left:
            node.children[left[0]] = Node(node, left)
            node = node.children[left[0]]
            node.last_s = now_s
        return node, matched

    def tick(self, now_s: float) -> None:
        self._evict(self.root, now_s)
        kept = []
        for at_s, node in self.entries:
            if at_s > now_s - 180.0:
                kept.append((at_s, node))
                continue
            self.count[node] -= 1
            self.hits[node] -= node.context - len(node.key)
            self.prompts[node] -= node.context
            if self.prompts[node] <= 0:
                del self.count[node], self.hits[node], self.prompts[node]
        self.entries = kept

    def _evict(self, node: Node, now_s: float) -> None:
        for child in list(node.children.values()):
            self._evict(child, now_s)
            if now_s - child.last_s > 300.0:
                for above in child.up()[1:]:
                    above.pods -= child.pods
                del node.children[child.key[0]]

    def node_cost(self, node: Node) -> float:
        miss = 1.0 - self.hits[node] / self.prompts[node]
        new, context = len(node.key), node.context
        ms = 0.27106428 * new + 10.52444263
        if new < 384:
            ms = -295 + 3.125 * new - 6.4e-3 * new**2 if new >= 192 else 55.0
        if context <= 1024:
            ms += 0.8
        else:
            ms += (4.65e-4 * context + 0.398) / (2 if new <= 1024 else 1)
        if new >= 4096:
            ms += -18.425 + 9.65e-3 * new + 5.4e-6 * new**2
        return miss * self.count[node] * ms / 1000 / 0.9 + 45 * 0.15

    def costs(self, node: Node, matched: int, total: int, pods: int) -> tuple[bool, list[float]]:
        if matched / total > 0.5:
            for each in node.up():
                if each.pods:
                    load = [sum(n for held, n in self.count.items() if j in held.pods) for j in range(pods)]
                    return True, [load[j] if j in each.pods else np.inf for j in range(pods)]
        return False, [sum(self.node_cost(held) for held in self.count if j in held.pods) for j in range(pods)]

    def sent(self, node: Node, pod: int, now_s: float) -> None:
        for each in node.up():
            each.pods.add(pod)
        self.entries.append((now_s, node))
        self.count[node] = self.count.get(node, 0) + 1
        self.hits[node] = self.hits.get(node, 0) + node.context - len(node.key)
        self.prompts[node] = self.prompts.get(node, 0) + node.context


def tokens_of(blocks: list[int], tail: int, unique: int) -> tuple[int, ...]:
    return tuple(1_000 * block + k for block in blocks for k in range(BLOCK)) + (-unique,) * tail


@pytest.mark.parametrize("seed", range(3))
def test_every_cost_is_what_the_peers_tree_and_dictionaries_give(seed: int) -> None:
    rng = np.random.default_rng(seed)
    state, peer, now_s, followed, first = router(), Peer(), 0.0, 0, None
    for i in range(400):
        now_s += rng.exponential(6.0 if i % 100 < 97 else 60.0)
        # A block's id says all that stands before it; few of them, so that prompts end within each other.
        shape = rng.integers(0, 2, size=rng.integers(1, 30)).tolist()
        blocks = [hash(tuple(shape[: depth // 3 + 1])) % 100_003 * 40 + depth + 1 for depth in range(len(shape))]
        tail = int(rng.choice([0, 0, 7, 700]))
        if first is not None:
            state.done(first, 0, now_s)
        peer.tick(now_s)
        request = state.request(now_s, len(blocks) * BLOCK + tail, blocks)
        first = first or request
        cost, probability = state.decide(request, NOTHING)
        node, matched = peer.insert(tokens_of(blocks, tail, i + 1), now_s)
        follow, expected = peer.costs(node, matched, len(blocks) * BLOCK + tail, 4)
        assert cost == pytest.approx(expected, abs=1e-6), i
        followed += follow
        if not follow:
            assert np.argmax(probability) == np.argmin(np.round(expected, 9))
        pod = int(rng.integers(4)) if rng.random() < 0.2 else int(np.argmax(probability))
        state.sent(request, pod, NOTHING)
        peer.sent(node, pod, now_s)
    assert 50 < followed < 350


def test_a_new_prompt_goes_where_the_least_work_is_the_first_in_the_list_among_equals() -> None:
    state = router()
    assert state.decide(state.request(0.0, 800, [1]), NOTHING)[1].tolist() == [1.0, 0.0, 0.0, 0.0]
    send(state, 0.0, 1000, [], 0)
    cost, probability = state.decide(state.request(1.0, 800, [1]), NOTHING)
    # By hand: (0.27106428 * 1000 + 10.52444263 + 0.8) / 900 s of prefill, and 45 tokens of 0.15 s.
    assert cost[0] == pytest.approx(0.313765 + 6.75, abs=1e-6)
    assert probability.tolist() == [0.0, 1.0, 0.0, 0.0]


def test_more_than_half_of_the_prompt_in_the_tree_is_followed() -> None:
    state = router()
    send(state, 0.0, 2 * BLOCK, [1, 2], 2)
    send(state, 0.0, 2 * BLOCK, [1, 2], 3)
    half = state.decide(state.request(1.0, 4 * BLOCK, [1, 2, 3, 4]), NOTHING)[1]
    more = state.decide(state.request(1.0, 4 * BLOCK - 1, [1, 2, 5]), NOTHING)[1]
    assert half.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert more.tolist() == [0.0, 0.0, 0.5, 0.5]


def test_a_gpu_has_its_own_prefill_times() -> None:
    state = router(AibrixPreble(gpu="A6000", decode_tokens=1.0))
    send(state, 0.0, 1000, [], 0)
    cost = state.decide(state.request(1.0, 800), NOTHING)[0]
    assert cost[0] == pytest.approx((0.10842571 * 1000 + 4.209777 + 0.32) / 900 + 0.15, abs=1e-6)


def test_an_instance_that_leaves_is_forgotten_and_may_come_back() -> None:
    state = router()
    send(state, 0.0, 2 * BLOCK, [1, 2], 2)
    send(state, 0.0, 900, [], 2)
    state.leave(2, 1.0)
    assert state.decide(state.request(2.0, 2 * BLOCK, [1, 2]), NOTHING)[1].tolist() == [1.0, 0.0, 0.0, 0.0]
    state.join(2)
    assert state.decide(state.request(400.0, 300, [7]), NOTHING)[0].max() < 1e-6
    state.done(state.request(500.0, 10), 0, 500.0)  # what it was sent leaves the window without harm
    assert state.decide(state.request(500.0, 300, [7]), NOTHING)[0].max() < 1e-6


def test_a_request_that_is_sent_again_counts_once_where_it_went_last() -> None:
    state = router()
    request = state.request(0.0, 1000, [1])
    state.sent(request, 0, NOTHING)
    state.done(request, 0, 1.0)
    state.sent(request, 1, NOTHING)
    cost = state.decide(state.request(2.0, 500, []), NOTHING)[0]
    assert cost[0] == 0.0
    assert cost[1] > 6.75


@pytest.mark.parametrize("settings", [{"window_minutes": 0.0}, {"window_minutes": 6.0}, {"gpu": "H100"}])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, float | str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        AibrixPreble(**settings)  # type: ignore[arg-type]
