"""`dynamo-kv` on cases worked by hand, and on prefixes as the replay has them; the peer is in tests/peers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.pipeline.replay.policies.dynamo_kv import ACTIVE_BLOCKS, ACTIVE_REQUESTS, PREFILL_TOKENS, DynamoKv
from lodestar.pipeline.replay.prefixes import prefix_tree
from lodestar.pipeline.replay.routing.compiled import DONE, FIRST_TOKEN, LEFT, SENT, Event, Prefixes, Request
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_LOADS = [PREFILL_TOKENS, ACTIVE_BLOCKS, ACTIVE_REQUESTS]
NAN = math.nan
Floats = NDArray[np.float64]


def _state(policy: DynamoKv, instances: int = 2, block_tokens: int = 4) -> PolicyState:
    return PolicyState(policy, Fleet([f"worker-{j}" for j in range(instances)]), block_tokens)


def _hits(*ratios: float) -> Floats:
    snapshot = np.full((len(ratios), len(schema.SNAPSHOT_FIELDS)), NAN)
    snapshot[:, _HIT] = ratios
    return snapshot


def _cost(state: PolicyState, prompt_tokens: int, blocks: list[int], *ratios: float) -> list[float]:
    cost: list[float] = state.decide(state.request(0.0, prompt_tokens, blocks), _hits(*ratios))[0].tolist()
    return cost


def test_an_idle_worker_costs_the_prompt_and_its_whole_blocks() -> None:
    state = _state(DynamoKv(block_tokens=4))
    # 10 / 4 blocks to compute and 2 whole ones to hold; 1 of them is cached on the second.
    assert _cost(state, 10, [1, 2], NAN, 0.4) == [4.5, 3.5]


def test_waiting_prefill_and_blocks_in_use_count_until_they_end() -> None:
    state = _state(DynamoKv(block_tokens=4))
    first = state.request(0.0, 10, [1, 2])
    state.sent(first, 0, _hits(0.4, NAN))  # 6 of 10 tokens to compute
    assert state.memory.of_instance[0, _LOADS].tolist() == [6.0, 2.0, 1.0]
    # On the first: (6 + 14) / 4 + 2 in use + 2 of 3 new; on the second: 14 / 4 + 3.
    assert _cost(state, 14, [1, 3, 4], NAN, NAN) == [9.0, 6.5]
    state.first_token(first, 0, 1.0)
    assert _cost(state, 14, [1, 3, 4], NAN, NAN) == [7.5, 6.5]
    state.done(first, 0, 2.0)
    assert _cost(state, 14, [1, 3, 4], NAN, NAN) == [6.5, 6.5]


def test_an_end_without_a_first_token_releases_all_of_it_whatever_is_heard_later() -> None:
    state = _state(DynamoKv(block_tokens=4))
    request = state.request(0.0, 10, [1, 2])
    state.sent(request, 1, _hits(NAN, NAN))
    state.done(request, 1, 1.0)
    state.first_token(request, 1, 1.0)
    assert not state.memory.of_instance[:, _LOADS].any()


def test_blocks_that_requests_share_count_once_until_the_last_ends() -> None:
    state = _state(DynamoKv(block_tokens=4))
    one, two = state.request(0.0, 12, [1, 2, 3]), state.request(0.0, 13, [1, 2, 4])
    state.sent(one, 0, _hits(NAN, NAN))
    state.sent(two, 0, _hits(NAN, NAN))
    assert state.memory.of_instance[0, ACTIVE_BLOCKS] == 4.0
    state.done(one, 0, 1.0)
    assert state.memory.of_instance[0, ACTIVE_BLOCKS] == 3.0
    state.done(two, 0, 1.0)
    assert state.memory.of_instance[0, ACTIVE_BLOCKS] == 0.0


def test_the_credit_of_the_cache_decays_with_the_prefill_above_the_least_loaded() -> None:
    state = _state(DynamoKv(overlap_score_credit=0.5, overlap_score_credit_decay=2.0, block_tokens=4))
    state.sent(state.request(0.0, 16, []), 0, _hits(NAN, NAN))
    # 16 tokens are 4 blocks above none, 2 for each of the request's 2 blocks: 0.5 / (1 + 2 · 2) of 2 cached blocks.
    assert _cost(state, 8, [], 1.0, 1.0) == pytest.approx([24 / 4 - 0.2 + 4 + 2, 8 / 4 - 1.0 + 2])


def test_scale_and_weight_multiply_their_terms_and_too_much_credit_is_no_gain() -> None:
    policy = DynamoKv(
        prefill_load_scale=3.0, overlap_score_credit=2.0, decode_active_request_weight=5.0, block_tokens=4
    )
    state = _state(policy)
    state.sent(state.request(0.0, 4, []), 1, _hits(NAN, 1.0))  # all cached: nothing to compute
    assert _cost(state, 8, [], 0.5, 1.0) == [3.0 * (2 - 2) + 2, 0.0 + (1 + 2) + 5.0]


@pytest.mark.parametrize("prompt_tokens", [100, 333, 4097, 99_991])
def test_a_ratio_of_whole_blocks_is_that_many(prompt_tokens: int) -> None:
    state = _state(DynamoKv(block_tokens=16), instances=1, block_tokens=16)
    for blocks in range(prompt_tokens // 16 + 1):
        (cost,) = _cost(state, prompt_tokens, [], blocks * 16 / prompt_tokens)
        assert cost == prompt_tokens / 16 - blocks + prompt_tokens // 16


def test_a_worker_that_left_is_forgotten_and_starts_anew() -> None:
    state = _state(DynamoKv(block_tokens=4))
    old, new = state.request(0.0, 10, [1, 2]), state.request(0.0, 10, [1, 2])
    state.sent(old, 0, _hits(NAN, NAN))
    state.leave(0)
    state.join(0)
    assert _cost(state, 10, [1, 2], NAN, NAN) == [4.5, 4.5]
    state.sent(new, 0, _hits(NAN, NAN))
    state.first_token(old, 0, 1.0)
    state.done(old, 0, 1.0)
    assert state.memory.of_instance[0, _LOADS].tolist() == [10.0, 2.0, 1.0]


def test_a_temperature_makes_the_probability_fall_with_the_cost_between_least_and_most() -> None:
    state = _state(DynamoKv(temperature=0.5, block_tokens=4), instances=3)
    _, probability = state.decide(state.request(0.0, 16, []), _hits(1.0, 0.5, 0.0))  # costs 4, 6, 8
    weights = np.exp([0.0, -1.0, -2.0])
    np.testing.assert_allclose(probability, weights / weights.sum())


@pytest.mark.parametrize(
    ("name", "value"), [("block_tokens", 0), ("prefill_load_scale", -1.0), ("overlap_score_credit", NAN)]
)
def test_refuses_settings_that_the_peer_refuses(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        DynamoKv(**{name: value})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def branching() -> Workload:
    """Requests that continue one another's prompts from anywhere, some to where a block ends and some a bit further."""
    rng, prompts = np.random.default_rng(5), [[0]]
    for i in range(1, 400):
        earlier = prompts[-int(rng.integers(1, min(i, 12) + 1))]
        kept = len(earlier) if rng.random() < 0.6 else int(rng.integers(min(len(earlier), 20) + 1))
        prompts.append(earlier[:kept] + (100 * i + np.arange(int(rng.integers(0, 6)))).tolist())
    sizes = np.array([len(blocks) for blocks in prompts])
    ids = np.unique(np.concatenate(prompts).astype(np.int64), return_inverse=True)[1].astype(np.int64)
    prompt_tokens = np.maximum(16 * sizes + rng.integers(-6, 7, len(sizes)), 1)
    arrived_at_s, offsets = np.arange(len(sizes)) / 10.0, np.concatenate([[0], np.cumsum(sizes)])
    return Workload(arrived_at_s, prompt_tokens, np.ones(len(sizes), dtype=np.int64), ids, offsets, 16)


class _Replayed:
    """A policy's memory on the prefixes of a whole workload, as the replay has them."""

    def __init__(self, policy: DynamoKv, instances: int, workload: Workload) -> None:
        tree = prefix_tree(workload)
        self.policy, self.instances, self.workload, self.offsets = policy, instances, workload, tree.offsets
        self.prefixes = Prefixes(tree.path.astype(np.int32), tree.node_end.astype(np.int32))
        self.memory = policy.memory.memory(instances, len(tree.node_end), len(workload))
        self.parameters = policy.parameters(Fleet([""] * instances))

    def request(self, i: int) -> Request:
        start, end = self.offsets[i : i + 2]
        return Request(i, 0.0, float(self.workload.prompt_tokens[i]), -1, int(start), int(end))

    def cost(self, i: int, snapshot: Floats) -> Floats:
        cost, unpredicted = np.full(self.instances, np.inf), np.full((self.instances, 2), NAN)
        rule, candidates = self.policy.rule.compiled, np.arange(self.instances)
        rule(self.request(i), snapshot, unpredicted, candidates, self.prefixes, self.memory, self.parameters, cost)
        return cost

    def tell(self, kind: int, request: Request, j: int, hit_ratio: float = NAN) -> None:
        event = Event(kind, hit_ratio, NAN, NAN, NAN, NAN)
        self.policy.notice.compiled(event, request, j, self.prefixes, self.memory, self.parameters)


@pytest.mark.parametrize("block_tokens", [16, 4, 48])
def test_decides_on_runs_of_blocks_as_on_blocks(branching: Workload, block_tokens: int) -> None:
    """The replay knows the whole workload, and has one node for blocks that always occur together."""
    policy, rng = DynamoKv(block_tokens=block_tokens), np.random.default_rng(6)
    live, replayed = _state(policy, 3, block_tokens=16), _Replayed(policy, 3, branching)
    under_way: list[tuple[Request, int, int]] = []
    sharers = 0.0
    for i in range(len(branching)):
        sharers = max(sharers, replayed.memory.of_pair.max())
        snapshot = _hits(*rng.random(3))
        blocks = branching.block_ids[branching.block_offsets[i] : branching.block_offsets[i + 1]]
        request = live.request(0.0, int(branching.prompt_tokens[i]), blocks.tolist())
        cost = live.decide(request, snapshot)[0]
        np.testing.assert_array_equal(cost, replayed.cost(i, snapshot))
        under_way.append((request, i, int(cost.argmin())))
        live.sent(request, under_way[-1][2], snapshot)
        replayed.tell(SENT, replayed.request(i), under_way[-1][2], snapshot[under_way[-1][2], _HIT])
        if rng.random() < 0.5:
            request, index, j = under_way[int(rng.integers(len(under_way)))]
            live.first_token(request, j, 0.0)
            replayed.tell(FIRST_TOKEN, replayed.request(index), j)
        if len(under_way) > 12:
            request, index, j = under_way.pop(int(rng.integers(len(under_way))))
            live.done(request, j, 0.0)
            replayed.tell(DONE, replayed.request(index), j)
        if i % 90 == 89:
            live.leave(1)
            live.join(1)
            replayed.tell(LEFT, Request(-1, 0.0, NAN, -1, 0, 0), 1)
    assert len(replayed.prefixes.node_end) < 0.8 * len(np.unique(branching.block_ids))
    assert sharers >= 3.0
