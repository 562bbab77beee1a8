"""Uncached prompt tokens that are still to be computed on each instance, as a router counts them.

Charged when a request is sent, by what the router believes is not cached there; released at its first token, or when it
ends without one.
"""

from __future__ import annotations

import math
from typing import Final

from lodestar.data.jit import jit_inner
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
)
from lodestar.pipeline.replay.routing.shared_rules import known

__all__ = ["UNCACHED", "count_uncached", "note_uncached"]

#: For a policy that keeps nothing else: tokens in the first column of its instances.
UNCACHED: Final = MemoryShape(of_instance=1, of_request=1)


@jit_inner
def count_uncached(event: Event, request: Request, instance: int, memory: Memory) -> None:
    """Keep the tokens of each request in ``of_request[:, 0]``, and of each instance in ``of_instance[:, 0]``."""
    if event.kind == SENT:
        tokens = math.floor(
            request.prompt_tokens * (1.0 - known(event.hit_ratio)) + 0.5
        )  # whole, so that sums come back to 0
        memory.of_request[request.index, 0] = tokens
        memory.of_instance[instance, 0] += tokens
    elif event.kind == FIRST_TOKEN or event.kind == DONE:
        memory.of_instance[instance, 0] -= memory.of_request[request.index, 0]
        memory.of_request[request.index, 0] = 0.0


@notice_function
def note_uncached(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    """Count them, and nothing else."""
    count_uncached(event, request, instance, memory)
