"""KubeAI's consistent hashing with bounded loads, against its own steps in plain Python."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.policies.kubeai_chwbl import KubeaiChwbl, xxh64
from lodestar.pipeline.replay.routing.compiled import Request
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState
from replayed_state import ReplayedState, blocks_of_row, branching_workload

NAMES = [f"default/model-{j}" for j in range(5)]


def unknown(instances: int) -> np.ndarray:
    """What the router knows where no engine tells its metrics: KubeAI needs none."""
    return np.full((instances, len(schema.SNAPSHOT_FIELDS)), np.nan)


def order(state: PolicyState, request: Request) -> list[int]:
    """Return the candidates from the best to the worst."""
    cost = state.decide(request, unknown(len(state.fleet.names)))[0]
    assert len({cost[j] for j in state.candidates}) == len(state.candidates)
    return sorted(state.candidates, key=lambda j: cost[j])


@pytest.mark.parametrize(
    ("length", "digest"),
    [
        (0, 0xEF46DB3751D8E999), (1, 0xE934A84ADB052768), (7, 0x14CC643F630C72D2), (8, 0x884A173614B81B8D),
        (12, 0x424AF23F1F08DCA5), (31, 0xC346D2B59B4D8EE1), (32, 0xCBF59C5116FF32B4), (100, 0x6AC1E58032166597),
    ],
)  # fmt: skip
def test_the_hash_is_xxhash64_as_its_own_library_computes_it(length: int, digest: int) -> None:
    assert xxh64(bytes(range(length))) == digest


class Group:
    """KubeAI's group of endpoints: a map from hash to name, the hashes in order, counters of requests in flight."""

    def __init__(self, names: list[str], load_factor: float, replication: int) -> None:
        self.load_factor, self.replication = load_factor, replication
        self.owner: dict[int, str] = {}
        self.in_flight: dict[str, list[int]] = {}
        self.total = 0
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self.in_flight[name] = [0]
        self.owner |= {xxh64(f"{name}{k}".encode()): name for k in range(self.replication)}

    def remove(self, name: str) -> None:
        del self.in_flight[name]
        self.owner = {place: owner for place, owner in self.owner.items() if owner != name}

    def choose(self, key: int) -> str:
        places = sorted(self.owner)
        first = bisect_left(places, xxh64(key.to_bytes(8, "little")))
        for step in range(len(places)):
            name = self.owner[places[(first + step) % len(places)]]
            mean = (self.total + 1) / len(self.in_flight)
            if self.total == 0 or self.in_flight[name][0] + 1 <= mean * self.load_factor:
                return name
        return self.owner[places[first % len(places)]]

    def send(self, name: str) -> list[int]:
        self.total += 1
        self.in_flight[name][0] += 1
        return self.in_flight[name]

    def done(self, counter: list[int]) -> None:
        self.total -= 1
        counter[0] -= 1


@pytest.mark.parametrize("load_percent", [100.0, 125.0, 300.0])
def test_random_streams_go_where_kubeai_sends_them(load_percent: float) -> None:
    """Prompts that begin alike for 32 tokens or do not; requests that end; instances that leave and are there again."""
    rng = np.random.default_rng(int(load_percent))
    state = PolicyState(KubeaiChwbl(mean_load_percent=load_percent, replication=20), Fleet(NAMES), block_tokens=16)
    group = Group(NAMES, load_percent / 100, replication=20)
    first_with: dict[int, int] = {}
    under_way: list[tuple[Request, int, list[int]]] = []
    overflows = 0
    for i in range(1200):
        beginning = int(rng.integers(30))
        request = state.request(float(i), 64, [f"a{beginning % 3}", f"b{beginning}", f"own {i}"])
        chosen = order(state, request)[0]
        key = first_with.setdefault(beginning, i)
        assert NAMES[chosen] == group.choose(key), i
        overflows += chosen != order(PolicyState(state.policy, Fleet(NAMES)), request._replace(index=key, path_to=0))[0]
        state.sent(request, chosen, unknown(5))
        under_way.append((request, chosen, group.send(NAMES[chosen])))
        while under_way and (rng.random() < 0.5 or len(under_way) > 40):
            request, chosen, counter = under_way.pop(int(rng.integers(len(under_way))))
            state.done(request, chosen, float(i))
            group.done(counter)
        if rng.random() < 0.03 and len(state.candidates) > 2:
            left = state.candidates[int(rng.integers(len(state.candidates)))]
            state.leave(left)
            group.remove(NAMES[left])
        elif rng.random() < 0.05 and len(state.candidates) < 5:
            back = next(j for j in range(5) if j not in state.candidates)
            state.join(back)
            group.add(NAMES[back])
    assert 100 < overflows < 1100


def test_an_instance_at_the_bound_is_passed_over_and_taken_again_as_its_requests_end() -> None:
    """Two instances, 125 %: with two in flight on one, (2 + 1) / 2 · 1.25 = 1.875 < 2 + 1."""
    state = PolicyState(KubeaiChwbl(), Fleet(NAMES[:2]), block_tokens=32)
    first = state.request(0.0, 64, ["same"])
    home, other = order(state, first)
    assert sorted(state.decide(first, unknown(2))[0].tolist()) == [0.0, 1.0]
    state.sent(first, home, unknown(2))
    again = state.request(1.0, 64, ["same"])  # (1 + 1) / 2 · 1.25 = 1.25 < 1 + 1
    assert order(state, again) == [other, home]
    state.sent(again, other, unknown(2))
    third = state.request(2.0, 64, ["same"])  # both would have 2, the bound is 1.875: the first on the ring
    assert order(state, third) == [home, other]
    assert state.decide(third, unknown(2))[0].tolist() == [2.0 + (home == 1), 2.0 + (home == 0)]
    state.done(first, home, 3.0)
    state.done(again, other, 3.0)
    assert order(state, third) == [home, other]


def test_only_the_beginning_of_the_prompt_is_hashed() -> None:
    state = PolicyState(KubeaiChwbl(replication=20), Fleet(NAMES), block_tokens=16)
    first = state.request(0.0, 64, ["a", "b", "c"])
    home = order(state, first)
    state.sent(first, home[0], unknown(5))
    state.done(first, home[0], 1.0)
    # 25 tokens end in the second block; what comes later plays no part.
    assert order(state, state.request(1.0, 400, ["a", "b", "d"])) == home
    others = [order(state, state.request(1.0, 64, ["a", f"x{k}"])) for k in range(8)]
    assert sum(each != home for each in others) == 8
    # A prompt shorter than the beginning is hashed whole.
    short = state.request(2.0, 16, ["a"])
    assert order(state, short) != home
    state.sent(short, 0, unknown(5))
    state.done(short, 0, 3.0)
    assert order(state, state.request(3.0, 16, ["a"])) == order(state, short)
    assert order(state, state.request(3.0, 20, ["a"])) != order(state, short)


def test_a_candidate_that_leaves_hands_its_keys_to_the_next_on_the_ring_only() -> None:
    state = PolicyState(KubeaiChwbl(), Fleet(NAMES))
    before = [order(state, state.request(0.0, 10)) for _ in range(50)]
    state.leave(2)
    again = [order(state, Request(i, 0.0, 10.0, -1, 0, 0)) for i in range(50)]
    assert again == [[j for j in each if j != 2] for each in before]


def test_keys_are_spread_over_the_instances() -> None:
    state = PolicyState(KubeaiChwbl(), Fleet(NAMES))
    homes = [order(state, state.request(0.0, 10))[0] for _ in range(3000)]
    assert np.bincount(homes).min() > 0.7 * 600


def test_decides_on_runs_of_blocks_as_on_blocks() -> None:
    branching = branching_workload(300, seed=1)
    for prefix_tokens in (25, 100, 400):
        policy = KubeaiChwbl(replication=20, prefix_tokens=prefix_tokens)
        live, replayed = PolicyState(policy, Fleet(NAMES), 16), ReplayedState(policy, Fleet(NAMES), branching)
        keys = set()
        for i in range(len(branching)):
            prompt_tokens, blocks = int(branching.prompt_tokens[i]), blocks_of_row(branching, i)
            one, other = live.request(0.0, prompt_tokens, blocks), replayed.of_row(i)
            chosen = order(live, one)
            assert chosen == order(replayed, other)
            keys.add(tuple(chosen))
            live.sent(one, chosen[0], unknown(5))
            replayed.sent(other, chosen[0], unknown(5))
        assert len(keys) > 20


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"mean_load_percent": 90.0}, "mean_load_percent is 90"),
        ({"replication": 0}, "replication is 0"),
        ({"replication": 10**9}, "to 100000"),
    ],
)
def test_what_cannot_work_is_refused(setting: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        KubeaiChwbl(**setting)  # type: ignore[arg-type]
