"""Agent sessions as Weka's cache tester records them: a tree of requests a session, with 64-token blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Final

import numpy as np

from lodestar.data import schema as s
from lodestar.data.formats.agent_tree import Place, places
from lodestar.data.parsing.documents import documents, elements, object_of, shown, unread
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.moments import moment_ns
from lodestar.data.parsing.records import Zero, seconds_as_ms, text, whole
from lodestar.data.reading import Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

MARKS: Final = (b'"block_size"', b'"requests"', b'"hash_ids"')
CLOCK: Final = "weka"
PART: Final = 256  # requests at a time: their blocks take much more memory as rows than as text
SCOPES: Final = ("local", "global")
SIDE_BY_SIDE: Final = (
    "each session counts from its own start, and when that was is not logged: the sessions are laid side by side, as "
    "if all had started at once"
)
NO_SCOPE: Final = "hash_id_scope is missing: block ids are taken to be each session's own"
MODELS: Final = "requests to several models lie in one session; the tables do not tell them apart"
NESTED: Final = "requests of sub-agents"
RELATIVE: Final = "requests of sub-agents whose times count from their sub-agent's start"


@dataclass(frozen=True, slots=True)
class Session:
    """What the requests of a session share; `salt` is added to their block ids, modulo 2^64."""

    name: str | None
    block_tokens: int
    salt: int


def sniff(head: bytes) -> bool:
    """Tell by the keys of a session and of its first request."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and all(mark in head for mark in MARKS)


def read(source: Source) -> Iterator[Reading]:
    """Read sessions, one request a row, those of sub-agents at any depth too: a document, or one a line.

    A sub-agent's requests count their time from the session's start, or from the sub-agent's where one of them would
    else come before it. Block ids are told apart between sessions where they are local to one. Requests whose
    `hash_ids` do not fit their prompt are refused; a last block that is not full may be listed or not. A session
    without what its requests share, such as the size of a block, is one row, refused.
    """
    rows, first_tokens = 0, None
    for k, document in enumerate(documents(source), 1):
        try:
            if document.bad is not None:
                raise document.bad
            trace = object_of(document.value)
            session, every = _session(trace, first_tokens), list(places(trace))
        except Refused as error:
            rows += 1
            yield unread(document, error, rows, f"session {k}")
            continue
        first_tokens = first_tokens or session.block_tokens
        for start in range(0, len(every), PART):
            part = every[start : start + PART]
            yield elements(
                part,
                rows,
                partial(_title, k, part),
                partial(_row, session=session, zero=Zero(0)),
                attrgetter("request"),
                clock=CLOCK,
                block_tokens=session.block_tokens,
                notes=tuple(_notes(trace, every)),
                counted=_counted(part),
            )
            rows += len(part)


def _session(trace: dict[str, Any], first_tokens: int | None) -> Session:
    name, scope = text(trace, "id"), trace.get("hash_id_scope")
    block_tokens = whole(trace, "block_size", required=True) or 0
    if block_tokens < 1 or block_tokens != (first_tokens or block_tokens):
        told = "1 or more" if first_tokens is None else f"{first_tokens} as in the first session"
        raise Refused(Reason.WRONG_VALUE, f"block_size is {block_tokens}, expected {told}")
    if scope is not None and scope not in SCOPES:
        raise Refused(Reason.WRONG_VALUE, f"hash_id_scope is {shown(scope)[:80]}, expected {' or '.join(SCOPES)}")
    if not isinstance(trace.get("requests"), list):
        raise Refused(Reason.MISSING, "requests is no array")
    if scope != "global" and name is None:
        raise Refused(Reason.MISSING, "id is missing, by which the block ids of sessions are told apart")
    digest = hashlib.blake2b((name or "").encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return Session(name, block_tokens, 0 if scope == "global" else int.from_bytes(digest))


def _title(session: int, part: list[Place], number: int) -> str:
    return f"session {session}, {part[number - 1].path}"


def _row(place: Place, session: Session, zero: Zero) -> dict[str, Any]:
    request = object_of(place.request)
    if place.began_ns is None:
        raise Refused(Reason.MISSING, "t of its sub-agent is missing or no time, so when it came is not known")
    at_ns = place.began_ns + (moment_ns(request, "t", required=True) or 0)
    if at_ns < 0:
        raise Refused(Reason.BACKWARDS, f"t is {at_ns / 1e9:g} s, before the session's start")
    prompt_tokens = whole(request, "in", required=True) or 0
    return {
        s.SESSION_ID: session.name,
        s.ARRIVED_AT_S: zero.seconds_since(at_ns),
        s.PROMPT_TOKENS: prompt_tokens,
        s.OUTPUT_TOKENS: whole(request, "out"),
        s.BLOCK_IDS: _blocks(request, prompt_tokens, session),
        s.TTFT_MS: seconds_as_ms(request, "ttft"),
        s.E2E_MS: seconds_as_ms(request, "api_time"),
    }


def _blocks(request: dict[str, Any], prompt_tokens: int, session: Session) -> list[int] | None:
    ids = request.get("hash_ids")
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(type(each) is int and -(2**63) <= each < 2**63 for each in ids):
        raise Refused(Reason.WRONG_TYPE, f"hash_ids: {shown(ids)[:80]} is no array of 64-bit integers")
    full, partly = divmod(prompt_tokens, session.block_tokens)
    if not full <= len(ids) <= full + bool(partly):
        told = f"hash_ids lists {len(ids)} blocks of {session.block_tokens} tokens for a prompt of {prompt_tokens}"
        raise Refused(Reason.BLOCKS_UNFIT, told)
    # Addition modulo 2^64 keeps the ids of a session apart, and those of two sessions as far as their hashes are.
    salted = np.array(ids, dtype=np.int64).view(np.uint64) + np.uint64(session.salt)
    return list(salted.view(np.int64).tolist())


def _notes(trace: dict[str, Any], every: list[Place]) -> Iterator[str]:
    yield SIDE_BY_SIDE
    if trace.get("hash_id_scope") is None:
        yield NO_SCOPE
    models = {str(place.request.get("model")) for place in every if isinstance(place.request, dict)}
    if len(models) > 1:
        yield MODELS


def _counted(part: list[Place]) -> dict[str, int]:
    nested = sum(place.nested for place in part)
    relative = sum((place.began_ns or 0) > 0 for place in part)
    return {told: count for told, count in ((NESTED, nested), (RELATIVE, relative)) if count}


FORMAT: Final = Format(
    name="weka",
    description="agent sessions with nested sub-agents and prefix blocks, JSON (Weka cache tester)",
    provides=("arrivals", "blocks", "outcomes"),
    sniff=sniff,
    read=read,
)
