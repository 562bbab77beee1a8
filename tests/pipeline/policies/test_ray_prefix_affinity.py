"""Ray Serve's prefix affinity: examples of its own tests, and random streams against a tree of the texts themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.policies.ray_prefix_affinity import RayPrefixAffinity
from lodestar.pipeline.replay.routing.compiled import Request
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState

Floats = NDArray[np.float64]
NAN = float("nan")


def queues(*inflight: float) -> Floats:
    rows = np.full((len(inflight), len(schema.SNAPSHOT_FIELDS)), NAN)
    rows[:, schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)] = inflight
    return rows


class Router:
    """A policy that routes texts; a block is one character, but for `unshared` ones at the end, which have none."""

    def __init__(self, policy: RayPrefixAffinity, replicas: int) -> None:
        self.state = PolicyState(policy, Fleet([f"r{j}" for j in range(replicas)]))
        self.idle = queues(*[0.0] * replicas)

    def request(self, text: str, now_s: float = 0.0, unshared: int = 0) -> Request:
        blocks = [text[:end] for end in range(1, len(text) - unshared + 1)]
        return self.state.request(now_s, len(text), blocks)

    def send(self, text: str, replica: int, now_s: float = 0.0) -> None:
        self.state.sent(self.request(text, now_s), replica, self.idle)

    def chances(self, text: str, rows: Floats | None = None, now_s: float = 0.0) -> list[float]:
        rows = self.idle if rows is None else rows
        return [float(p) for p in self.state.decide(self.request(text, now_s), rows)[1]]


# The next three: test_prefix_aware_request_router.py of the peer
def test_imbalance_beyond_the_threshold_skips_the_prefix() -> None:
    router = Router(RayPrefixAffinity(imbalanced_threshold=2), 2)
    router.send("hello world", 1)
    assert router.chances("hello world", queues(0, 10)) == [1.0, 0.0]
    assert router.chances("hello world", queues(0, 2)) == [0.0, 1.0]
    assert Router(RayPrefixAffinity(), 2).chances("hello world", queues(0, 10)) == [1.0, 0.0]


def test_high_match_rate_selects_the_matching_replica() -> None:
    router = Router(RayPrefixAffinity(), 2)
    router.send("Hello", 1)
    assert router.chances("Hello world", queues(0, 1000)) == [0.0, 1.0]


def test_low_match_rate_uses_the_smallest_tree() -> None:
    router = Router(RayPrefixAffinity(), 2)
    router.send("hi", 0)
    router.send("longtext", 1)
    assert router.chances("z") == [1.0, 0.0]
    assert router.chances("longish stories about z" * 2) == [1.0, 0.0]  # 4 of 46 characters
    assert router.chances("longish stories about all") == [0.0, 1.0]  # 4 of 25
    router.send("many letters", 0)
    assert router.chances("z") == [0.0, 1.0]


def test_the_longest_prefix_wins_and_of_equals_the_shortest_queue() -> None:
    router = Router(RayPrefixAffinity(), 4)
    router.send("abcd", 0)
    router.send("abcdef", 1)
    router.send("abcdef", 2)
    assert router.chances("abcdefgh", queues(0, 7, 5, 0)) == [0.0, 0.0, 1.0, 0.0]
    assert router.chances("abcdefgh", queues(0, 5, 5, 0)) == [0.0, 1.0, 0.0, 0.0]  # the first in the list
    assert router.chances("abcdxyzz", queues(9, 7, 8, 0)) == [0.0, 1.0, 0.0, 0.0]
    router.state.candidates = [2, 3, 1, 0]
    assert router.chances("abcdefgh", queues(0, 5, 5, 0)) == [0.0, 0.0, 1.0, 0.0]
    router.state.candidates = [3, 0]
    assert router.chances("abcdefgh", queues(0, 5, 5, 0)) == [1.0, 0.0, 0.0, 0.0]


def test_the_fallback_is_the_better_of_two_at_random() -> None:
    router = Router(RayPrefixAffinity(imbalanced_threshold=2), 4)
    # pairs of 0, 3, 3, 9: three with the first, one and a half with each of the next, none for the last
    assert router.chances("a", queues(0, 3, 3, 9)) == pytest.approx([3 / 6, 1.5 / 6, 1.5 / 6, 0.0])


def test_a_replica_without_a_known_queue_counts_as_idle() -> None:
    assert Router(RayPrefixAffinity(), 3).chances("a", queues(1, NAN, 0)) == [0.0, 1.0, 0.0]


def test_a_replica_that_leaves_is_forgotten() -> None:
    router = Router(RayPrefixAffinity(), 2)
    router.send("abcdef", 1)
    router.send("xy", 0)
    router.state.leave(1)
    assert router.chances("abcdef") == [1.0, 0.0]
    router.state.join(1)
    assert router.chances("abcdef") == [0.0, 1.0]  # not by its prefix: its tree is the smallest
    assert router.chances("xyz") == [1.0, 0.0]


class Texts:
    """The peer's tree, as the set of prefixes that each replica holds, with the time of the last that brought each."""

    def __init__(self, replicas: int) -> None:
        self.held: list[dict[str, float]] = [{} for _ in range(replicas)]

    def insert(self, text: str, replica: int, at_s: float) -> None:
        self.held[replica].update({text[:end]: at_s for end in range(1, len(text) + 1)})

    def evict(self, above: float, target: float) -> bool:
        evicted = False
        for held in self.held:
            excess = len(held) - target if len(held) > above else 0.0
            while excess > 0:
                oldest = min(held.values())
                gone = [prefix for prefix, at_s in held.items() if at_s == oldest]
                excess -= len(gone)
                evicted = True
                for prefix in gone:
                    del held[prefix]
        return evicted

    def chosen(self, text: str, candidates: list[int], match_rate: float) -> list[int]:
        for end in range(len(text), 0, -1):
            owners = [j for j in candidates if text[:end] in self.held[j]]
            if owners:
                break
        else:
            end, owners = 0, candidates
        if end / len(text) < match_rate:
            smallest = min(len(self.held[j]) for j in candidates)
            return [j for j in candidates if len(self.held[j]) == smallest]
        return owners


@pytest.mark.parametrize("evicts", [False, True])
def test_random_streams_are_routed_as_by_a_tree_of_texts(evicts: bool) -> None:
    rng = np.random.default_rng(3)
    policy = RayPrefixAffinity(
        match_rate_threshold=0.4,
        imbalanced_threshold=6,
        do_eviction=evicts,
        eviction_threshold_chars=480.0,
        eviction_target_chars=320.0,
        eviction_interval_s=10.0,
    )
    router, texts = Router(policy, 4), Texts(4)
    now_s, first_s, checked, evictions, imbalanced = 100.0, 0.0, 0, 0, 0
    for step in range(1500):
        now_s += rng.exponential(1.5)
        # a text of shared letters and a tail that no other has
        tail = chr(1000 + step) * int(rng.integers(1, 12))
        text = "".join(rng.choice(list("ab"), int(rng.integers(1, 14)))) + tail
        first_s = first_s or now_s
        if evicts and math.floor((now_s - first_s) / 10.0) > checked:
            checked = math.floor((now_s - first_s) / 10.0)
            evictions += texts.evict(120, 80)
        candidates = router.state.candidates
        rows = queues(*rng.integers(0, 9, 4).tolist())
        queue = rows[:, schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)]
        request = router.request(text, now_s, unshared=len(tail) if rng.random() < 0.5 else 0)
        chances = router.state.decide(request, rows)[1]
        if np.ptp(queue[candidates]) > 6:
            imbalanced += 1
        else:
            best = min(texts.chosen(text, candidates, 0.4), key=lambda j: float(queue[j]))
            assert chances[best] == 1.0, step
        # now and then another policy sends it
        sent_to = int(rng.choice(candidates)) if rng.random() < 0.3 else int(np.argmax(chances))
        router.state.sent(request, sent_to, rows)
        texts.insert(text, sent_to, now_s)
        if rng.random() < 0.02 and len(candidates) > 2:
            texts.held[candidates[0]].clear()
            router.state.leave(candidates[0], now_s)
        elif len(candidates) < 4 and rng.random() < 0.1:
            router.state.join(({0, 1, 2, 3} - set(candidates)).pop())
    assert imbalanced > 100
    assert evictions > 50 or not evicts


def test_a_request_that_is_sent_again_elsewhere_is_kept_there() -> None:
    policy = RayPrefixAffinity(do_eviction=True, eviction_threshold_chars=40.0, eviction_target_chars=40.0)
    router = Router(policy, 2)
    request = router.request("abcdef")
    router.state.sent(request, 0, router.idle)
    router.state.leave(0, 1.0)
    router.state.sent(request._replace(now_s=2.0), 1, router.idle)
    router.state.join(0)
    assert router.chances("abcdef", now_s=3.0) == [0.0, 1.0]
    router.send("uvwxyz", 1, 4.0)  # 12 characters of 4 bytes, 2 too many
    assert router.chances("abcdef", now_s=9.9) == [0.0, 1.0]
    assert router.chances("abcdef", now_s=10.0) == [1.0, 0.0]
    assert router.chances("uvwxyz", now_s=10.0) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"eviction_interval_s": 0.0}, "eviction_interval_s is 0; expected more than 0"),
        (
            {"eviction_target_chars": 500_000.0},
            "eviction_target_chars is 500000; expected 0 to eviction_threshold_chars",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RayPrefixAffinity(**changed)  # type: ignore[arg-type]
