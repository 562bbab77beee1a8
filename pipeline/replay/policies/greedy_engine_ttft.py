"""Greedy on the TTFT that the engine model predicts: what a router could do that knew its engines' coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction, jit_inner
from lodestar.models.engine import COEFFICIENTS
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
    FIRST_TOKEN,
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
from lodestar.pipeline.replay.routing.shared_rules import known

__all__ = ["GreedyEngineTtft"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_KV_USAGE = schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)
_GENERATED = schema.SNAPSHOT_FIELDS.index(schema.DECODE_TOKENS)

# Columns of `Parameters.of_instance`: the coefficients first, in their order.
_ENGINE: Final = (
    *COEFFICIENTS,
    "request_overhead_ms",
    "response_overhead_ms",
    "max_batched_tokens",
    "max_sequences",
    "kv_capacity_tokens",
    "prefix_caching",
    "chunked_prefill",
)
(
    _DECODE_BASE,
    _DECODE_SEQUENCE,
    _DECODE_CONTEXT,
    _BASE,
    _TOKEN,
    _SEQUENCE,
    _CONTEXT,
    _ATTENTION,
    _REQUEST,
    _RESPONSE,
    _BUDGET,
    _SEQUENCES,
    _CAPACITY,
    _CACHING,
    _CHUNKED,
) = range(len(_ENGINE))

# Columns of `Memory.of_instance`. Ahead: requests without a first token; their new tokens, and attention work.
_AHEAD, _AHEAD_TOKENS, _AHEAD_ATTENTION = 0, 1, 2
#: Requests past their first token, and their prompts.
_DECODING, _DECODING_TOKENS = 3, 4
#: When the engine began on what is ahead now, and when a step last ended there that the router heard of.
_BEGAN_S, _STEP_END_S = 5, 6
#: Sums over the requests that have ended: how many, their decode times, the tokens of cache they gave back.
_ENDED, _ENDED_DECODE_S, _ENDED_TOKENS = 7, 8, 9
# Columns of `Memory.of_request`: the same of one request, and whether it is past its first token.
_TOKENS, _WORK, _PAST_FIRST = 0, 1, 2


@jit_inner
def _new_tokens(prompt_tokens: float, hit_ratio: float, engine: Floats) -> float:
    return float(prompt_tokens * (1.0 - known(hit_ratio) * engine[_CACHING]))


@jit_inner
def _attention(prompt_tokens: float, new_tokens: float) -> float:
    """Return the attention work of the last new tokens of a prompt, each over all that stands before it."""
    return new_tokens * (prompt_tokens - new_tokens / 2.0)


@jit_inner
def _step_ms(decoding: float, context: float, engine: Floats) -> float:
    """Return what a step with prompt tokens takes beside them."""
    if engine[_CHUNKED] == 0.0:
        return float(engine[_BASE])
    return float(engine[_BASE] + engine[_SEQUENCE] * decoding + engine[_CONTEXT] * context)


@jit_inner
def _left_of_step_ms(now_s: float, generated_tokens: float, j: int, memory: Memory, engine: Floats) -> float:
    """Return what is left of the decode step in flight as a request that is sent now gets to the engine."""
    decoding = memory.of_instance[j, _DECODING]
    if decoding == 0.0:
        return 0.0
    context = memory.of_instance[j, _DECODING_TOKENS] + generated_tokens
    step_ms = engine[_DECODE_BASE] + engine[_DECODE_SEQUENCE] * decoding + engine[_DECODE_CONTEXT] * context
    if step_ms <= 0.0:
        return 0.0
    since_ms = 1000.0 * (now_s - memory.of_instance[j, _STEP_END_S]) + engine[_REQUEST]
    return float(step_ms * (1.0 - since_ms / step_ms % 1.0))


@jit_inner
def _steps(new_tokens: float, engine: Floats, budget: float) -> float:
    """Return the steps that a prompt takes by itself."""
    return max(math.ceil(new_tokens / budget), 1.0) if engine[_CHUNKED] > 0.0 else 1.0


@jit_inner
def _behind_ms(
    new_tokens: float, passed_ms: float, step_ms: float, budget: float, j: int, memory: Memory, engine: Floats
) -> float:
    """Return how much longer a prompt takes behind those ahead; it has no part in the step in flight."""
    ahead_tokens = memory.of_instance[j, _AHEAD_TOKENS]
    begun = 1.0 + math.floor(passed_ms / max(step_ms + engine[_TOKEN] * budget, 1e-6))
    begun = max(min(begun, math.ceil(ahead_tokens / budget)), 0.0)
    left = ahead_tokens - min(begun * budget, ahead_tokens)
    steps = begun + max(math.ceil((left + new_tokens) / budget), 1.0)
    if engine[_CHUNKED] == 0.0:  # whole prompts: as many as fit into a step, or one that is longer
        steps = min(memory.of_instance[j, _AHEAD] + 1.0, steps)
    work_ms = engine[_TOKEN] * ahead_tokens + engine[_ATTENTION] * memory.of_instance[j, _AHEAD_ATTENTION]
    return float(max(work_ms + (steps - _steps(new_tokens, engine, budget)) * step_ms - passed_ms, 0.0))


@jit_inner
def _room_ms(missing_tokens: float, missing_sequences: float, j: int, memory: Memory) -> float:
    """Return how long until enough has ended, at the rate at which requests end that decode for the mean time."""
    state = memory.of_instance[j]
    if state[_ENDED] == 0.0 or state[_DECODING] == 0.0 or state[_ENDED_DECODE_S] <= 0.0:
        return 0.0
    to_end = max(missing_tokens * state[_ENDED] / state[_ENDED_TOKENS], missing_sequences)
    if to_end <= 0.0:
        return 0.0
    return float(1000.0 * to_end * state[_ENDED_DECODE_S] / state[_ENDED] / state[_DECODING])


@jit_inner
def _ttft_ms(request: Request, j: int, snapshot: Floats, memory: Memory, engine: Floats) -> float:
    state = memory.of_instance[j]
    new = _new_tokens(request.prompt_tokens, snapshot[j, _HIT], engine)
    generated = known(snapshot[j, _GENERATED])
    step_ms = _step_ms(state[_DECODING], state[_DECODING_TOKENS] + generated, engine)
    budget = max(engine[_BUDGET] - state[_DECODING], 1.0) if engine[_CHUNKED] > 0.0 else engine[_BUDGET]
    if state[_AHEAD] > 0.0:
        passed_ms = 1000.0 * (request.now_s - state[_BEGAN_S]) + engine[_REQUEST]
        wait_ms = _behind_ms(new, passed_ms, step_ms, budget, j, memory, engine)
    else:
        wait_ms = _left_of_step_ms(request.now_s, generated, j, memory, engine)
    free = (1.0 - known(snapshot[j, _KV_USAGE])) * engine[_CAPACITY]
    missing_sequences = state[_AHEAD] + state[_DECODING] + 1.0 - engine[_SEQUENCES]
    room_ms = _room_ms(new + state[_AHEAD_TOKENS] - free, missing_sequences, j, memory)
    work_ms = engine[_TOKEN] * new + engine[_ATTENTION] * _attention(request.prompt_tokens, new)
    own_ms = work_ms + _steps(new, engine, budget) * step_ms
    return float(engine[_REQUEST] + max(wait_ms, room_ms) + own_ms + engine[_RESPONSE])


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
        cost[j] = _ttft_ms(request, j, snapshot, memory, parameters.of_instance[j])


@jit_inner
def _begin_prefill(event: Event, request: Request, instance: int, memory: Memory, parameters: Parameters) -> None:
    engine = parameters.of_instance[instance]
    tokens = _new_tokens(request.prompt_tokens, event.hit_ratio, engine)
    work = _attention(request.prompt_tokens, tokens)
    memory.of_request[request.index, _TOKENS] = tokens
    memory.of_request[request.index, _WORK] = work
    memory.of_request[request.index, _PAST_FIRST] = 0.0
    if memory.of_instance[instance, _AHEAD] == 0.0:
        left_ms = engine[_REQUEST] + _left_of_step_ms(request.now_s, 0.0, instance, memory, engine)
        memory.of_instance[instance, _BEGAN_S] = request.now_s + left_ms / 1000.0
    memory.of_instance[instance, _AHEAD] += 1.0
    memory.of_instance[instance, _AHEAD_TOKENS] += tokens
    memory.of_instance[instance, _AHEAD_ATTENTION] += work


@jit_inner
def _end_prefill(request: Request, instance: int, memory: Memory) -> None:
    memory.of_instance[instance, _AHEAD] -= 1.0
    memory.of_instance[instance, _AHEAD_TOKENS] -= memory.of_request[request.index, _TOKENS]
    memory.of_instance[instance, _AHEAD_ATTENTION] -= memory.of_request[request.index, _WORK]
    if memory.of_instance[instance, _AHEAD] == 0.0:  # sums of fractions need not come back to 0
        memory.of_instance[instance, _AHEAD_TOKENS] = 0.0
        memory.of_instance[instance, _AHEAD_ATTENTION] = 0.0


@jit_inner
def _end(event: Event, request: Request, instance: int, memory: Memory) -> None:
    if memory.of_request[request.index, _PAST_FIRST] == 0.0:
        _end_prefill(request, instance, memory)
        return
    memory.of_instance[instance, _DECODING] -= 1.0
    memory.of_instance[instance, _DECODING_TOKENS] -= request.prompt_tokens
    if not math.isnan(event.output_tokens):
        memory.of_instance[instance, _ENDED] += 1.0
        memory.of_instance[instance, _ENDED_DECODE_S] += known(event.decode_s)
        memory.of_instance[instance, _ENDED_TOKENS] += memory.of_request[request.index, _TOKENS] + event.output_tokens


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind == SENT:
        _begin_prefill(event, request, instance, memory, parameters)
    elif event.kind == FIRST_TOKEN or event.kind == DONE:
        ended_s = request.now_s - parameters.of_instance[instance, _RESPONSE] / 1000.0
        memory.of_instance[instance, _STEP_END_S] = max(ended_s, memory.of_instance[instance, _STEP_END_S])
        if event.kind == DONE:
            _end(event, request, instance, memory)
        else:
            _end_prefill(request, instance, memory)
            memory.of_instance[instance, _BEGAN_S] = max(ended_s, memory.of_instance[instance, _BEGAN_S])
            memory.of_request[request.index, _PAST_FIRST] = 1.0
            memory.of_instance[instance, _DECODING] += 1.0
            memory.of_instance[instance, _DECODING_TOKENS] += request.prompt_tokens


@dataclass(frozen=True, slots=True)
class GreedyEngineTtft(Policy):
    """The lowest TTFT that the engine model predicts, ties at random: the router knows the engines' coefficients.

    cost (ms) = request overhead + max(W, R) + n · S + token · new + attention · new · (P - new / 2) + response overhead
    for a prompt of P tokens of which new = P · (1 - hit) are to be computed (P where the engine caches no prefixes):

    - S is what a step takes beside its prompt tokens: prefill base + sequence · D + context · K, with D requests past
      their first token, which decode along, and K tokens under them; the base alone without chunked prefill.
    - n = ⌈new / (budget - D)⌉ steps; 1 without chunked prefill.
    - W is the wait for the prompts ahead, sent and without a first token: their steps, tokens and attention, less the
      time since the engine began on them, which was at the last first token, or at the end of the decode step in which
      the first of them came. The step in flight is full for this one; what is left after it fills steps together with
      it. Nobody ahead: what is left of the decode step in flight, counted from the last step that the router heard end.
    - R is the wait for room, where the new tokens here and ahead do not fit into the free part of the cache, or the
      requests not into a batch: so many must end first, at a rate of D over the mean decode time of those that have
      ended, each giving back its new tokens and its answer; 0 before any has ended.

    Greedy: it does not count what a choice costs the requests that come after. It takes the queue as first come, first
    served, and what the router believes cached as cached. Where the cache is full, R falls short.

    Source: ours; a step is `EngineModel.step_ms`.
    """

    name: ClassVar[str] = "greedy-engine-ttft"
    fields: ClassVar[tuple[str, ...]] = (schema.HIT_RATIO,)
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(of_instance=10, of_request=3)
    needs_engines: ClassVar[bool] = True

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return each engine's coefficients and limits.

        Raises:
            ConfigError: the engines are not known.
        """
        if fleet.engines is None:
            raise ConfigError(
                f"policy {self.name} has no engines to predict with; expected one an instance. Name them with --engine"
            )
        return Parameters.of(
            of_instance=np.array([[float(getattr(engine, each)) for each in _ENGINE] for engine in fleet.engines])
        )
