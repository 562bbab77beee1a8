"""How a replay tells a policy what happens to the requests that it sent."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lodestar.data.jit import jit_inner, jit_part
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
    LEFT,
    SENT,
    Event,
    Memory,
    Notice,
    Parameters,
    Prefixes,
    Request,
)
from lodestar.pipeline.replay.state import State

__all__ = ["Listener", "seen", "tell", "tell_left"]

#: Small numbers of records, as the signature of a notice has them.
_wide: Any = np.int64


class Listener(NamedTuple):
    """A policy that hears of events.

    Attributes:
        listens: whether it wants to.
        notice: what to tell.
        prefixes: of the workload.
        memory: of the policy.
        parameters: of the policy.
    """

    listens: bool
    notice: Notice
    prefixes: Prefixes
    memory: Memory
    parameters: Parameters


@jit_inner
def seen(state: State, i: int, now_s: float) -> Request:
    """Return request i as a policy sees it."""
    request = state.requests[i]
    return Request(
        _wide(i),
        now_s,
        float(request.prompt_tokens),
        _wide(state.session[i]),
        _wide(request.path_from),
        _wide(request.path_to),
    )


@jit_inner
def tell(state: State, listener: Listener, kind: int, i: int, j: int, at_s: float, hit_ratio: float) -> None:
    """Tell a policy that listens of request i on instance j; what is not over by `at_s` has no times yet."""
    if listener.listens:
        _tell(state, listener, kind, i, j, at_s, hit_ratio)


@jit_part
def _tell(state: State, listener: Listener, kind: int, i: int, j: int, at_s: float, hit_ratio: float) -> None:
    request = state.requests[i]
    queue_s, prefill_s, decode_s, output_tokens = np.nan, np.nan, np.nan, np.nan
    if kind == DONE and request.finished_s <= at_s:
        queue_s = request.started_s - request.entered_s
        prefill_s = request.first_token_s - request.started_s
        decode_s = request.finished_s - request.first_token_s
        output_tokens = float(request.output_tokens)
    event = Event(_wide(kind), hit_ratio if kind == SENT else np.nan, queue_s, prefill_s, decode_s, output_tokens)
    listener.notice(event, seen(state, i, at_s), _wide(j), listener.prefixes, listener.memory, listener.parameters)


@jit_part
def tell_left(listener: Listener, j: int, at_s: float) -> None:
    """Tell that instance j takes no more requests."""
    if not listener.listens:
        return
    event = Event(LEFT, np.nan, np.nan, np.nan, np.nan, np.nan)
    nobody = Request(-1, at_s, np.nan, -1, 0, 0)
    listener.notice(event, nobody, _wide(j), listener.prefixes, listener.memory, listener.parameters)
