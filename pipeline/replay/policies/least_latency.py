"""AIBrix's ``least-latency``: where requests took least time so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import LateFunction, jit_inner
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
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.pick import Pick

__all__ = ["LeastLatency"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: What the engines keep a histogram of. `Memory.of_instance` has its sum in column 2k, its count in column 2k + 1.
_QUEUE_S, _PREFILL_S, _DECODE_S, _PROMPT_TOKENS, _OUTPUT_TOKENS = 0, 1, 2, 3, 4
#: Tokens of a request on a fleet that has answered none.
_GUESSED_PROMPT_TOKENS, _GUESSED_OUTPUT_TOKENS = 10.0, 100.0


@jit_inner
def _observe(memory: Memory, instance: int, k: int, value: float) -> None:
    if value == value:  # not NaN
        memory.of_instance[instance, 2 * k] += value
        memory.of_instance[instance, 2 * k + 1] += 1.0


@jit_inner
def _mean(memory: Memory, instance: int, k: int) -> float:
    """Return the mean of a histogram, 0 of an empty one."""
    count = memory.of_instance[instance, 2 * k + 1]
    return memory.of_instance[instance, 2 * k] / count if count > 0.0 else 0.0


@jit_inner
def _typical(memory: Memory, candidates: Ints, k: int, guess: float) -> float:
    """Return the mean of the candidates' means, of those that have one."""
    total, count = 0.0, 0
    for j in candidates:
        mean = _mean(memory, j, k)
        if mean > 0.0:
            total += mean
            count += 1
    return total / count if count > 0 else guess


@jit_inner
def _scaled(memory: Memory, instance: int, time: int, tokens: int, typical: float) -> float:
    """Return the mean time, scaled from the instance's mean tokens to those of a typical request."""
    mean = _mean(memory, instance, tokens)
    return _mean(memory, instance, time) / (mean if mean > 0.0 else typical) * typical


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
    deployed = parameters.values[0] > 0.0
    prompt = _typical(memory, candidates, _PROMPT_TOKENS, _GUESSED_PROMPT_TOKENS)
    output = _typical(memory, candidates, _OUTPUT_TOKENS, _GUESSED_OUTPUT_TOKENS)
    for j in candidates:
        if deployed:
            cost[j] = _mean(memory, j, _PREFILL_S) + _mean(memory, j, _DECODE_S)
        else:
            prefill_s = _scaled(memory, j, _PREFILL_S, _PROMPT_TOKENS, prompt)
            decode_s = _scaled(memory, j, _DECODE_S, _OUTPUT_TOKENS, output)
            cost[j] = _mean(memory, j, _QUEUE_S) + prefill_s + decode_s


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind == DONE:
        _observe(memory, instance, _QUEUE_S, event.queue_s)
        _observe(memory, instance, _PREFILL_S, event.prefill_s)
        _observe(memory, instance, _DECODE_S, event.decode_s)
        if event.output_tokens == event.output_tokens:  # not NaN: it was answered
            _observe(memory, instance, _PROMPT_TOKENS, request.prompt_tokens)
            _observe(memory, instance, _OUTPUT_TOKENS, event.output_tokens)


@dataclass(frozen=True, slots=True)
class LeastLatency(Policy):
    """The least expected seconds of a typical request, from each instance's means so far; the last of a tie wins.

    cost = queue + prefill / prompt · P + decode / output · G: the instance's mean times in the queue, in prefill and in
    decode, its mean prompt and output tokens, and the means P and G of these over the candidates that have answered
    any (if none has, 10 and 100 tokens, which cancel). The request's own length plays no part. An instance that has
    answered nothing costs 0, and gets everything until it has. Means go on when an instance leaves and joins again.

    The times are means since an engine started, as AIBrix reads them; it asks Prometheus for the tokens of the last
    day, and here they are since the start too, the same for a day.

    With `as_deployed`, cost = prefill + decode: the gateway reads the histogram of queue times and the answers of
    Prometheus through a function that returns 0 for them, so that waiting does not count and nothing is scaled. The
    default is the formula as written and as AIBrix's own tests have it.

    Source: AIBrix ``pkg/plugins/gateway/algorithms/least_latency.go``, ``pkg/metrics/metrics.go`` and ``types.go``.
    """

    as_deployed: bool = False

    name: ClassVar[str] = "least-latency"
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(of_instance=10)

    def pick(self) -> Pick:
        """Let the last of a tie win."""
        return Pick(ties="last")

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return whether to read the metrics as the gateway does."""
        return Parameters.of(float(self.as_deployed))
