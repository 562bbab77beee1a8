"""Dynamo's router and ours before the same stream of requests; the fleet goes where the peer sends them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lodestar.data import schema
from lodestar.pipeline.replay.policies.dynamo_kv import ACTIVE_BLOCKS, ACTIVE_REQUESTS, PREFILL_TOKENS, DynamoKv
from lodestar.pipeline.replay.routing.compiled import Request
from lodestar.pipeline.replay.routing.contract import Choice, Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState
from peers.dynamo_peer import DynamoRouter, Selected
from peers.dynamo_traffic import EngineCache, Prompt, Prompts

__all__ = ["Decision", "Pair"]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)


@dataclass(slots=True)
class Decision:
    """One request, as both decided on it.

    Attributes:
        request_id: at the peer.
        peer: what it chose and told.
        ours: what we would choose, with which probability, at what cost.
        loads: prefill tokens, blocks and requests of each candidate, as we counted them before.
        overlap_blocks: that each candidate really has cached.
        prefill_tokens: that we charged the peer's choice.
        temperature: of both.
        peer_cost: of its choice, as it logged it.
    """

    request_id: str
    peer: Selected
    ours: Choice
    loads: dict[int, list[int]]
    overlap_blocks: dict[int, int]
    prefill_tokens: int
    temperature: float
    peer_cost: float = math.nan

    @property
    def lowest(self) -> list[int]:
        """Who has the lowest cost."""
        return [int(j) for j in np.flatnonzero(self.ours.cost == self.ours.cost.min())]

    @property
    def agreed(self) -> bool:
        """Whether the peer's choice is one that we could make, at exactly the cost that we gave it."""
        chosen = self.peer.worker
        return bool(self.ours.probability[chosen] > 0.0 and self.ours.cost[chosen] == self.peer_cost)


class _UnderWay(NamedTuple):
    request_id: str
    request: Request
    worker: int
    prompt: Prompt
    departures: int  # of the worker before it was sent there


class Pair:
    """Both routers, and the engines' caches.

    Attributes:
        decisions: so far.
        seen: how often each situation came up.
    """

    def __init__(self, policy: DynamoKv, peer: DynamoRouter, instances: int, most_under_way: int, seed: int) -> None:
        block = policy.block_tokens
        self.policy, self.peer, self.most_under_way = policy, peer, most_under_way
        self.rng = np.random.default_rng(seed)
        self.decisions: list[Decision] = []
        self.seen: Counter[str] = Counter()
        self._instances = instances
        self._prompts = Prompts(self.rng, block, longest_blocks=12)
        self._state = PolicyState(policy, Fleet([f"worker-{j}" for j in range(instances)]), block)
        self._caches = [EngineCache(block, capacity_blocks=60) for _ in range(instances)]
        self._prefilling: list[_UnderWay] = []
        self._decoding: list[_UnderWay] = []
        self._departures = [0] * instances

    def decide(self, count: int) -> None:
        """Go on until there are so many decisions, and read the peer's costs."""
        for worker in range(self._instances):
            self.peer.join(worker)
        while len(self.decisions) < count:
            self._step(self.rng.random())
        costs = self.peer.costs()
        for decision in self.decisions:
            worker, decision.peer_cost = costs[decision.request_id]
            assert worker == decision.peer.worker

    def _step(self, what: float) -> None:
        if what < 0.004:
            self._leave_or_join()
        elif what < 0.006:
            worker = int(self.rng.choice(self._state.candidates))
            self.peer.events(worker, self._caches[worker].clear())
            self.seen["cleared"] += 1
        elif what < 0.4 and len(self._prefilling) + len(self._decoding) < self.most_under_way:
            self._decide_one()
        elif what < 0.7 and self._prefilling:
            self._first_token(self._drawn(self._prefilling))
        elif what < 0.73 and self._prefilling:
            self._end(self._drawn(self._prefilling))
            self.seen["ended before its first token"] += 1
        elif self._decoding:
            self._end(self._drawn(self._decoding))

    def _drawn(self, those: list[_UnderWay]) -> _UnderWay:
        return those.pop(int(self.rng.integers(len(those))))

    def _decide_one(self) -> None:
        prompt, request_id = self._prompts.next(), f"r{len(self.decisions)}"
        request = self._state.request(0.0, len(prompt.tokens), prompt.blocks)
        overlap = {j: self._caches[j].overlap_blocks(prompt.blocks) for j in self._state.candidates}
        snapshot = np.full((self._instances, len(schema.SNAPSHOT_FIELDS)), np.nan)
        for j, blocks in overlap.items():
            snapshot[j, _HIT] = blocks * self.policy.block_tokens / len(prompt.tokens)
        ours, loads = self.policy.choose(request, snapshot, self._state, self.rng), self._loads()
        told = self.peer.select(request_id, prompt.tokens)
        self._state.sent(request, told.worker, snapshot)
        charged = self._loads()[told.worker][0] - loads[told.worker][0]
        self.decisions.append(Decision(request_id, told, ours, loads, overlap, charged, self.policy.temperature))
        self.seen["under way at a decision"] += len(self._prefilling) + len(self._decoding)
        self.seen["whole prompt cached"] += charged == 0
        self._prefilling.append(_UnderWay(request_id, request, told.worker, prompt, self._departures[told.worker]))

    def _loads(self) -> dict[int, list[int]]:
        columns = [PREFILL_TOKENS, ACTIVE_BLOCKS, ACTIVE_REQUESTS]
        return {j: self._state.memory.of_instance[j, columns].astype(int).tolist() for j in self._state.candidates}

    def _first_token(self, it: _UnderWay) -> None:
        self._state.first_token(it.request, it.worker, 0.0)
        self._check_known(it, self.peer.prefill_complete(it.request_id))
        self._decoding.append(it)
        if it.departures == self._departures[it.worker]:
            events = self._caches[it.worker].compute(it.prompt)
            self.peer.events(it.worker, events)
            self.seen.update(str(event[0]) for event in events)

    def _end(self, it: _UnderWay) -> None:
        self._state.done(it.request, it.worker, 0.0)
        self._check_known(it, self.peer.free(it.request_id))

    def _check_known(self, it: _UnderWay, known: bool) -> None:
        """See that the peer forgets a request whose worker has left, even if that is back."""
        assert known == (it.departures == self._departures[it.worker])
        self.seen["heard of a forgotten request"] += not known

    def _leave_or_join(self) -> None:
        away = [j for j in range(self._instances) if j not in self._state.candidates]
        if away and (len(away) > 1 or self.rng.random() < 0.5):
            worker = int(self.rng.choice(away))
            self.peer.join(worker)
            self._state.join(worker)
            self.seen["joined"] += 1
            return
        worker = int(self.rng.choice(self._state.candidates))
        self.peer.leave(worker)
        self._state.leave(worker)
        self._caches[worker].held.clear()
        self._departures[worker] += 1
        self.seen["left"] += 1
