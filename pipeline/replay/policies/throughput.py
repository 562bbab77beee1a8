"""AIBrix's ``throughput``: where requests were small so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
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

__all__ = ["Throughput"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Columns of `Memory.of_instance`.
_REQUESTS, _PROMPT_TOKENS, _OUTPUT_TOKENS = 0, 1, 2


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
    for j in candidates:
        of_instance = memory.of_instance[j]
        tokens = 2.0 * of_instance[_PROMPT_TOKENS] + of_instance[_OUTPUT_TOKENS]
        cost[j] = tokens / of_instance[_REQUESTS] if of_instance[_REQUESTS] > 0.0 else 0.0


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind == DONE and event.output_tokens == event.output_tokens:  # not NaN: it was answered
        of_instance = memory.of_instance[instance]
        of_instance[_REQUESTS] += 1.0
        of_instance[_PROMPT_TOKENS] += request.prompt_tokens
        of_instance[_OUTPUT_TOKENS] += event.output_tokens


@dataclass(frozen=True, slots=True)
class Throughput(Policy):
    """The smallest requests so far: cost = 2 · mean prompt tokens + mean output tokens of an instance, ties at random.

    Despite its name it looks at the size of requests and not at how many there are, so it says little of load. The
    means are over the requests that an instance has answered; one that has answered none costs 0, and gets everything
    until it has. They go on when an instance leaves and joins again.

    AIBrix asks Prometheus for the means of the last day; here they are over all since the start, the same for a day. As
    deployed, it reads the answer of Prometheus through a function that returns 0 for it, so that all instances tie and
    AIBrix's ``throughput`` picks at random; this is the formula as written and as AIBrix's own tests have it.

    Source: AIBrix ``pkg/plugins/gateway/algorithms/throughput.go``, ``pkg/metrics/metrics.go`` and ``types.go``.
    """

    name: ClassVar[str] = "throughput"
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(of_instance=3)
