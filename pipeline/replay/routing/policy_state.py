"""A policy at work outside the simulated cluster: one router's state, told of events as they happen.

The replay keeps the same memory in the same arrays and calls the same compiled functions; here arrays grow with the
stream of requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.jit import jit
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
    FIRST_TOKEN,
    LEFT,
    SENT,
    Event,
    Memory,
    Prefixes,
    Request,
)
from lodestar.pipeline.replay.routing.contract import MODEL, Fleet, Policy
from lodestar.pipeline.replay.routing.pick import Pick, fill_probabilities
from lodestar.pipeline.replay.routing.predictions import Desk, predict

__all__ = ["PolicyState"]

Floats = NDArray[np.float64]
_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_NAN: Final = float("nan")
_ROOM: Final = 64  # requests, and prefix nodes, that there is room for at first


@jit
def _probabilities(cost: Floats, candidates: NDArray[np.int64], pick: Floats, probability: Floats) -> None:
    fill_probabilities(cost, candidates, pick, probability)


class PolicyState:
    """Who the candidates are, what the policy remembers, and the prefixes that it has seen.

    Attributes:
        policy: whose state it is.
        fleet: all instances that there can be.
        candidates: indices of the instances to choose from, in the order in which the router lists them.
        memory: of the policy.
    """

    def __init__(self, policy: Policy, fleet: Fleet, block_tokens: int = 1, pick: Pick | None = None) -> None:
        """Begin with every instance of the fleet as a candidate, and nothing remembered.

        Args:
            policy: the policy.
            fleet: the instances.
            block_tokens: prompt tokens in one prefix block.
            pick: how to pick by cost, instead of the policy's own way: another tie rule, say.
        """
        self.policy, self.fleet, self.block_tokens = policy, fleet, block_tokens
        self.candidates = list(range(len(fleet.names)))
        self.memory: Memory = policy.memory.memory(len(fleet.names), _ROOM, _ROOM)
        self._parameters, self._pick = policy.parameters(fleet), (pick or policy.pick()).numbers()
        self._models = policy.predictors
        self._desk = Desk.of(len(fleet.names), *self._models)
        self._requests = 0
        self._node_of: dict[Any, int] = {}
        self._path = np.zeros(_ROOM, dtype=np.int32)
        self._path_end = 0
        self._node_end = np.zeros(_ROOM, dtype=np.int32)

    @property
    def prefixes(self) -> Prefixes:
        """Return the prefixes seen so far, one node a block."""
        return Prefixes(self._path, self._node_end)

    def request(
        self, now_s: float, prompt_tokens: int, blocks: Sequence[Any] | NDArray[Any] = (), session: int = -1
    ) -> Request:
        """Register a request.

        Args:
            now_s: the time.
            prompt_tokens: length of its prompt.
            blocks: ids of its prefix blocks; equal id, equal prompt up to and including the block.
            session: conversation, from 0; -1: none.
        """
        index, start = self._requests, self._path_end
        self._requests += 1
        known = self._node_of
        nodes = [known.setdefault(block, len(known)) for block in blocks]
        self._path_end = start + len(nodes)
        self._path = _with_room(self._path, self._path_end)
        self._path[start : self._path_end] = nodes
        self._node_end = _with_room(self._node_end, len(known))
        self._node_end[nodes] = self.block_tokens * np.arange(1, len(nodes) + 1)
        self._make_room()
        return Request(index, float(now_s), float(prompt_tokens), session, start, self._path_end)

    def decide(self, request: Request, snapshot: Floats) -> tuple[Floats, Floats]:
        """Return the cost and the probability of every instance, shape (m,) each; nothing is drawn or remembered."""
        if not self.candidates:
            raise ConfigError(
                f"policy {self.policy.name} has no candidate for request {request.index}; expected at least one "
                "instance. Wait until one joins"
            )
        m = len(self.fleet.names)
        cost, probability, predicted_ms = np.full(m, np.inf), np.zeros(m), np.full((m, 2), np.nan)
        snapshot = np.ascontiguousarray(snapshot, dtype=np.float64)
        candidates = np.array(self.candidates, dtype=np.int64)
        if self.policy.predictor == MODEL:
            predict(self._desk, request.prompt_tokens, snapshot, *self._models, predicted_ms)
        rule = self.policy.rule.compiled
        rule(request, snapshot, predicted_ms, candidates, self.prefixes, self.memory, self._parameters, cost)
        _probabilities(cost, candidates, self._pick, probability)
        return cost, probability

    def sent(self, request: Request, instance: int, snapshot: Floats) -> None:
        """Hear that the request went to an instance, by this policy's choice or another's."""
        self._notice(Event(SENT, float(snapshot[instance, _HIT]), _NAN, _NAN, _NAN, _NAN), request, instance)

    def first_token(self, request: Request, instance: int, at_s: float) -> None:
        """Hear of its first token."""
        self._notice(Event(FIRST_TOKEN, _NAN, _NAN, _NAN, _NAN, _NAN), request._replace(now_s=float(at_s)), instance)

    def done(
        self,
        request: Request,
        instance: int,
        at_s: float,
        *,
        queue_s: float = _NAN,
        prefill_s: float = _NAN,
        decode_s: float = _NAN,
        output_tokens: float = _NAN,
    ) -> None:
        """Hear that it is over: answered, cancelled or lost."""
        event = Event(DONE, _NAN, float(queue_s), float(prefill_s), float(decode_s), float(output_tokens))
        self._notice(event, request._replace(now_s=float(at_s)), instance)

    def join(self, instance: int) -> None:
        """Put an instance of the fleet at the end of the list of candidates."""
        if not 0 <= instance < len(self.fleet.names):
            raise ConfigError(
                f"instance {instance} joins a fleet of {len(self.fleet.names)}; expected one of it, counted from 0. "
                "Name all instances that there can be at the start"
            )
        if instance not in self.candidates:
            self.candidates.append(instance)

    def leave(self, instance: int, at_s: float = _NAN) -> None:
        """Take an instance off the list; its requests may go on."""
        if instance not in self.candidates:
            raise ConfigError(f"instance {instance} leaves; expected one of the candidates {self.candidates}")
        self.candidates.remove(instance)
        self._notice(Event(LEFT, _NAN, _NAN, _NAN, _NAN, _NAN), Request(-1, float(at_s), _NAN, -1, 0, 0), instance)

    def _notice(self, event: Event, request: Request, instance: int) -> None:
        notice = self.policy.notice.compiled
        notice(event, request, instance, self.prefixes, self.memory, self._parameters)

    def _make_room(self) -> None:
        shape, memory = self.policy.memory, self.memory
        if shape.of_request:
            memory = memory._replace(of_request=_with_room(memory.of_request, self._requests))
        if shape.of_node:
            memory = memory._replace(of_node=_with_room(memory.of_node, len(self._node_of)))
        if shape.of_pair:
            memory = memory._replace(of_pair=_with_room(memory.of_pair, len(self._node_of)))
        self.memory = memory


def _with_room(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return the array, or one twice as long that begins with it."""
    if rows <= len(array):
        return array
    longer = np.zeros((max(rows, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
    longer[: len(array)] = array
    return longer
