"""Dynamo's request trace ``dynamo.request.trace.v1``: JSON Lines, bare or as its file sink wraps them in ``event``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import Entry, Zero, converted, entries, number, text, whole
from lodestar.data.reading import Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

SCHEMA: Final = "dynamo.request.trace.v1"
REQUEST_END: Final = "request_end"
OTHER_EVENTS: Final = ("request_payload", "tool_start", "tool_end", "tool_error")
FINISHED: Final = ("stop", "length", "eos", "tool_calls", "function_call", "content_filter")
MS: Final = 10**6  # in nanoseconds
U64: Final = 1 << 64
NOTES: Final = (
    "queue_ms is Dynamo's prefill_wait_time_ms, from the request's receipt to the start of its prefill",
    "cached_tokens are what Dynamo recorded first: the router's estimate by whole blocks, or the engine's count",
    "the candidate workers are not logged; kv_hit_rate and queue_depth, which tell of the chosen one alone, are not "
    "stored",
)


@dataclass(slots=True)
class Trace:
    """What is known of a whole trace while its lines are read: its start, its block size, and what was counted."""

    zero: Zero = field(default_factory=Zero)
    block_tokens: int | None = None
    counted: Counter[str] = field(default_factory=Counter)


def sniff(head: bytes) -> bool:
    """Tell by the schema that each record names."""
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0]
    return first.startswith(b"{") and f'"{SCHEMA}"'.encode() in first


def read(source: Source) -> Iterator[Reading]:
    """Read the trace; a row is a ``request_end``, while payload and tool events are counted.

    The instance is the worker that did the prefill, where the prefix cache counts, and the decode worker where no
    other is logged; a rank of data parallelism is an instance of its own. Block hashes are unsigned: they are stored
    as the signed number of the same 64 bits.
    """
    trace = Trace()
    for found, bad in entries(source):
        trace.counted.clear()
        ends = [entry for entry in found if not _is_other(entry, trace.counted)]
        reading = converted(ends, lambda line: _row(line, trace), bad, version=SCHEMA, notes=NOTES)
        yield replace(
            reading,
            clock=None if trace.zero.at_ns is None else "unix",
            zero_s=trace.zero.at_s,
            block_tokens=trace.block_tokens,
            counted=dict(trace.counted),
        )


def _event(line: dict[str, Any]) -> dict[str, Any]:
    event = line.get("event")
    return event if isinstance(event, dict) else line


def _is_other(entry: Entry, counted: Counter[str]) -> bool:
    event = _event(entry.value)
    kind = event.get("event_type")
    other = event.get("schema") == SCHEMA and kind in OTHER_EVENTS
    if other:
        counted[f"{kind} events, which are no requests"] += 1
    return other


def _row(line: dict[str, Any], trace: Trace) -> dict[str, Any]:
    event = _event(line)
    _require(event, "schema", SCHEMA)
    _require(event, "event_type", REQUEST_END)
    request_id = text(event, "request.request_id", required=True)
    received_ms = whole(event, "request.request_received_ms", required=True) or 0
    if received_ms <= 0:
        raise Refused(Reason.WRONG_VALUE, f"request.request_received_ms is {received_ms}, expected Unix time")
    _hit_rate(event)
    tokens, blocks = _prompt(event, trace)
    row = {
        s.REQUEST_ID: request_id,
        s.PROMPT_TOKENS: tokens,
        s.OUTPUT_TOKENS: whole(event, "request.output_tokens"),
        s.CACHED_TOKENS: whole(event, "request.cached_tokens"),
        s.BLOCK_IDS: blocks,
        s.SESSION_ID: text(event, "agent_context.session_id"),
        s.TTFT_MS: number(event, "request.ttft_ms"),
        s.E2E_MS: number(event, "request.total_time_ms"),
        s.TPOT_MS: number(event, "request.avg_itl_ms"),
        s.QUEUE_MS: number(event, "request.prefill_wait_time_ms"),
        s.PREFILL_MS: number(event, "request.prefill_time_ms"),
        s.STATUS: _status(event),
        s.INSTANCE: _instance(event, trace.counted),
    }
    return {**row, s.ARRIVED_AT_S: trace.zero.seconds_since(received_ms * MS)}


def _require(event: dict[str, Any], key: str, expected: str) -> None:
    value = text(event, key, required=True)
    if value != expected:
        raise Refused(Reason.WRONG_VALUE, f"{key} is {(value or '')[:80]!r}, expected {expected!r}")


def _hit_rate(event: dict[str, Any]) -> None:
    rate = number(event, "request.kv_hit_rate")
    if rate is not None and not 0 <= rate <= 1:
        raise Refused(Reason.OUT_OF_UNIT, f"request.kv_hit_rate is {rate:g}, expected 0-1")


def _prompt(event: dict[str, Any], trace: Trace) -> tuple[int, list[int] | None]:
    """Return the prompt's tokens and blocks; where blocks are logged, their own length counts."""
    told = whole(event, "request.input_tokens")
    length = whole(event, "request.replay.input_length")
    hashes = (event["request"].get("replay") or {}).get("input_sequence_hashes")
    if length is None and told is None:
        raise Refused(Reason.MISSING, "request.input_tokens and request.replay.input_length are missing")
    if length is None or hashes is None:
        return (told if told is not None else length) or 0, None
    if told is not None and told != length:
        trace.counted["requests whose input_tokens differ from replay.input_length: the latter is taken"] += 1
    return length, _blocks(event, hashes, length, trace)


def _blocks(event: dict[str, Any], hashes: Any, length: int, trace: Trace) -> list[int]:
    size = whole(event, "request.replay.trace_block_size", required=True) or 0
    expected = size if trace.block_tokens is None else trace.block_tokens
    if size < 1 or size != expected:
        wanted = "1 or more" if size < 1 else f"{expected} as in the first request"
        raise Refused(Reason.BLOCKS_UNFIT, f"request.replay.trace_block_size is {size}, expected {wanted}")
    if not isinstance(hashes, list):
        raise Refused(Reason.WRONG_TYPE, "request.replay.input_sequence_hashes is no list")
    wrong = next((one for one in hashes if type(one) is not int or not 0 <= one < U64), None)
    if wrong is not None or None in hashes:
        raise Refused(Reason.WRONG_VALUE, f"request.replay.input_sequence_hashes: {str(wrong)[:80]} is no 64-bit hash")
    if len(hashes) != -(-length // size):
        told = f"{len(hashes)} blocks for {length} tokens, expected {-(-length // size)} of {size} tokens"
        raise Refused(Reason.BLOCKS_UNFIT, f"request.replay.input_sequence_hashes lists {told}")
    trace.block_tokens = size
    return [one - U64 if one >= U64 // 2 else one for one in hashes]


def _instance(event: dict[str, Any], counted: Counter[str]) -> str | None:
    prefill, decode = (_worker(event, role) for role in ("prefill", "decode"))
    if prefill is not None and decode is not None and prefill != decode:
        counted["requests decoded by another worker than the one that did the prefill, which is the instance"] += 1
    return prefill or decode


def _worker(event: dict[str, Any], role: str) -> str | None:
    # Ids are leases of up to 64 bits, so they are names and never numbers.
    worker = text(event, f"request.worker.{role}_worker_id")
    rank = whole(event, f"request.worker.{role}_dp_rank")
    return worker if worker is None or rank is None else f"{worker}/dp{rank}"


def _status(event: dict[str, Any]) -> str | None:
    path = "request.finish_reason_metadata"
    reason = text(event, f"{path}.backend_finish_reason") or text(event, f"{path}.finish_reason")
    if reason is None:
        return None
    word = reason.lower()
    if word.startswith(("cancel", "abort")):
        return "cancelled"
    return "error" if word.startswith("error") else "ok" if word in FINISHED else None


FORMAT: Final = Format(
    name="dynamo",
    description="NVIDIA Dynamo's request trace, JSON Lines, one event a line",
    provides=("arrivals", "blocks", "decisions", "outcomes"),
    sniff=sniff,
    read=read,
    sample="the documented schema",
)
