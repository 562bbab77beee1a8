"""vLLM production-stack's ``prefixaware``: the instances that got the longest beginning of this prompt before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction, jit_inner
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
from lodestar.pipeline.replay.routing.contract import Fleet, Policy, tunable

__all__ = ["ProductionStackPrefixAware"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@jit_inner
def _matched_chunks(request: Request, j: int, prefixes: Prefixes, memory: Memory, chunk_tokens: float) -> float:
    """Count the chunks of the prompt that were sent to instance j before."""
    if memory.of_request[request.index, 0] == j + 1.0:  # the very prompt, sent there before
        return math.ceil(request.prompt_tokens / chunk_tokens)
    end, whole = 0.0, False
    for at in range(request.path_from, request.path_to):
        node = prefixes.path[at]
        if memory.of_pair[node, j, 0] == 0.0:
            break
        end = float(prefixes.node_end[node])
        whole = memory.of_pair[node, j, 1] > 0.0
    # A last chunk that is not full matches only where a prompt ended as this one does.
    if whole and end == request.prompt_tokens:
        return math.ceil(end / chunk_tokens)
    return math.floor(min(end, request.prompt_tokens) / chunk_tokens)


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
        cost[j] = -_matched_chunks(request, j, prefixes, memory, parameters.values[0])


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind != SENT:
        return
    memory.of_request[request.index, 0] = instance + 1.0
    for at in range(request.path_from, request.path_to):
        node = prefixes.path[at]
        memory.of_pair[node, instance, 0] = 1.0
        if prefixes.node_end[node] == request.prompt_tokens:
            memory.of_pair[node, instance, 1] = 1.0


@dataclass(frozen=True, slots=True)
class ProductionStackPrefixAware(Policy):
    """A random one of the instances that were sent the longest beginning of this prompt, in chunks.

    A trie has the chunks of all prompts and the instances each was sent to; nothing is ever forgotten. The deepest
    chunk of the prompt that any candidate has decides: each candidate that has it is as likely. Where none has the
    first chunk, any candidate. The cost is minus the number of chunks matched. Load plays no part.

    The peer's chunks are 128 characters, about 32 tokens, and its last chunk may be shorter. A match here goes as far
    as the shared blocks of the log do, rounded down to chunks. The peer's ``--prefix-min-match-length`` stays at its
    default, 0, with which it never falls back on the rate of requests. Of a prompt that is sent again because its
    instance failed, the part that no other prompt shares matches where it was sent last.

    Source: vLLM production-stack ``src/vllm_router/routers/routing_logic.py``, ``PrefixAwareRouter``, and
    ``src/vllm_router/prefix/hashtrie.py``.
    """

    chunk_tokens: float = tunable(32.0, 1.0, 8192.0, log=True, whole=True)

    name: ClassVar[str] = "production-stack-prefix-aware"
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(of_pair=2, of_request=1)

    def __post_init__(self) -> None:
        """Refuse chunks of nothing."""
        if not self.chunk_tokens >= 1.0:
            raise ConfigError(f"chunk_tokens is {self.chunk_tokens:g}; expected 1 or more. Raise it")

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the size of a chunk."""
        return Parameters.of(self.chunk_tokens)
