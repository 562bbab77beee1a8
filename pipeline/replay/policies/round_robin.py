"""One instance after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import (
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
from lodestar.pipeline.replay.routing.contract import Policy

__all__ = ["RoundRobin"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    count = len(candidates)
    turn = int(memory.numbers[0]) % count
    for position in range(count):
        cost[candidates[position]] = (position - turn) % count


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind == SENT:
        memory.numbers[0] += 1.0


@dataclass(frozen=True, slots=True)
class RoundRobin(Policy):
    """The n-th request goes to candidate n modulo their number, in the order of the router's list.

    cost = how many turns until it is the candidate's. Every request that is sent counts, a second try too. The count
    goes on when an instance joins or leaves, so that the list is then entered wherever the count happens to be.

    Source: sgl-project/sglang ``sgl-model-gateway/src/policies/round_robin.rs``, over its healthy workers.
    """

    name: ClassVar[str] = "round-robin"
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(numbers=1)
