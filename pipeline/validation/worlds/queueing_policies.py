"""The policies of the queueing world as policies of the product: built-in ones where there are, else small rules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import LateFunction, jit_inner
from lodestar.pipeline.replay.policies.least_request import LeastRequest
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
    SENT,
    Event,
    Memory,
    MemoryShape,
    Parameters,
    Prefixes,
    Request,
    notice_function,
    rule_function,
)
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.pick import Pick
from lodestar.pipeline.validation.worlds.queueing import World

__all__ = ["LeastBacklog", "Weighted", "policies_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_LOAD_WEIGHT: Final = 0.6
_HIT_WEIGHT: Final = 0.8


@rule_function
def _rule(
    request: Request,
    snapshot: Floats,
    predicted_ms: Floats,
    candidates: Ints,
    prefixes: Prefixes,
    memory: Memory,
    parameters: Parameters,
    cost: Floats,
) -> None:
    load, hit, counted, soft, slowest = parameters.values
    for j in candidates:
        speed = parameters.of_instance[j, 0]
        cost[j] = load * (snapshot[j, _INFLIGHT] + counted) / speed - hit * (snapshot[j, _HIT] > 0.0)
        if soft > 0.0:
            cost[j] = -math.exp(-cost[j])
        if speed < slowest:
            cost[j] = np.inf


@dataclass(frozen=True, slots=True)
class Weighted(Policy):
    """Load over a configured speed, less what a cached prefix is worth; the lowest, or softly.

    cost = load · (requests in flight + counted) / speed − hit · [any of the prompt is cached]

    Attributes:
        speed: of each instance, as the router was told.
        load: weight of the load.
        hit: weight of a hit.
        counted: 1 counts the request itself.
        explored: above 0, any instance with this chance, and else one with p ∝ exp(−cost).
        slowest: slower instances get nothing.
    """

    speed: tuple[float, ...]
    load: float = 0.0
    hit: float = 0.0
    counted: float = 0.0
    explored: float = 0.0
    slowest: float = 0.0

    name: ClassVar[str] = "weighted"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS, schema.HIT_RATIO)
    rule: ClassVar[LateFunction] = _rule

    def pick(self) -> Pick:
        """Pick by weight and explore, or the lowest."""
        return Pick(weighted=True, epsilon=self.explored) if self.explored > 0 else Pick()

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the weights, and the speeds of the instances."""
        numbers = (self.load, self.hit, self.counted, self.explored, self.slowest)
        return Parameters.of(*numbers, of_instance=np.array(self.speed)[:, None])


# Columns of `Memory.of_instance`: services that are not over, and since when the first of them runs; of `of_request`:
# its service.
_LEFT_MS, _SINCE_S, _SERVICE_MS = 0, 1, 0


@jit_inner
def _service_ms(prompt_tokens: float, hit_ratio: float, speed: float, parameters: Parameters) -> float:
    return float((parameters.values[0] + parameters.values[1] * prompt_tokens * (1.0 - hit_ratio)) / speed)


@rule_function
def _least_backlog(
    request: Request,
    snapshot: Floats,
    predicted_ms: Floats,
    candidates: Ints,
    prefixes: Prefixes,
    memory: Memory,
    parameters: Parameters,
    cost: Floats,
) -> None:
    for j in candidates:
        passed_ms = 1e3 * (request.now_s - memory.of_instance[j, _SINCE_S])
        service_ms = _service_ms(request.prompt_tokens, snapshot[j, _HIT], parameters.of_instance[j, 0], parameters)
        cost[j] = max(memory.of_instance[j, _LEFT_MS] - passed_ms, 0.0) + service_ms


@notice_function
def _note_services(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    state = memory.of_instance[instance]
    if event.kind == SENT:
        speed = parameters.of_instance[instance, 0]
        service_ms = _service_ms(request.prompt_tokens, event.hit_ratio, speed, parameters)
        memory.of_request[request.index, _SERVICE_MS] = service_ms
        if state[_LEFT_MS] < 1e-6:  # sums of fractions need not come back to 0
            state[_LEFT_MS], state[_SINCE_S] = 0.0, request.now_s
        state[_LEFT_MS] += service_ms
    elif event.kind == DONE:
        state[_LEFT_MS] -= memory.of_request[request.index, _SERVICE_MS]
        state[_SINCE_S] = max(state[_SINCE_S], request.now_s)


@dataclass(frozen=True, slots=True)
class LeastBacklog(Policy):
    """The least expected TTFT, by the router's own books of what it sent; no router sees the true backlog.

    Attributes:
        speed: of each instance, as the router was told.
        overhead_ms: of a request at speed 1.
        token_ms: of a prompt token that is not cached, at speed 1.
    """

    speed: tuple[float, ...]
    overhead_ms: float
    token_ms: float

    name: ClassVar[str] = "least-backlog"
    fields: ClassVar[tuple[str, ...]] = (schema.HIT_RATIO,)
    rule: ClassVar[LateFunction] = _least_backlog
    notice: ClassVar[LateFunction] = _note_services
    memory: ClassVar[MemoryShape] = MemoryShape(of_instance=2, of_request=1)

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return what a request costs, and the speeds of the instances."""
        return Parameters.of(self.overhead_ms, self.token_ms, of_instance=np.array(self.speed)[:, None])


def policies_of(world: World) -> dict[str, Policy]:
    """Return every policy of the world by its name there, for a router that was told what the world's was.

    >>> list(policies_of(World()))
    ['logging', 'uniform', 'jsq', 'jsq/speed', 'affinity', 'affinity+load', 'fastest-3', 'least-ttft']
    """
    told = world.weight
    return {
        "logging": Weighted(told, load=_LOAD_WEIGHT, hit=_HIT_WEIGHT, explored=0.3),
        "uniform": RandomChoice(),
        "jsq": LeastRequest(),
        "jsq/speed": Weighted(told, load=1.0, counted=1.0),
        "affinity": Weighted(told, hit=1.0),
        "affinity+load": Weighted(told, load=_LOAD_WEIGHT, hit=_HIT_WEIGHT),
        "fastest-3": Weighted(told, slowest=sorted(told)[-3]),
        "least-ttft": LeastBacklog(told, world.overhead_ms, world.token_ms),
    }
