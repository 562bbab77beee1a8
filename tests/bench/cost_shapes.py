"""Shapes of the delay that a choice imposes on others, on predictions without error: rules for ``total_cost.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
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
from lodestar.pipeline.replay.routing.contract import ENGINE, Fleet, Policy

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHAPES: Final = (
    "greedy: TTFT alone",
    "own prefill · requests before their first token there",
    "own prefill",
    "own prefill · mean requests before their first token",
    "λ p (2 W + p) / (2 (1 - ρ)), λ and ρ measured per instance over 30 s",
    "own prefill · W / mean prefill",
    "own prefill · (W + own prefill / 5) / mean prefill",
    "own prefill · (W + own prefill / 2) / mean prefill",
)
GREEDY, COUNT, OWN, SHARED, ARRIVALS, BACKLOG, FIFTH, HALF = range(len(SHAPES))
_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_WAITING = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_PREFILL_REQUESTS)
_SPAN_S = 30.0
_MOST_BUSY = 0.7


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
    shape, weight, mean_tokens = parameters.values[0], parameters.values[1], parameters.values[2]
    waiting = 0.0
    for j in candidates:
        waiting += snapshot[j, _WAITING] / len(candidates)
    for j in candidates:
        token_ms, caching, speed = (
            parameters.of_instance[j, 0],
            parameters.of_instance[j, 1],
            parameters.of_instance[j, 2],
        )
        hit = snapshot[j, _HIT] if snapshot[j, _HIT] == snapshot[j, _HIT] else 0.0
        own = token_ms * request.prompt_tokens * (1.0 - hit * caching)
        ttft, mean = predicted_ms[j, 0], token_ms * mean_tokens
        before = max(ttft - parameters.of_instance[j, 3] * own, 0.0)
        cost[j] = ttft
        if shape == COUNT:
            cost[j] += weight * own * snapshot[j, _WAITING]
        elif shape == OWN:
            cost[j] += weight * own
        elif shape == SHARED:
            cost[j] += weight * own * speed * waiting
        elif shape == ARRIVALS:
            fade = math.exp((memory.of_instance[j, 2] - request.now_s) / _SPAN_S) / _SPAN_S / 1e3
            busy = min(memory.of_instance[j, 1] * fade, _MOST_BUSY)
            cost[j] += weight * memory.of_instance[j, 0] * fade * own * (2.0 * before + own) / (2.0 * (1.0 - busy))
        elif shape == BACKLOG:
            cost[j] += weight * own * before / mean
        elif shape == FIFTH:
            cost[j] += weight * own * (before + own / 5.0) / mean
        elif shape == HALF:
            cost[j] += weight * own * (before + own / 2.0) / mean


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind == SENT:
        fade = math.exp((memory.of_instance[instance, 2] - request.now_s) / _SPAN_S)
        hit = event.hit_ratio if event.hit_ratio == event.hit_ratio else 0.0
        own = (
            parameters.of_instance[instance, 0]
            * request.prompt_tokens
            * (1.0 - hit * parameters.of_instance[instance, 1])
        )
        memory.of_instance[instance, 0] = memory.of_instance[instance, 0] * fade + 1.0
        memory.of_instance[instance, 1] = memory.of_instance[instance, 1] * fade + own
        memory.of_instance[instance, 2] = request.now_s


@dataclass(frozen=True, slots=True)
class CostShape(Policy):
    """The lowest true TTFT with a weight on one shape of the delay imposed on others.

    Attributes:
        shape: of `SHAPES`.
        weight: of the delay.
        mean_tokens: uncached, of a prompt.
    """

    shape: int = GREEDY
    weight: float = 0.0
    mean_tokens: float = 2500.0

    name: ClassVar[str] = "cost-shape"
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(of_instance=3)
    predictor: ClassVar[int] = ENGINE
    needs_engines: ClassVar[bool] = True

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return shape and weight, and of each instance what a token takes, whether it caches, and its speed."""
        engines = fleet.engines or ()
        fastest_ms = min(engine.prompt_token_ms for engine in engines)
        rows = [
            [
                engine.prompt_token_ms,
                float(engine.prefix_caching),
                fastest_ms / engine.prompt_token_ms,
                # With what a step takes beside its tokens, of which it is full.
                1.0 + engine.prefill_base_ms / (engine.prompt_token_ms * engine.max_batched_tokens),
            ]
            for engine in engines
        ]
        return Parameters.of(self.shape, self.weight, self.mean_tokens, of_instance=np.array(rows))
