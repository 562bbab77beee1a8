"""production-stack's session router, against uhashring's ring and its own count of requests in plain Python."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import deque

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.policies.production_stack_session import ProductionStackSession
from lodestar.pipeline.replay.routing.compiled import Request
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState

NAMES = [f"http://{name}:8000" for name in "abcdef"]
UNKNOWN = np.full((6, len(schema.SNAPSHOT_FIELDS)), np.nan)


def chosen(state: PolicyState, request: Request) -> int:
    probability = state.decide(request, UNKNOWN)[1]
    assert probability.max() == 1.0
    return int(probability.argmax())


def test_conversations_go_where_uhashring_sends_them() -> None:
    """As uhashring 2.5 answers: ``HashRing(NAMES[:3]).get_node(str(k))`` for k = 0 … 39."""
    state = PolicyState(ProductionStackSession(), Fleet(NAMES[:3]))
    homes = [chosen(state, state.request(0.0, 10, session=k)) for k in range(40)]
    assert "".join("abc"[home] for home in homes) == "bacababcccaabacbcbabcaccaaccbababcaccaac"


class Router:
    """A ring of 128-bit MD5s made of the endpoints that there are, and the requests of the last 60 s of each."""

    def __init__(self) -> None:
        self.sent: dict[str, deque[float]] = {}

    def choose(self, endpoints: list[str], session: int, now_s: float) -> str:
        if session >= 0:
            ring = {self.hashed(f"{name}-{k}"): name for name in endpoints for k in range(160)}
            places = sorted(ring)
            return ring[places[bisect_right(places, self.hashed(str(session))) % len(places)]]
        lowest, least = endpoints[0], np.inf
        for name in endpoints:
            if name not in self.sent:
                return name
            while self.sent[name] and self.sent[name][0] < now_s - 60.0:
                self.sent[name].popleft()
            if len(self.sent[name]) < least:
                lowest, least = name, len(self.sent[name])
        return lowest

    @staticmethod
    def hashed(text: str) -> int:
        return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16)


def test_random_streams_go_where_the_router_sends_them() -> None:
    """Conversations with numbers of any length, requests without one, bursts and pauses, instances come and gone."""
    rng = np.random.default_rng(4)
    state, router = PolicyState(ProductionStackSession(), Fleet(NAMES)), Router()
    for j in (4, 5):
        state.leave(j)
    now_s, to = 1e6, set()
    for i in range(1000):
        now_s += float(rng.choice([0.0, 0.5, 20.0, 70.0], p=[0.5, 0.4, 0.08, 0.02]))
        session = int(rng.integers(10 ** int(rng.integers(1, 18)))) if rng.random() < 0.3 else -1
        request = state.request(now_s, 10, session=session)
        pick = chosen(state, request)
        assert NAMES[pick] == router.choose([NAMES[j] for j in state.candidates], session, now_s), i
        if rng.random() < 0.1:  # another router's choice
            pick = int(rng.choice(state.candidates))
        state.sent(request, pick, UNKNOWN)
        router.sent.setdefault(NAMES[pick], deque()).append(now_s)
        to.add(pick)
        if i % 25 == 24:
            state.leave(int(rng.choice(state.candidates)))
            state.join(int(rng.choice([j for j in range(6) if j not in state.candidates])))
    assert to == set(range(6))


def test_a_request_counts_for_sixty_seconds_to_the_last() -> None:
    state = PolicyState(ProductionStackSession(), Fleet(NAMES[:2]))
    for at_s, to in ((0.0, 0), (10.0, 1), (10.0, 1)):
        state.sent(state.request(at_s, 10), to, UNKNOWN)
    assert state.decide(state.request(60.0, 10), UNKNOWN)[0].tolist() == [1.0, 2.0]
    assert state.decide(state.request(60.1, 10), UNKNOWN)[0].tolist() == [0.0, 2.0]
    assert state.decide(state.request(70.1, 10), UNKNOWN)[0].tolist() == [0.0, 0.0]
    shorter = PolicyState(ProductionStackSession(window_s=10.0), Fleet(NAMES[:2]))
    shorter.sent(shorter.request(0.0, 10), 0, UNKNOWN)
    assert shorter.decide(shorter.request(10.1, 10), UNKNOWN)[0].tolist() == [0.0, -1.0]


def test_the_first_in_the_list_that_never_got_a_request_comes_before_all() -> None:
    state = PolicyState(ProductionStackSession(), Fleet(NAMES[:4]))
    for to in (0, 1, 2, 3):
        request = state.request(0.0, 10)
        assert chosen(state, request) == to
        state.sent(request, to, UNKNOWN)
    state.leave(0)
    state.join(0)  # at the end of the list now: of equal rates the first in the list wins
    assert chosen(state, state.request(1.0, 10)) == 1


def test_a_request_that_is_sent_again_counts_once() -> None:
    state = PolicyState(ProductionStackSession(), Fleet(NAMES[:2]))
    first, second = state.request(0.0, 10), state.request(1.0, 10)
    state.sent(first, 0, UNKNOWN)
    state.sent(second, 0, UNKNOWN)
    state.done(first, 0, 2.0)
    state.sent(first._replace(now_s=2.0), 1, UNKNOWN)
    assert state.decide(state.request(3.0, 10), UNKNOWN)[0].tolist() == [2.0, 0.0]
    assert state.decide(state.request(60.5, 10), UNKNOWN)[0].tolist() == [1.0, 0.0]


def test_a_conversation_whose_instance_left_moves_on_and_comes_back_and_no_other_moves() -> None:
    state = PolicyState(ProductionStackSession(), Fleet(NAMES))
    requests = [state.request(0.0, 10, session=k) for k in range(200)]
    before = [chosen(state, request) for request in requests]
    state.leave(2)
    after = [chosen(state, request) for request in requests]
    assert 2 not in after
    assert [b for b, a in zip(before, after, strict=True) if a != b] == [2] * before.count(2)
    state.join(2)
    assert [chosen(state, request) for request in requests] == before


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"replicas": 0}, "replicas is 0"), ({"replicas": 10**9}, "to 100000"), ({"window_s": 0}, "window_s is 0")],
)
def test_what_cannot_work_is_refused(setting: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ProductionStackSession(**setting)
