"""What a policy's compiled functions look like: what they are given, and the one signature that all of them have.

One signature, so that a replay kernel that was compiled once takes any of them as a value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import LateFunction, jit_late

__all__ = [
    "DONE",
    "FIRST_TOKEN",
    "LEFT",
    "NOTICE",
    "RULE",
    "SENT",
    "Event",
    "Memory",
    "MemoryShape",
    "Notice",
    "Parameters",
    "Prefixes",
    "Request",
    "Rule",
    "no_notice",
    "notice_function",
    "rule_function",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SmallInts = NDArray[np.int32]

#: What a policy hears of. Every SENT is followed by one DONE, whatever becomes of the request; FIRST_TOKEN may come
#: between. Events of one instance between two decisions come in no particular order, each with its own time.
SENT, FIRST_TOKEN, DONE, LEFT = 0, 1, 2, 3


class Request(NamedTuple):
    """A request as a policy sees it.

    Attributes:
        index: its place in the stream of requests, from 0.
        now_s: the time of the decision, or of the event, on whatever clock the router has.
        prompt_tokens: length of the prompt.
        session: the conversation it belongs to, from 0; -1 if the request names none.
        path_from: its prefix nodes are ``prefixes.path[path_from:path_to]``, from the root outwards.
        path_to: see `path_from`.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks a request for
    now_s: float
    prompt_tokens: float
    session: int
    path_from: int
    path_to: int


class Prefixes(NamedTuple):
    """The prefixes of prompts as paths of nodes.

    A node is one block, or a run of blocks that always occur together. What comes after the last node of a path is the
    request's own: no other request shares it.

    Attributes:
        path: node ids, the paths of all requests one after the other.
        node_end: prompt tokens up to the end of each node.
    """

    path: SmallInts
    node_end: SmallInts


class Memory(NamedTuple):
    """A policy's own state, all zeros at first; how wide each array is says its `MemoryShape`.

    Attributes:
        numbers: shape (numbers,).
        of_instance: shape (m, of_instance).
        of_node: shape (nodes, of_node).
        of_pair: of a prefix node on an instance, shape (nodes, m, of_pair).
        of_request: shape (n, of_request).
    """

    numbers: Floats
    of_instance: Floats
    of_node: Floats
    of_pair: Floats
    of_request: Floats


class MemoryShape(NamedTuple):
    """How many numbers a policy keeps of what."""

    numbers: int = 0
    of_instance: int = 0
    of_node: int = 0
    of_pair: int = 0
    of_request: int = 0

    def memory(self, instances: int, nodes: int, requests: int) -> Memory:
        """Make room for it.

        >>> MemoryShape(of_instance=2).memory(instances=3, nodes=5, requests=100).of_instance.shape
        (3, 2)
        """
        return Memory(
            np.zeros(self.numbers),
            np.zeros((instances, self.of_instance)),
            np.zeros((nodes if self.of_node else 0, self.of_node)),
            np.zeros((nodes if self.of_pair else 0, instances, self.of_pair)),
            np.zeros((requests if self.of_request else 0, self.of_request)),
        )


class Parameters(NamedTuple):
    """A policy's settings as compiled code reads them.

    Attributes:
        values: the policy's own numbers.
        of_instance: numbers of each instance, shape (m, k).
        integers: whole numbers, such as the places of a hash ring, in any shape (rows, columns).
    """

    values: Floats
    of_instance: Floats
    integers: Ints

    @classmethod
    def of(cls, *values: float, of_instance: Floats | None = None, integers: Ints | None = None) -> Parameters:
        """Pack them."""
        return cls(
            np.array(values, dtype=np.float64),
            np.zeros((0, 0)) if of_instance is None else np.ascontiguousarray(of_instance, dtype=np.float64),
            np.zeros((0, 0), dtype=np.int64) if integers is None else np.ascontiguousarray(integers, dtype=np.int64),
        )


class Event(NamedTuple):
    """What a policy hears of a request it sent, or of an instance.

    Attributes:
        kind: SENT, FIRST_TOKEN, DONE; LEFT: the instance takes no more requests, and the request says nothing but when.
        hit_ratio: SENT: what the router believed cached of the prompt on the chosen instance.
        queue_s: DONE: time in the engine's queue; NaN where it never got that far or the router can't know.
        prefill_s: DONE: from the first step to the first token.
        decode_s: DONE: from the first token to the last.
        output_tokens: DONE: length of the answer; NaN where there was none.
    """

    kind: int
    hit_ratio: float
    queue_s: float
    prefill_s: float
    decode_s: float
    output_tokens: float


class Rule(Protocol):
    """What a policy thinks of every candidate. It changes nothing but `cost`."""

    def __call__(
        self,
        request: Request,
        snapshot: Floats,
        predicted_ms: Floats,
        candidates: Ints,
        prefixes: Prefixes,
        memory: Memory,
        parameters: Parameters,
        cost: Floats,
    ) -> None:
        """Fill `cost` (m,) of every candidate: lower is better.

        Args:
            request: to decide on.
            snapshot: what the router knows, shape (m, len(SNAPSHOT_FIELDS)), NaN where it does not.
            predicted_ms: TTFT and TPOT of the request on each instance, shape (m, 2); NaN unless the policy has a
                predictor.
            candidates: the instances to choose from, at least one, in the order in which the router lists them.
            prefixes: of prompts.
            memory: of the policy.
            parameters: of the policy.
            cost: inf on entry.
        """


class Notice(Protocol):
    """What a policy does as it hears of an event: it changes its memory."""

    def __call__(
        self,
        event: Event,
        request: Request,
        instance: int,
        prefixes: Prefixes,
        memory: Memory,
        parameters: Parameters,
    ) -> None:
        """Take note of what happened to a request on an instance; `request.now_s` says when."""


def _typeof(value: object) -> Any:
    return numba.typeof(value)


_PREFIXES: Final = _typeof(Prefixes(np.zeros(0, np.int32), np.zeros(0, np.int32)))
_MEMORY: Final = _typeof(MemoryShape().memory(1, 1, 1))
_PARAMETERS: Final = _typeof(Parameters.of())
_REQUEST: Final = _typeof(Request(0, 0.0, 0.0, 0, 0, 0))
_EVENT: Final = _typeof(Event(0, 0.0, 0.0, 0.0, 0.0, 0.0))
_MATRIX = numba.types.Array(numba.float64, 2, "C")
_VECTOR = numba.types.Array(numba.float64, 1, "C")
_INTS = numba.types.Array(numba.int64, 1, "C")

RULE: Final = numba.void(_REQUEST, _MATRIX, _MATRIX, _INTS, _PREFIXES, _MEMORY, _PARAMETERS, _VECTOR)
NOTICE: Final = numba.void(_EVENT, _REQUEST, numba.int64, _PREFIXES, _MEMORY, _PARAMETERS)


def rule_function(function: Callable[..., None]) -> LateFunction:
    """Compile a rule when it is first used; it allocates nothing."""
    return jit_late(RULE, function)


def notice_function(function: Callable[..., None]) -> LateFunction:
    """Compile a notice when it is first used; it allocates nothing."""
    return jit_late(NOTICE, function)


@notice_function
def no_notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    """Keep nothing."""
