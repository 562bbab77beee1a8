"""AIBrix's ``session-affinity``: a conversation stays where it is, by a hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import LateFunction, jit_inner
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import Fleet, Policy

__all__ = ["SessionAffinity"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: FNV-1a with 64 bits, whose bits are kept in signed numbers.
_OFFSET: Final = 14695981039346656037 - 2**64
_PRIME: Final = 1099511628211
_SIGN: Final = -(2**63)
_DIGIT_0: Final = ord("0")
_PADDING: Final = -1


@jit_inner
def _mix(state: int, byte: int) -> int:
    return (state ^ byte) * _PRIME


@jit_inner
def _hash_number(number: int) -> int:
    """Hash a number as it is written in decimal."""
    power = 1
    while number // power >= 10:
        power *= 10
    state = _OFFSET
    while power > 0:
        state = _mix(state, _DIGIT_0 + number // power % 10)
        power //= 10
    return state


@jit_inner
def _hash_on(state: int, name: Ints) -> int:
    for byte in name:
        if byte != _PADDING:
            state = _mix(state, byte)
    return state


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
        cost[j] = 1.0
    if request.session < 0:
        return
    key = _mix(_hash_number(request.session), 0)
    best, winner = 0, -1
    for j in candidates:
        score = _hash_on(key, parameters.integers[j]) ^ _SIGN  # signed numbers in the order of the unsigned ones
        if winner < 0 or score > best:
            best, winner = score, j
    cost[winner] = 0.0


@dataclass(frozen=True, slots=True)
class SessionAffinity(Policy):
    """The candidate with the highest hash of session and instance; at random without a session.

    FNV-1a with 64 bits over the bytes of the session key, a zero byte and the instance's address: rendezvous hashing,
    so that only the sessions of an instance that leaves move, and only to one that joins. cost = 0 for that candidate,
    1 for all others, as AIBrix scores them.

    The session key is the request's session number written in decimal, and the address is the instance's name; where
    instances are named by ``ip:port`` and keys are such numbers, the choices are those of the gateway. Left out: the
    header in which a client without a key sends back the instance it was given; and that AIBrix since pull request 2742
    remembers where it sent a session for an hour, so that it stays when an instance joins.

    Source: AIBrix ``pkg/plugins/gateway/algorithms``, ``session-affinity`` as of pull request 2485.
    """

    name: ClassVar[str] = "session-affinity"
    needs_sessions: ClassVar[bool] = True
    rule: ClassVar[LateFunction] = _rule

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the bytes of the instances' names, a row each."""
        names = [name.encode() for name in fleet.names]
        rows = np.full((len(names), max(map(len, names), default=0)), _PADDING, dtype=np.int64)
        for row, name in zip(rows, names, strict=True):
            row[: len(name)] = list(name)
        return Parameters.of(integers=rows)
