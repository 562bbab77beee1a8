"""LMETRIC: new prompt tokens times batch size, two load metrics in one product and nothing to tune."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import LateFunction, jit_inner
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
from lodestar.pipeline.replay.routing.shared_rules import known, whole_percent
from lodestar.pipeline.replay.routing.uncached import count_uncached

__all__ = ["Lmetric"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_RUNNING = schema.SNAPSHOT_FIELDS.index(schema.RUNNING_REQUESTS)
_WAITING = schema.SNAPSHOT_FIELDS.index(schema.WAITING_REQUESTS)

# Columns of `Memory.of_instance` and of `Memory.of_request`; the tokens are those of `count_uncached`.
_TOKENS, _REQUESTS = 0, 1
_LOCAL: Final = 0  # place in `Parameters.values`


@jit_inner
def _new_tokens(prompt_tokens: float, hit_ratio: float) -> float:
    """Return the uncached tokens as AIBrix counts them: the match in whole percent, the tokens of it rounded down."""
    percent = whole_percent(hit_ratio)
    return prompt_tokens - math.floor(prompt_tokens * percent / 100.0)


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
        if parameters.values[_LOCAL] > 0.0:
            own = _new_tokens(request.prompt_tokens, snapshot[j, _HIT])
            batch = memory.of_instance[j, _REQUESTS]
        else:
            own = request.prompt_tokens * (1.0 - known(snapshot[j, _HIT]))
            batch = known(snapshot[j, _RUNNING]) + known(snapshot[j, _WAITING])
        cost[j] = (memory.of_instance[j, _TOKENS] + own) * (batch + 1.0)


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if parameters.values[_LOCAL] == 0.0:
        count_uncached(event, request, instance, memory)
    elif event.kind == SENT:
        tokens = _new_tokens(request.prompt_tokens, event.hit_ratio)
        memory.of_request[request.index, _TOKENS] = tokens
        memory.of_instance[instance, _TOKENS] += tokens
        memory.of_instance[instance, _REQUESTS] += 1.0
    elif event.kind == DONE:
        memory.of_instance[instance, _TOKENS] -= memory.of_request[request.index, _TOKENS]
        memory.of_instance[instance, _REQUESTS] -= 1.0


@dataclass(frozen=True, slots=True)
class Lmetric(Policy):
    """The least product of new prompt tokens and batch size; no parameter.

    cost = (T + P · (1 - hit)) · (running + waiting + 1), for a prompt of P tokens, where T are the uncached tokens of
    the requests sent there that have no first token yet, and running and waiting are the engine's own counts as the
    router last read them; an engine that has told none counts as idle. The lowest cost wins, ties at random.

    With `local`, as AIBrix's ``l-metric-local`` has it: the router's own count of requests sent and not ended stands
    for running + waiting, T keeps a request's tokens until it ends, and matches count in whole percent.

    Source: arXiv 2603.15202 (P_tokens · batch size); gangmuk/Lodestar, sub-algorithm ``lmetric``, as its
    ``pkg/plugins/gateway/algorithms/rl_routing.go`` calls it (the file with its body is not published, nor with it when
    T is released); AIBrix ``pkg/plugins/gateway/algorithms/l_metric_local.go``.
    """

    local: bool = False

    name: ClassVar[str] = "lmetric"
    fields: ClassVar[tuple[str, ...]] = (schema.HIT_RATIO,)
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(of_instance=2, of_request=1)

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return which of the two it is."""
        return Parameters.of(self.local)
