"""`sglang-cache-aware` decides as the real ``sglang-router`` does."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.pipeline.replay.policies.sglang_cache_aware import SglangCacheAware
from lodestar.pipeline.replay.routing.compiled import Request
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState
from peers.sglang_traffic import DONE, EVICTED, LEFT, ORDER, SENT, Event, Stream, record

pytestmark = pytest.mark.slow

INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
FIELDS = {
    "cache_threshold": "cache_threshold",
    "balance_abs_threshold": "balance_abs_threshold",
    "balance_rel_threshold": "balance_rel_threshold",
    "eviction_interval_secs": "eviction_interval_s",
    "max_tree_size": "max_tree_tokens",
}
UNEVEN = {"balance_abs_threshold": 4, "balance_rel_threshold": 1.1}
HALF = {"balance_abs_threshold": 8, "balance_rel_threshold": 1.2}
STRICT = {"cache_threshold": 0.6, "balance_abs_threshold": 3, "balance_rel_threshold": 2.0}
SMALL = {"balance_abs_threshold": 3, "eviction_interval_secs": 1}
STREAMS = {
    "defaults": Stream(1, 1000, workers=4, most_held=30),
    "many at once": Stream(
        2, 1000, workers=2, most_held=90, settings={"balance_abs_threshold": 8, "balance_rel_threshold": 1.2}
    ),
    "uneven": Stream(3, 1000, workers=5, most_held=40, settings=UNEVEN),
    "strict": Stream(4, 1000, workers=3, most_held=25, settings=STRICT),
    "come and go": Stream(5, 1000, workers=4, most_held=20, settings=UNEVEN, spare=2),
    "evict": Stream(6, 1000, workers=2, most_held=15, settings=SMALL | {"max_tree_size": 400}),
    "evict among three": Stream(7, 800, workers=3, most_held=20, settings=SMALL | {"max_tree_size": 300}),
}


@dataclass(slots=True)
class Comparison:
    """A policy that hears what the router did, and is asked before each decision.

    Attributes:
        counts: of decisions by branch and by outcome, and of evictions.
        wrong: numbers of the requests that the policy would never have sent where the router did.
    """

    policy: SglangCacheAware
    urls: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[int] = field(default_factory=list)

    def run(self, events: list[Event]) -> Comparison:
        state = PolicyState(self.policy, Fleet(self.urls))
        snapshot = np.full((len(self.urls), len(schema.SNAPSHOT_FIELDS)), np.nan)
        snapshot[:, INFLIGHT] = 0.0
        sent: list[tuple[Request, int]] = []
        evictions, after, prefixes = 0, dict[str, int](), {""}
        for at, event in enumerate(events):
            now_s = evictions * self.policy.eviction_interval_s + (at - 1) * 1e-6
            if event.kind == ORDER:
                state.candidates[:] = [self.urls.index(url) for url in event.order]
            elif event.kind == SENT:
                request = state.request(now_s, len(event.text), _blocks(event.text))
                self._decide(state, request, snapshot, event, prefixes)
                j = self.urls.index(event.url)
                state.sent(request, j, snapshot)
                snapshot[j, INFLIGHT] += 1.0
                sent.append((request, j))
            elif event.kind == DONE:
                request, j = sent[event.number]
                snapshot[j, INFLIGHT] -= 1.0
                state.done(request, j, now_s)
                if after:
                    self._compare_sizes(state, after)
                    after = {}
            elif event.kind == EVICTED:
                evictions += 1
                self._compare_sizes(state, event.sizes[0])
                after = event.sizes[1]
                self.counts["cut by an eviction"] += int(event.sizes[0] != after)
            elif event.kind == LEFT:
                state.leave(self.urls.index(event.url), now_s)
        return self

    def _decide(
        self, state: PolicyState, request: Request, snapshot: np.ndarray, event: Event, prefixes: set[str]
    ) -> None:
        _, probability = state.decide(request, snapshot)
        chance = probability[self.urls.index(event.url)]
        self.counts["decisions"] += 1
        self.counts["left to chance"] += int(0.0 < chance < 1.0)
        if chance == 0.0:
            self.wrong.append(request.index)
        self.counts[self._branch(event.text, snapshot[state.candidates, INFLIGHT], prefixes)] += 1
        prefixes.update(_blocks(event.text))

    def _branch(self, text: str, loads: np.ndarray, prefixes: set[str]) -> str:
        """Say what decides, from the definition; after an eviction, a match may be a miss."""
        least, most = loads.min(), loads.max()
        apart = most - least > self.policy.balance_abs_threshold and most > self.policy.balance_rel_threshold * least
        rate = max(k for k in range(len(text) + 1) if text[:k] in prefixes) / len(text)
        if rate > self.policy.cache_threshold and not apart:
            return "match"
        return ("imbalance" if apart else "miss") + (", tie" if (loads == least).sum() > 1 else "")

    def _compare_sizes(self, state: PolicyState, sizes: dict[str, int]) -> None:
        held = {url: int(state.memory.of_instance[self.urls.index(url), 0]) for url in sizes}
        self.counts["sizes agree" if held == sizes else "sizes differ"] += 1


def _blocks(text: str) -> list[str]:
    """Name the prefixes of a prompt whose blocks are single characters."""
    return [text[: k + 1] for k in range(len(text))]


def _compare(stream: Stream) -> Comparison:
    events = record(stream)
    policy = SglangCacheAware(**{FIELDS[name]: float(value) for name, value in stream.settings.items()})
    urls = sorted({url for event in events if event.kind == ORDER for url in event.order})
    return Comparison(policy, urls).run(events)


@pytest.fixture(scope="module")
def compared() -> dict[str, Comparison]:
    compared = {name: _compare(stream) for name, stream in STREAMS.items()}
    for name, each in compared.items():
        print(f"{name}: {dict(each.counts)}, wrong {each.wrong}")
    return compared


def test_every_decision_is_the_routers(compared: dict[str, Comparison]) -> None:
    # What a router leaves to the order of a hash map, the policy leaves to chance: the one disagreement there is.
    assert {name: each.wrong for name, each in compared.items()} == {name: [] for name in STREAMS}
    total = sum((each.counts for each in compared.values()), Counter())
    assert total["decisions"] >= 6500
    assert total["left to chance"] <= 0.005 * total["decisions"]


def test_every_branch_was_taken(compared: dict[str, Comparison]) -> None:
    for name in ("uneven", "strict", "come and go", "evict", "evict among three", "many at once"):
        assert compared[name].counts["imbalance"] >= 3, name
    for name, each in compared.items():
        assert each.counts["match"] >= 100, name
        assert each.counts["miss"] >= 20, name
    total = sum((each.counts for each in compared.values()), Counter())
    assert total["miss, tie"] >= 100
    assert total["imbalance, tie"] >= 20


def test_every_eviction_leaves_what_the_routers_does(compared: dict[str, Comparison]) -> None:
    evicted = compared["evict"].counts
    assert evicted["cut by an eviction"] >= 5
    assert evicted["sizes agree"] >= 15
    assert evicted["sizes differ"] == 0
    # Among three, the router refreshes one of several holders by the order of a hash map at times.
    among_three = compared["evict among three"].counts
    assert among_three["cut by an eviction"] >= 5
    assert among_three["sizes agree"] >= among_three["sizes differ"]
