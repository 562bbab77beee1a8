"""Random streams of requests past a policy: what it knows, where they went, and when they were answered."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.routing.compiled import Request
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.policy_state import PolicyState

__all__ = ["BLOCK_TOKENS", "INSTANCES", "Ask", "Stream", "fleet", "snapshot", "states"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

INSTANCES = 5
BLOCK_TOKENS = 16
_MOST = {
    schema.HIT_RATIO: 1.0,
    schema.KV_USAGE_RATIO: 1.0,
    schema.PREFILL_TOKENS: 4000.0,
    schema.DECODE_TOKENS: 4000.0,
    schema.LAST_ACCESS_AGE_S: 60.0,
}


def fleet(place: Ints | None = None) -> Fleet:
    """Return five named instances, two of them slow; with `place`, instance j stands at place[j]."""
    place = np.arange(INSTANCES) if place is None else place
    kinds = ["h100-llama-3.1-8b"] * 3 + ["l40s-llama-3.1-8b"] * 2
    at = np.argsort(place)
    return Fleet([f"pod-{'abcde'[j]}" for j in at], [EngineModel.preset(kinds[j]) for j in at])


def snapshot(rng: np.random.Generator) -> Floats:
    """Return what a router could know of five instances; counts are whole, and ties happen."""
    rows = np.zeros((INSTANCES, len(schema.SNAPSHOT_FIELDS)))
    for k, name in enumerate(schema.SNAPSHOT_FIELDS):
        ratio = rng.integers(0, 9, INSTANCES) / 8.0
        rows[:, k] = ratio * _MOST[name] if name in _MOST else 8.0 * ratio
    return rows


@dataclass(slots=True)
class Ask:
    """One decision to be made.

    Attributes:
        state: that has heard of all before.
        request: to decide on.
        snapshot: what the router knows.
    """

    state: PolicyState
    request: Request
    snapshot: Floats


@dataclass(slots=True)
class Stream:
    """Requests that arrive at random, share prefixes and sessions, and go where `goes` says.

    Attributes:
        state: of the policy that hears of them.
        seed: of everything.
        requests: how many.
        goes: from the random choice to the true one; the random choice is drawn in any case.
        place: where the instances stand in the fleet; see `fleet`.
        leaving: whether instances leave, and join again.
        shuffled: whether the list of candidates has another order each time.
        again: whether a request that fails is sent again.
        at_once: whether every request is answered, or fails, as soon as it is sent.
    """

    state: PolicyState
    seed: int
    requests: int = 40
    goes: Callable[[Ask, int], int] = field(default=lambda _, drawn: drawn)
    place: Ints = field(default_factory=lambda: np.arange(INSTANCES))
    leaving: bool = False
    shuffled: bool = False
    again: bool = True
    at_once: bool = False

    def __iter__(self) -> Iterator[Ask]:
        """Hand over each decision before it is made; at the end, everything is answered."""
        rng, order = np.random.default_rng(self.seed), np.random.default_rng(self.seed + 1)
        state, pending, now_s = self.state, [], 0.0  # type: ignore[var-annotated]
        for number in range(self.requests):
            now_s += float(rng.exponential(0.2))
            self._answer(pending, now_s)
            if self.leaving:
                self._come_and_go(number, now_s)
            group, depth, session = (int(value) for value in rng.integers((4, 1, -1), (8, 9, 6)))
            blocks = [100 * group + at for at in range(depth)] + [10_000 + number]
            prompt_tokens = BLOCK_TOKENS * len(blocks) + int(rng.integers(1, BLOCK_TOKENS))
            seen = np.empty((INSTANCES, len(schema.SNAPSHOT_FIELDS)))
            seen[self.place] = snapshot(rng)
            if self.shuffled:
                state.candidates = order.permutation(state.candidates).tolist()
            ask = Ask(state, state.request(now_s, prompt_tokens, blocks, session), seen)
            yield ask
            chosen = self.goes(ask, self._listed()[int(rng.integers(INSTANCES)) % len(state.candidates)])
            state.sent(ask.request, chosen, seen)
            first_s, done_s = now_s + np.cumsum(rng.exponential((0.3, 1.5)))
            fails = bool(rng.random() < 0.1)
            heapq.heappush(pending, (first_s, number, fails, ask, chosen, done_s, float(rng.integers(1, 200))))
            if self.at_once:
                self._answer(pending, np.inf)
        self._answer(pending, np.inf)

    def _answer(self, pending: list[tuple[float, int, bool, Ask, int, float, float]], now_s: float) -> None:
        """Tell of first tokens and ends; a request that fails before its first token is sent again at once."""
        while pending and pending[0][0] <= now_s:
            at_s, number, fails, ask, chosen, done_s, tokens = heapq.heappop(pending)
            if fails:
                self.state.done(ask.request, chosen, at_s)
                if not self.again:
                    continue
                again = self._listed()[number % len(self.state.candidates)]
                self.state.sent(ask.request._replace(now_s=at_s), again, ask.snapshot)
                heapq.heappush(pending, (at_s, number, False, ask, again, done_s, tokens))
            elif np.isfinite(done_s):
                self.state.first_token(ask.request, chosen, at_s)
                heapq.heappush(pending, (done_s, number, False, ask, chosen, np.inf, tokens))
            else:
                phases = {"queue_s": 0.1, "prefill_s": 0.2, "decode_s": 0.01 * tokens}
                self.state.done(ask.request, chosen, at_s, **phases, output_tokens=tokens)

    def _listed(self) -> list[int]:
        """Return the candidates, always in the same order."""
        return [j for j in self.place.tolist() if j in self.state.candidates]

    def _come_and_go(self, number: int, now_s: float) -> None:
        """Let the second and the fourth instance go for a while, with what they have in flight."""
        for at, j in ((8, 1), (14, 3)):
            if number == at:
                self.state.leave(int(self.place[j]), now_s)
            if number == at + 10:
                self.state.join(int(self.place[j]))


def states(policy: Policy, place: Ints | None = None) -> PolicyState:
    """Begin with a policy before the five instances."""
    return PolicyState(policy, fleet(place), BLOCK_TOKENS)
