"""vLLM production-stack's ``session``: conversations on a hash ring, all else to the lowest rate of requests."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

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
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.hash_ring import SIGN, cost_by_ring, hash_ring
from lodestar.pipeline.replay.routing.pick import Pick

__all__ = ["ProductionStackSession"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: More would take the memory for a ring that a line of text asked for.
_MOST_PLACES: Final = 100_000
_HALF: Final = (1 << 32) - 1
# MD5 (RFC 1321): what is added in each of its 64 steps, and by how much is turned.
_ADDED: Final = np.array([int(abs(math.sin(i + 1)) * 2**32) for i in range(64)], dtype=np.int64)
_TURNED: Final = np.array([7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21], dtype=np.int64)
_OLDEST, _NEXT = 0, 1  # memory.numbers: the first request that still counts, and one past the last that was sent
_RECENT, _EVER = 0, 1  # memory.of_instance: requests that count, and whether it ever got one
_SENT_AT_S, _SENT_TO = 0, 1  # memory.of_request: when it was first sent, and one past the instance


def _ring(names: Sequence[str], replicas: int) -> Ints:
    """Return the ring of all replicas; of 128 bits the first 64 tell places apart."""
    labels = [f"{name}-{replica}".encode() for name in names for replica in range(replicas)]
    digests = [hashlib.md5(label, usedforsecurity=False).digest() for label in labels]
    return hash_ring([int.from_bytes(digest[:8], "big") for digest in digests], len(names))


@jit_inner
def _word(number: int, digits: int, at: int) -> int:
    """Return 32 bits of the one block that MD5 hashes: the number's digits, a mark, zeros, and how many bits it has."""
    if at == 14:
        return 8 * digits
    word = 0
    for k in range(4):
        place = 4 * at + k
        byte = 0
        if place < digits:
            left = number
            for _ in range(digits - 1 - place):
                left //= 10
            byte = 48 + left % 10
        elif place == digits:
            byte = 128
        word |= byte << (8 * k)
    return word


@jit_inner
def _mixed(step: int, b: int, c: int, d: int) -> int:
    if step < 16:
        return (b & c) | (~b & d)
    if step < 32:
        return (d & b) | (~d & c)
    if step < 48:
        return b ^ c ^ d
    return (c ^ (b | (~d & _HALF))) & _HALF


@jit_inner
def _word_at(step: int) -> int:
    if step < 16:
        return step
    if step < 32:
        return (5 * step + 1) % 16
    if step < 48:
        return (3 * step + 5) % 16
    return 7 * step % 16


@jit_inner
def _swapped(half: int) -> int:
    """Turn the order of 4 bytes around."""
    return (half & 255) << 24 | (half >> 8 & 255) << 16 | (half >> 16 & 255) << 8 | half >> 24 & 255


@jit_inner
def _place(number: int) -> int:
    """Return where the ring has the decimal text of a number: the first 64 bits of its MD5, to compare as signed."""
    digits, rest = 1, number // 10
    while rest > 0:
        digits, rest = digits + 1, rest // 10
    a, b, c, d = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476
    for step in range(64):
        turned = (a + _mixed(step, b, c, d) + _ADDED[step] + _word(number, digits, _word_at(step))) & _HALF
        by = _TURNED[step // 16 * 4 + step % 4]
        a, d, c = d, c, b
        b = (b + ((turned << by | turned >> (32 - by)) & _HALF)) & _HALF
    first, second = (a + 0x67452301) & _HALF, (b + 0xEFCDAB89) & _HALF
    return (_swapped(first) << 32 | _swapped(second)) ^ SIGN


@jit_inner
def _counts(memory: Memory, i: int, since_s: float) -> bool:
    """Say whether request i was sent at all, and not before a time."""
    return bool(memory.of_request[i, _SENT_TO] > 0.0 and memory.of_request[i, _SENT_AT_S] >= since_s)


@jit_inner
def _cost_by_rate(now_s: float, memory: Memory, candidates: Ints, window_s: float, cost: Floats) -> None:
    """Cost candidates by the requests sent within the window; what never got one comes before all."""
    for j in candidates:
        cost[j] = memory.of_instance[j, _RECENT] if memory.of_instance[j, _EVER] > 0.0 else -1.0
    i = int(memory.numbers[_OLDEST])
    while i < memory.numbers[_NEXT] and not _counts(memory, i, now_s - window_s):
        if memory.of_request[i, _SENT_TO] > 0.0:
            cost[int(memory.of_request[i, _SENT_TO]) - 1] -= 1.0
        i += 1


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
    if request.session >= 0:
        ring = parameters.integers
        first = int(np.searchsorted(ring[0], _place(request.session), side="right"))
        cost_by_ring(first, ring, candidates, cost)
    else:
        _cost_by_rate(request.now_s, memory, candidates, parameters.values[0], cost)


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind != SENT:
        return
    numbers, sent = memory.numbers, memory.of_request
    memory.of_instance[instance, _EVER] = 1.0
    i = int(numbers[_OLDEST])
    while i < numbers[_NEXT] and not _counts(memory, i, request.now_s - parameters.values[0]):
        if sent[i, _SENT_TO] > 0.0:
            memory.of_instance[int(sent[i, _SENT_TO]) - 1, _RECENT] -= 1.0
        i += 1
    numbers[_OLDEST] = i
    if request.index >= numbers[_NEXT]:
        numbers[_NEXT] = request.index + 1.0
        sent[request.index, _SENT_AT_S] = request.now_s
        sent[request.index, _SENT_TO] = instance + 1.0
        memory.of_instance[instance, _RECENT] += 1.0


@dataclass(frozen=True, slots=True)
class ProductionStackSession(Policy):
    """A conversation's own instance, from a hash ring; without a conversation, the instance with the lowest rate.

    Every instance has `replicas` places on the ring: the MD5 of its name, a dash and the replica's number. A
    conversation goes to the instance of the first place after the MD5 of its id; where that is no candidate, on to the
    next that is, as on a ring made of the candidates alone. The cost is the number of candidates that come before.

    Without a conversation: the first candidate in the router's list that never got a request; with none such, the one
    that was sent the fewest requests within the last `window_s`, the first of several. The cost is that number, -1 for
    what never got one. Requests of conversations count too.

    The ids of conversations are not kept as a log names them: what is hashed is the decimal text of their number. A
    request that is sent again because its instance failed counts where and when it was first sent.

    Source: vLLM production-stack ``src/vllm_router/routers/routing_logic.py``, ``SessionRouter`` and ``_qps_routing``;
    ``src/vllm_router/stats/request_stats.py``, with the default of ``--request-stats-window``. The ring is
    ``HashRing()`` of uhashring (``uhashring/ring_meta.py``), with its default of 160 replicas; not ketama's.
    """

    replicas: int = 160
    window_s: float = 60.0

    name: ClassVar[str] = "production-stack-session"
    needs_sessions: ClassVar[bool] = True
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(numbers=2, of_instance=2, of_request=2)

    def __post_init__(self) -> None:
        """Refuse a ring without places, and a window without time."""
        if not 1 <= self.replicas <= _MOST_PLACES:
            raise ConfigError(
                f"replicas is {self.replicas}; expected 1 to {_MOST_PLACES} places on the ring. Change it"
            )
        if not self.window_s > 0.0:
            raise ConfigError(f"window_s is {self.window_s:g}; expected more than 0. Raise it")

    def pick(self) -> Pick:
        """Take the first in the router's list among equal rates."""
        return Pick(ties="first")

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the window, and the ring of these instances."""
        return Parameters.of(self.window_s, integers=_ring(fleet.names, self.replicas))
