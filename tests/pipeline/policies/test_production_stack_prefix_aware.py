"""production-stack's prefix-aware router, against a trie of texts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.policies.production_stack_prefix_aware import ProductionStackPrefixAware
from lodestar.pipeline.replay.routing.compiled import Request
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState
from replayed_state import ReplayedState, blocks_of_row, branching_workload

FLEET = Fleet([f"http://10.0.0.{j}:8000" for j in range(4)])
UNKNOWN = np.full((4, len(schema.SNAPSHOT_FIELDS)), np.nan)


@dataclass
class Node:
    """A chunk: what may follow it, and the endpoints that were sent a prompt with it."""

    children: dict[str, Node] = field(default_factory=dict)
    endpoints: set[int] = field(default_factory=set)


def chunks(text: str) -> list[str]:
    return [text[start : start + 128] for start in range(0, len(text), 128)]


def insert(root: Node, text: str, endpoint: int) -> None:
    node = root
    for chunk in chunks(text):
        node = node.children.setdefault(chunk, Node())
        node.endpoints.add(endpoint)


def matched(root: Node, text: str, available: set[int]) -> set[int]:
    node, selected = root, available
    for chunk in chunks(text):
        if chunk not in node.children or not node.children[chunk].endpoints & selected:
            break
        node = node.children[chunk]
        selected = node.endpoints & selected
    return selected


def best(state: PolicyState, request: Request) -> set[int]:
    """Return the instances that can be chosen; each is as likely."""
    probability = state.decide(request, UNKNOWN)[1]
    likely = probability[probability > 0]
    assert np.allclose(likely, 1 / len(likely))
    return set(np.flatnonzero(probability).tolist())


def test_random_streams_match_as_a_trie_of_texts_does() -> None:
    """A token is 4 characters. Instances leave and join; the replay's runs of blocks decide as blocks do."""
    workload, rng = branching_workload(600, seed=2), np.random.default_rng(3)
    policy, root = ProductionStackPrefixAware(), Node()
    live, replayed = PolicyState(policy, FLEET, 16), ReplayedState(policy, FLEET, workload)
    sizes = []
    for i in range(len(workload)):
        prompt_tokens, blocks = int(workload.prompt_tokens[i]), blocks_of_row(workload, i)
        tail = 4 * (prompt_tokens - 16 * len(blocks))  # characters of its own
        text = "".join(f"{block:064}" for block in blocks) + f"{i:04}".ljust(tail, "-")[:tail]
        one, other = live.request(0.0, prompt_tokens, blocks), replayed.of_row(i)
        expected = matched(root, text, set(live.candidates))
        assert best(live, one) == best(replayed, other) == expected
        sizes.append(len(expected))
        chosen = int(rng.choice(sorted(expected) if rng.random() < 0.8 else live.candidates))
        insert(root, text, chosen)
        live.sent(one, chosen, UNKNOWN)
        replayed.sent(other, chosen, UNKNOWN)
        for state in (live, replayed) if i % 20 == 10 else ():
            state.leave(i // 20 % 4)
        for state in (live, replayed) if i % 20 == 19 else ():
            state.join(i // 20 % 4)
    assert set(sizes) == {1, 2, 3, 4}


def test_a_match_goes_as_far_as_whole_chunks_do() -> None:
    """After 48 shared tokens, one chunk of 32 is shared."""
    state = PolicyState(ProductionStackPrefixAware(), FLEET, block_tokens=16)
    first = state.request(0.0, 96, ["a", "b", "c", "d", "e", "f"])
    assert best(state, first) == {0, 1, 2, 3}
    state.sent(first, 1, UNKNOWN)
    assert best(state, state.request(0.0, 96, ["a", "x"])) == {0, 1, 2, 3}
    assert state.decide(state.request(0.0, 96, ["a", "b", "c", "x"]), UNKNOWN)[0].tolist() == [0, -1, 0, 0]
    assert state.decide(state.request(0.0, 96, ["a", "b", "c", "d"]), UNKNOWN)[0].tolist() == [0, -2, 0, 0]
    longer = PolicyState(ProductionStackPrefixAware(chunk_tokens=64), FLEET, block_tokens=16)
    longer.sent(longer.request(0.0, 96, ["a", "b", "c", "d"]), 1, UNKNOWN)
    assert best(longer, longer.request(0.0, 96, ["a", "b", "c"])) == {0, 1, 2, 3}


def test_a_last_short_chunk_matches_the_same_prompt_alone() -> None:
    state = PolicyState(ProductionStackPrefixAware(), FLEET, block_tokens=16)
    state.sent(state.request(0.0, 48, ["a", "b", "c"]), 0, UNKNOWN)
    state.sent(state.request(0.0, 64, ["a", "b", "c", "d"]), 1, UNKNOWN)
    assert best(state, state.request(0.0, 48, ["a", "b", "c"])) == {0}
    assert best(state, state.request(0.0, 50, ["a", "b", "c"])) == {0, 1}


def test_the_deepest_chunk_of_any_candidate_decides() -> None:
    state = PolicyState(ProductionStackPrefixAware(), FLEET, block_tokens=32)
    for blocks, to in ((["a", "b", "c"], 0), (["a", "b"], 1), (["a"], 2)):
        state.sent(state.request(0.0, 96, blocks), to, UNKNOWN)
    wanted = state.request(0.0, 96, ["a", "b", "c"])
    assert best(state, wanted) == {0}
    state.leave(0)
    assert best(state, wanted) == {1}
    state.leave(1)
    assert best(state, wanted) == {2}
    state.leave(2)
    assert best(state, wanted) == {3}
    state.join(0)
    assert best(state, wanted) == {0}


def test_a_prompt_sent_again_is_known_where_it_was_sent() -> None:
    state = PolicyState(ProductionStackPrefixAware(), FLEET, block_tokens=32)
    alone = state.request(0.0, 20)
    state.sent(alone, 3, UNKNOWN)
    state.done(alone, 3, 1.0)
    assert best(state, alone) == {3}
    state.leave(3)
    assert best(state, alone) == {0, 1, 2}


def test_chunks_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="chunk_tokens is 0"):
        ProductionStackPrefixAware(chunk_tokens=0)
