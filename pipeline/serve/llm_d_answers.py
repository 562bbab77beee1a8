"""Answers as llm-d's servers give them, and the one place where a wrong body becomes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lodestar.pipeline.serve.llm_d_bodies import faults

__all__ = ["NOT_READY", "NotReady", "answer", "in_time", "refusal", "safely"]

#: Larger bodies are read in a thread, so that other requests need not wait for their thousands of rows.
_INLINE_BYTES: Final = 64 * 1024
NOT_READY: Final = (
    "no trained model of ttft_ms for all kinds of instances is loaded that has what the objective asks for: "
    "ship one, or send rows to learn from"
)


class NotReady(Exception):
    """There is no trained model."""


def answer(value: Any, status: int = 200) -> Response:
    """Answer with JSON; what a client sent of infinity or NaN comes back as null, as JSON has neither."""
    return Response(to_json(value, inf_nan_mode="null"), status, media_type="application/json")


def refusal(status: int, detail: Any) -> Response:
    """Answer that it cannot be done, and why.

    >>> refusal(404, "Unknown model: tfft").body
    b'{"detail":"Unknown model: tfft"}'
    """
    return answer({"detail": detail}, status)


async def in_time(body: bytes, act: Callable[[bytes], Response]) -> Response:
    """Answer a body at once, or in a thread where it is long."""
    return safely(body, act) if len(body) <= _INLINE_BYTES else await run_in_threadpool(safely, body, act)


def safely(body: bytes, act: Callable[[bytes], Response]) -> Response:
    """Answer a body, or say what is wrong with it, or that there is no model to answer with."""
    try:
        return act(body)
    except ValidationError as error:
        return refusal(422, faults(error))
    except NotReady:
        return refusal(503, NOT_READY)
