"""Which requests share which blocks: sharing sets, sessions and agent trees."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestar.data.errors import DataError
from lodestar.data.log import Workload
from lodestar.data.workloads.agents import Agents
from lodestar.data.workloads.arrivals import Limit, Poisson
from lodestar.data.workloads.lengths import Choice, Constant, Geometric, Lengths, Uniform
from lodestar.data.workloads.measure import seen_before_ratio, shared_ratio
from lodestar.data.workloads.recipe import Content, Part, Prefixes, Recipe
from lodestar.data.workloads.sessions import Sessions
from lodestar.data.workloads.shared import Shared
from lodestar.data.workloads.simulate import simulate
from lodestar.pipeline.replay.prefixes import prefix_tree
from workload_making import made, same, sessions

ABOUT_100 = Uniform(90, 110)
SETS = {"sharing09": 0.09, "sharing28": 0.28, "sharing47": 0.47, "sharing71": 0.71}


def drawn(
    prefixes: Prefixes,
    prompt: Lengths,
    requests: int = 400,
    rate_per_s: float = 2.0,
    seed: int = 0,
    output: Lengths = ABOUT_100,
) -> Workload:
    content = Content(Poisson(rate_per_s), prompt, output, prefixes)
    return simulate(Recipe("", 16, (Part(Limit(requests), content),)), seed)


def trees_of(workload: Workload) -> list[list[int]]:
    """List the requests of every tree in order; all of a tree have its first block."""
    first = workload.block_ids[workload.block_offsets[:-1]]
    return [np.flatnonzero(first == block).tolist() for block in np.unique(first)]


def is_turn_of_root(workload: Workload, tree: list[int], row: int) -> bool:
    """Tell by the time: root turns come every five seconds, sub-agents' turns a second later."""
    return bool(round(workload.arrived_at_s[row] - workload.arrived_at_s[tree[0]]) % 5 == 0)


def same_parts(workload: Workload, parts: Iterable[list[int]]) -> bool:
    """Tell whether the conversations of a workload are these."""
    session = sessions(workload)
    return [np.flatnonzero(session == k).tolist() for k in range(session.max() + 1)] == sorted(parts)


def in_common(one: list[int], other: list[int]) -> int:
    """Count the blocks that both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def blocks(workload: Workload, row: int) -> list[int]:
    ids: list[int] = workload.block_ids[workload.block_offsets[row] : workload.block_offsets[row + 1]].tolist()
    return ids


def shared_tokens(workload: Workload) -> np.ndarray:
    """Return the tokens of each prompt that another request shares."""
    tree = prefix_tree(workload)
    shared = np.zeros(len(workload), dtype=np.int64)
    has = np.diff(tree.offsets) > 0
    shared[has] = tree.node_end[tree.path[tree.offsets[1:][has] - 1]]
    return shared


@pytest.mark.parametrize(("preset", "share"), SETS.items())
def test_the_papers_sets_share_what_their_names_say(preset: str, share: float) -> None:
    workload = made(preset)
    assert shared_ratio(workload) == pytest.approx(share, abs=1e-4)
    assert seen_before_ratio(workload) == pytest.approx(0.9 * share, abs=1e-4)
    assert len(workload) == 2000
    assert set(workload.prompt_tokens.tolist()) == {1000, 2000, 4000, 8000}
    assert (workload.output_tokens.min(), workload.output_tokens.max()) == (90, 110)
    uses = np.bincount(workload.block_ids)
    assert set(uses.tolist()) == {1, 10}


@settings(max_examples=40, deadline=None)
@given(
    share=st.floats(0, 0.98),
    size=st.integers(2, 20),
    groups=st.integers(2, 30),
    prompts=st.lists(st.integers(1000, 9000), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_the_share_of_prompt_tokens_comes_out_as_asked(
    share: float, size: int, groups: int, prompts: list[int], seed: int
) -> None:
    workload = drawn(Shared((share,), size), Choice(tuple(map(float, prompts))), size * groups, seed=seed)
    one_group_off = 16 * size / workload.prompt_tokens.sum()
    assert shared_ratio(workload) == pytest.approx(share, abs=one_group_off)


def test_the_mixed_set_has_groups_of_every_share() -> None:
    workload = made("sharing-mixed")
    share = (shared_tokens(workload) / workload.prompt_tokens)[workload.prompt_tokens == 8000]
    found, uses = np.unique(np.round(share, 2), return_counts=True)
    assert found.tolist() == [0.09, 0.28, 0.47, 0.71]
    assert uses.min() > 150


def test_the_share_shifts_in_the_middle_of_the_run() -> None:
    workload = made("sharing05-50-shift")
    half = len(workload) // 2
    shared = shared_tokens(workload)
    halves = slice(half), slice(half, None)
    shares = [shared[part].sum() / workload.prompt_tokens[part].sum() for part in halves]
    assert shares == pytest.approx([0.05, 0.5], abs=1e-3)


def test_the_rate_shifts_in_the_middle_of_the_run() -> None:
    gaps = np.diff(made("rate-shift", "requests=40000").arrived_at_s)
    assert [1 / gaps[:19_999].mean(), 1 / gaps[20_000:].mean()] == pytest.approx([8, 12], rel=0.03)


def test_without_a_structure_nothing_is_shared_and_all_whole_blocks_are_there() -> None:
    workload = made("uneven")
    assert shared_ratio(workload) == 0
    assert np.diff(workload.block_offsets).tolist() == (workload.prompt_tokens // 16).tolist()


def test_each_turn_repeats_the_conversation_before_it() -> None:
    turns = Sessions(Constant(4.0), Constant(5.0), system_tokens=50)
    workload = drawn(turns, Constant(100.0), requests=400, rate_per_s=0.5)
    by_session: dict[int, list[int]] = {}
    for row in range(len(workload)):
        by_session.setdefault(blocks(workload, row)[3], []).append(row)  # block 3 is the first of a session's own
    assert len(by_session) > 90
    assert same_parts(workload, by_session.values())
    for rows in by_session.values():
        for before, after in pairwise(rows):
            assert blocks(workload, after)[: len(blocks(workload, before))] == blocks(workload, before)
            said = workload.prompt_tokens[before] + workload.output_tokens[before]
            assert workload.prompt_tokens[after] == said + 100
            assert workload.arrived_at_s[after] - workload.arrived_at_s[before] == pytest.approx(5.0)


def test_sessions_share_the_system_prompt_and_nothing_else() -> None:
    workload = drawn(Sessions(Constant(1.0), Constant(5.0), system_tokens=50), Constant(100.0), requests=50)
    uses = np.bincount(workload.block_ids)
    assert sorted(uses.tolist())[-4:] == [1, 50, 50, 50]


def test_sessions_end_before_the_turn_that_no_longer_fits() -> None:
    workload = drawn(Sessions(Constant(50.0), Constant(1.0), context_tokens=1000), Constant(100.0))
    assert (workload.prompt_tokens + workload.output_tokens).max() <= 1000
    assert workload.prompt_tokens.max() > 700


def test_sessions_are_complete_up_to_the_last_request() -> None:
    """Many requests begin like few: none that arrive early come from sessions that were not drawn."""
    few, many = (drawn(Sessions(Geometric(5.0), Constant(8.0)), Constant(100.0), requests=n) for n in (300, 3000))
    assert many.arrived_at_s[-1] / 3000 == pytest.approx(1 / (2.0 * 5), rel=0.2)
    assert few.arrived_at_s[-1] > 0
    rate = np.histogram(many.arrived_at_s, bins=10)[0]
    assert rate[-1] == pytest.approx(rate[5:].mean(), rel=0.3)


def test_sub_agents_begin_with_all_that_their_parent_knew_and_then_diverge() -> None:
    one, five = Constant(1.0), Constant(5.0)
    agents = Agents(turns=Constant(4.0), think_s=five, spawned=one, spawn_s=one, agent_turns=one)
    workload = drawn(agents, Constant(100.0), 300, 0.1, output=Constant(50.0))
    turns_seen = set()
    assert same_parts(workload, trees_of(workload))
    for tree in trees_of(workload):
        own = [row for row in tree if is_turn_of_root(workload, tree, row)]
        longest = blocks(workload, own[-1])
        for agent in set(tree) - set(own):
            turn = round(workload.arrived_at_s[agent] - workload.arrived_at_s[tree[0]]) // 5
            known_tokens = 100 + 150 * turn + 50
            assert workload.prompt_tokens[agent] == known_tokens + 100
            assert in_common(blocks(workload, agent), longest) == min(known_tokens // 16, len(longest))
            turns_seen.add(turn)
    assert turns_seen == {0, 1, 2, 3}


def test_a_deeper_tree_has_more_requests_a_session() -> None:
    few = ("duration_s=5000", "block_tokens=512", "prefixes.context_tokens=1000000")
    requests = [len(made("agents", *few, f"prefixes.depth={depth}")) for depth in (0, 1, 2)]
    assert requests[0] * 1.2 < requests[1]
    assert requests[1] * 1.1 < requests[2]


def test_agents_that_do_not_fit_the_context_are_not_spawned() -> None:
    workload = made("agents", "requests=200", "prefixes.context_tokens=20000")
    assert (workload.prompt_tokens + workload.output_tokens <= 20_000).mean() > 0.9


@pytest.mark.parametrize("preset", ["sharing09", "sessions", "agents", "diurnal", "bursts", "sharing05-50-shift"])
def test_a_seed_gives_the_same_workload_to_the_byte(preset: str) -> None:
    one, again, other = (made(preset, "requests=300", seed=seed) for seed in (7, 7, 8))
    assert same(one, again)
    assert one.arrived_at_s.tobytes() == again.arrived_at_s.tobytes()
    assert one.arrived_at_s.tobytes() != other.arrived_at_s.tobytes()


@pytest.mark.parametrize("preset", ["sharing09", "sessions", "agents", "bursts", "sharing00-50-shift"])
def test_block_ids_are_dense_and_arrivals_rise_from_zero(preset: str) -> None:
    workload = made(preset, "requests=500")
    assert np.unique(workload.block_ids).tolist() == list(range(workload.block_ids.max() + 1))
    assert workload.arrived_at_s[0] == 0
    assert (np.diff(workload.arrived_at_s) >= 0).all()
    assert (np.diff(workload.block_offsets) <= workload.prompt_tokens // workload.block_tokens).all()


def test_a_duration_without_a_request_is_an_error() -> None:
    content = Content(Poisson(0.001), Constant(10.0), Constant(1.0), Shared((0.5,)))
    with pytest.raises(DataError, match="no request arrives within 1 s"):
        simulate(Recipe("", 16, (Part(Limit(duration_s=1.0), content),)), 0)
