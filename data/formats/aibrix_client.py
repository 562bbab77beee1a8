"""The output of the AIBrix benchmark client, JSON Lines of one request each, joined to the gateway's log beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.aibrix.common import GatewayLog, GatewayRequest
from lodestar.data.aibrix.join import Joined, join
from lodestar.data.aibrix.pairing import Span
from lodestar.data.aibrix.text_blocks import BLOCK_TOKENS, characters_per_block, prompt_text, text_blocks, text_id
from lodestar.data.formats.aibrix_gateway import CLOCK as CLOCK_OF_GATEWAY
from lodestar.data.formats.aibrix_gateway import facts_of, gateway_log
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.moments import MONOTONIC, moment_ns
from lodestar.data.parsing.records import Entry, Row, Zero, converted, entries, number, seconds_as_ms, text, whole
from lodestar.data.reading import (
    CANDIDATE_COLUMNS,
    LINE,
    MOST_WHOLE,
    ROW_COLUMNS,
    Format,
    Reading,
    rejects_of,
)
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

CLOCK: Final = "aibrix-client"
KEYS: Final = (b'"request_id"', b'"status"', b'"input"', b'"prompt_tokens"', b'"start_time"', b'"end_time"', b'"ttft"')
CUT: Final = re.compile(rb'\{"request_id": \d+, "status": "\w+", "input": ')
STATUS: Final = {"success": "ok", "error": "error"}
NANOSECONDS: Final = 1e9
SAME_S: Final = 1e-6
NO_BLOCKS: Final = 1 << 40  # characters in a block that no prompt fills
NOT_JOINED: Final = Joined({}, (), None, False, ())


def sniff(head: bytes) -> bool:
    """Tell by the keys of the first record, or by its start where it does not fit."""
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)
    return (first[0].startswith(b"{") and all(key in first[0] for key in KEYS)) or (
        len(first) == 1 and CUT.match(first[0]) is not None
    )


def read(source: Source) -> Iterator[Reading]:
    """Read the requests by the client's own clock; beside gateway logs, by theirs, with what they say of each.

    Blocks are chained hashes of the prompt's text. 16 tokens are taken as a fixed number of characters, by the ratio
    of both in the first part: two prompts share their leading blocks exactly as far as their texts are equal.
    """
    logs = [gateway_log(each) for each in source.companions]
    joined = join(_spans(source), logs) if logs else NOT_JOINED
    zero, characters = Zero(), 0
    for found, bad in entries(source):
        characters = characters or characters_per_block(_lengths(found))
        reading = converted(found, partial(_row, characters=characters), bad)
        yield _decided(reading, joined, zero, characters)
    for partner, (log, requests) in enumerate(zip(logs, joined.unmatched, strict=True), 1):
        yield _partner(partner, log, requests)


def _row(value: dict[str, Any], characters: int) -> Row:
    status = text(value, "status", required=True) or ""
    if status not in STATUS:
        raise Refused(Reason.WRONG_VALUE, f"status: {status!r:.80} is none of {', '.join(STATUS)}")
    prompt_tokens = whole(value, "prompt_tokens", required=True) or 0
    prompt = prompt_text(value.get("input"))
    return {
        s.REQUEST_ID: text(value, "request_id", required=True),
        s.ARRIVED_AT_S: (moment_ns(value, "start_time", required=True) or 0) / NANOSECONDS,
        s.PROMPT_TOKENS: prompt_tokens,
        s.OUTPUT_TOKENS: whole(value, "output_tokens"),
        s.BLOCK_IDS: None if prompt is None else text_blocks(prompt, characters, max(prompt_tokens, 0) // BLOCK_TOKENS),
        s.STATUS: STATUS[status],
        s.TTFT_MS: seconds_as_ms(value, "ttft"),
        s.TPOT_MS: _tpot_ms(value),
        s.E2E_MS: seconds_as_ms(value, "latency"),
    }


def _tpot_ms(value: dict[str, Any]) -> float | None:
    """Return the TPOT; where it was taken over all output tokens, over those after the first, as everywhere here."""
    tpot_s, tokens = number(value, "tpot"), whole(value, "output_tokens")
    ttft_s, e2e_s = number(value, "ttft"), number(value, "latency")
    if tpot_s is None:
        return None
    if tokens is not None and tokens > 1 and ttft_s is not None and e2e_s is not None:
        decode_s = e2e_s - ttft_s
        if abs(tpot_s * tokens - decode_s) <= SAME_S:
            return 1e3 * decode_s / (tokens - 1)
    return 1e3 * tpot_s


def _lengths(found: list[Entry]) -> Iterator[tuple[int, int]]:
    for entry in found:
        prompt, tokens = prompt_text(entry.value.get("input")), entry.value.get("prompt_tokens")
        if prompt is not None and isinstance(tokens, int) and 0 < tokens < MOST_WHOLE:
            yield len(prompt), tokens


def _spans(source: Source) -> dict[int, Span]:
    """Read once for the times and token counts alone, since a join needs all of them before the first row."""
    spans = {}
    for found, _ in entries(source):
        marks = {each.number: prompt_text(each.value.get("input")) for each in found}
        rows = converted(found, partial(_row, characters=NO_BLOCKS)).rows
        columns = (LINE, s.PROMPT_TOKENS, s.OUTPUT_TOKENS, s.ARRIVED_AT_S, s.TTFT_MS, s.E2E_MS)
        for line, prompt, output, start_s, ttft_ms, e2e_ms in rows.select(columns).iter_rows():
            mark, first_s = marks[line], None if ttft_ms is None else start_s + ttft_ms / 1e3
            if e2e_ms is not None:
                known = None if mark is None else text_id(mark)
                spans[line] = Span((prompt, output), start_s, first_s, start_s + e2e_ms / 1e3, known)
    # What could not be read is counted when the rows are.
    source.aside.clear()
    return spans


def _decided(reading: Reading, joined: Joined, zero: Zero, characters: int) -> Reading:
    """Give the rows their decisions, and count their arrivals from the first."""
    offset_s = joined.offset_s or 0.0
    rows, candidates = [], []
    for row in reading.rows.iter_rows(named=True):
        request = joined.of_line.get(row[LINE])
        row[s.ARRIVED_AT_S] = zero.seconds_since(_nanoseconds(row[s.ARRIVED_AT_S] + offset_s))
        if request is not None:
            row |= {name: request.fields.get(name) for name in (s.POLICY, s.INSTANCE)}
            known = request.decision.candidates if request.decision else []
            candidates += [{**each, LINE: row[LINE]} for each in known]
        rows.append(row)
    joined_clock = "unix" if joined.unix else CLOCK_OF_GATEWAY
    return replace(
        reading,
        rows=pl.DataFrame(rows, schema=dict(ROW_COLUMNS)),
        candidates=pl.DataFrame(candidates, schema=dict(CANDIDATE_COLUMNS)),
        clock=CLOCK if joined.offset_s is None else joined_clock,
        zero_s=zero.at_s,
        block_tokens=BLOCK_TOKENS,
        notes=(
            f"blocks are hashes of the prompt's text, {characters} characters taken as {BLOCK_TOKENS} tokens",
            "TPOT that was logged as decode time / all output tokens is stored as decode time / those after the first",
            *(joined.notes if joined.offset_s is not None else (*joined.notes, MONOTONIC)),
        ),
    )


def _nanoseconds(seconds: float) -> int:
    return round(seconds * NANOSECONDS)


def _partner(partner: int, log: GatewayLog, requests: Sequence[GatewayRequest]) -> Reading:
    """Account for the rows of a gateway log: those that are a client's, and those that are not."""
    details = [
        f"request {each.request_id}: the client's log has no row that must be this one"
        if each.ended_us is not None
        else f"request {each.request_id} began and no line tells of its end, so that no row can be compared"
        for each in requests
    ]
    return Reading(
        lines=len(log.finished),
        rejects=rejects_of(
            [each.line for each in requests],
            Reason.NO_PARTNER,
            details,
            [each.raw for each in requests],
            [f"request {each.request_id}" for each in requests],
        ),
        notes=facts_of(log),
        counted={"lines that tell of no request or decision": log.others},
        partner=partner,
    )


FORMAT: Final = Format(
    name="aibrix-client",
    description="AIBrix benchmark client output, JSON Lines; joined to the gateway log where that is named too",
    provides=("arrivals", "blocks", "decisions", "candidates", "propensities", "outcomes"),
    sniff=sniff,
    read=read,
    companions=("aibrix-gateway",),
)
