"""KubeAI's ``PrefixHash``: consistent hashing of the prompt's beginning, with bounded loads."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction, jit_inner
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
    LEFT,
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
from lodestar.pipeline.replay.routing.hash_ring import SIGN, cost_by_ring, hash_ring
from lodestar.pipeline.replay.routing.pick import Pick

__all__ = ["KubeaiChwbl", "xxh64"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: More would take the memory for a ring that a line of text asked for.
_MOST_PLACES: Final = 100_000
_PRIMES: Final = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_MASK: Final = (1 << 64) - 1
#: Turned around, the sign bit makes signed numbers sort as unsigned ones do.
_P1, _P2, _P3, _P4, _P5 = (np.uint64(prime) for prime in _PRIMES)


def xxh64(data: bytes) -> int:
    """Return the 64-bit xxHash of some bytes, with seed 0.

    >>> f"{xxh64(b'Nobody inspects the spammish repetition'):x}"
    'fbcea83c8a378bf1'
    """
    p1, p2, p3, p4, p5 = _PRIMES
    whole = len(data) // 32 * 32
    value = p5
    if whole:
        lanes = [p1 + p2, p2, 0, -p1]
        for numbers in struct.iter_unpack("<4Q", data[:whole]):
            lanes = [_round(lane, number) for lane, number in zip(lanes, numbers, strict=True)]
        value = sum(_left(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * p1 + p4) & _MASK
    value = (value + len(data)) & _MASK
    words, halves = (len(data) - whole) // 8, len(data) % 8 // 4
    for (number,) in struct.iter_unpack("<Q", data[whole : whole + 8 * words]):
        value = (_left(value ^ _round(0, number), 27) * p1 + p4) & _MASK
    for (number,) in struct.iter_unpack("<I", data[whole + 8 * words :][: 4 * halves]):
        value = (_left(value ^ number * p1 & _MASK, 23) * p2 + p3) & _MASK
    for byte in data[whole + 8 * words + 4 * halves :]:
        value = _left(value ^ byte * p5 & _MASK, 11) * p1 & _MASK
    value = (value ^ value >> 33) * p2 & _MASK
    value = (value ^ value >> 29) * p3 & _MASK
    return value ^ value >> 32


def _left(value: int, by: int) -> int:
    """Rotate 64 bits."""
    value &= _MASK
    return (value << by | value >> (64 - by)) & _MASK


def _round(lane: int, number: int) -> int:
    return _left(lane + number * _PRIMES[1], 31) * _PRIMES[0] & _MASK


def _ring(names: Sequence[str], replication: int) -> Ints:
    """Return the ring of all replicas."""
    hashes = [xxh64(f"{name}{replica}".encode()) for name in names for replica in range(replication)]
    return hash_ring(hashes, len(names))


@jit_inner
def _turn(value: np.uint64, by: int) -> np.uint64:
    return (value << np.uint64(by)) | (value >> np.uint64(64 - by))


@jit_inner
def _place(number: int) -> int:
    """Return where the ring has the 8 bytes of a number: their xxHash, to compare as signed."""
    word = _turn(np.uint64(number) * _P2, 31) * _P1
    value = (_turn((_P5 + np.uint64(8)) ^ word, 27)) * _P1 + _P4
    value = (value ^ (value >> np.uint64(33))) * _P2
    value = (value ^ (value >> np.uint64(29))) * _P3
    return int(np.int64(value ^ (value >> np.uint64(32)))) ^ SIGN


@jit_inner
def _beginning(request: Request, prefixes: Prefixes, prefix_tokens: float) -> int:
    """Return the node in which the hashed beginning of the prompt ends; -1 if no other prompt has all of it."""
    wanted = min(prefix_tokens, request.prompt_tokens)
    for at in range(request.path_from, request.path_to):
        node = prefixes.path[at]
        if prefixes.node_end[node] >= wanted:
            return int(node)
    return -1


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
    key = request.index
    node = _beginning(request, prefixes, parameters.values[1])
    if node >= 0 and memory.of_node[node, 0] > 0.0:
        key = int(memory.of_node[node, 0]) - 1
    total, count = memory.numbers[0], len(candidates)
    limit = (total + 1.0) / count * parameters.values[0]
    ring = parameters.integers
    cost_by_ring(int(np.searchsorted(ring[0], _place(key))), ring, candidates, cost)
    for j in candidates:
        if total > 0.0 and memory.of_instance[j, 0] + 1.0 > limit:
            cost[j] += count


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    own = memory.of_instance[instance]
    if event.kind == SENT:
        memory.numbers[0] += 1.0
        own[0] += 1.0
        memory.of_request[request.index, 0] = own[1]
        node = _beginning(request, prefixes, parameters.values[1])
        if node >= 0 and memory.of_node[node, 0] == 0.0:
            memory.of_node[node, 0] = request.index + 1.0
    elif event.kind == DONE:
        memory.numbers[0] -= 1.0
        # What was sent before the instance left is not counted when it is there again.
        if memory.of_request[request.index, 0] == own[1]:
            own[0] -= 1.0
    elif event.kind == LEFT:
        own[0] = 0.0
        own[1] += 1.0


@dataclass(frozen=True, slots=True)
class KubeaiChwbl(Policy):
    """The first instance on a hash ring, from the hash of the prompt's beginning on, that is not too full.

    Every instance has `replication` places on the ring: xxHash64 of its name with the replica's number after it. From
    the first place at or after the key's hash on, the first instance with
    c + 1 ≤ (C + 1) / n · `mean_load_percent` / 100 is taken, for c requests in flight there, C in all and n instances;
    without any in flight, the first at once; with every one over the bound, the first too. The cost is the number of
    instances met before, and n more where the bound is exceeded. C counts requests on instances that left, as KubeAI's
    does, and an instance that is there again starts from none.

    KubeAI hashes the text of the first 100 characters, about 25 tokens (of a chat, of its first user message). A log
    has no text: here the key is the index of the first request whose prompt has the same prefix blocks up to the one
    in which the first `prefix_tokens` end, as 8 bytes, little-endian. Prompts that differ later in that block get
    different keys, and a prompt that shares no such block has its own. Where all prompts begin with one system prompt,
    which KubeAI leaves out of a chat's key, they have one key here unless `prefix_tokens` reaches beyond it.

    Source: KubeAI ``internal/loadbalancer/balance_chwbl.go`` and ``group.go``; defaults of ``PrefixHash`` in
    ``api/k8s/v1/model_types.go``.
    """

    mean_load_percent: float = tunable(125.0, 100.0, 1000.0, log=True)
    prefix_tokens: float = tunable(25.0, 1.0, 8192.0, log=True, whole=True)
    replication: int = 256

    name: ClassVar[str] = "kubeai-chwbl"
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(numbers=1, of_instance=2, of_node=1, of_request=1)

    def __post_init__(self) -> None:
        """Refuse what KubeAI refuses, and a ring without places."""
        if not self.mean_load_percent >= 100.0:
            raise ConfigError(
                f"mean_load_percent is {self.mean_load_percent:g}; expected 100 or more, for the fullest instance has "
                "the mean at least. Raise it"
            )
        if not 1 <= self.replication <= _MOST_PLACES:
            raise ConfigError(
                f"replication is {self.replication}; expected 1 to {_MOST_PLACES} places on the ring. Change it"
            )

    def pick(self) -> Pick:
        """Take the first on the ring; no two are equal."""
        return Pick(ties="first")

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the bound, the length of the beginning, and the ring of these instances."""
        ring = _ring(fleet.names, self.replication)
        return Parameters.of(self.mean_load_percent / 100.0, self.prefix_tokens, integers=ring)
