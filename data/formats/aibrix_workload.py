"""The workloads of the AIBrix benchmark: JSON Lines of an arrival and the requests sent then, prompts in full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.aibrix.text_blocks import BLOCK_TOKENS, characters_per_block, prompt_text, text_blocks
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import Entry, Row, Zero, converted, entries, number, whole
from lodestar.data.reading import LINE, MOST_WHOLE, RECORD, Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

CLOCK: Final = "aibrix-workload"
START: Final = (b'"timestamp"', b'"requests"')
INNER: Final = (b'"Prompt Length"', b'"prompt"', b'"prompt_length"')
NANOSECONDS_PER_MS: Final = 1e6
MOST_MS: Final = 9e12


def sniff(head: bytes) -> bool:
    """Tell by the keys of the first record, which may be cut within its prompt."""
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0]
    return first.startswith(b"{") and all(key in first for key in START) and any(key in first for key in INNER)


def read(source: Source) -> Iterator[Reading]:
    """Read the requests, one row each; a line with several gives several, a line with none or a bad one is refused.

    `Prompt Length` is taken for the prompt's tokens and `Output Length` for the output's; blocks are chained hashes
    of the prompt's text, 16 tokens taken as a fixed number of characters by the ratio of both in the first part.
    """
    zero, characters, before = Zero(), 0, 0
    for found, bad in entries(source):
        characters = characters or characters_per_block(_lengths(found))
        parts, moved, before = _unfolded(found, bad, before)
        reading = converted(parts, partial(_row, zero=zero, characters=characters), moved)
        note = f"blocks are hashes of the prompt's text, {characters} characters taken as {BLOCK_TOKENS} tokens"
        yield replace(reading, clock=CLOCK, zero_s=zero.at_s, block_tokens=BLOCK_TOKENS, notes=(note,))


def _unfolded(found: list[Entry], bad: pl.DataFrame, before: int) -> tuple[list[Entry], pl.DataFrame, int]:
    """Make one entry a request; the numbers of what follows a line with several grow by as many as it has more."""
    parts: list[Entry] = []
    grown: list[tuple[int, int]] = [(0, before)]
    for line, _, value, raw in found:
        requests = value.get("requests")
        several = requests if isinstance(requests, list) and requests else [None]
        for place, request in enumerate(several):
            where = f"line {line}, request {place + 1}" if before or len(several) > 1 else None
            entry = {"timestamp": value.get("timestamp"), "request": request}
            parts.append(Entry(line + before + place, where, entry, raw))
        before += len(several) - 1
        grown.append((line, before))
    steps = pl.DataFrame(grown, schema={LINE: pl.Int64, "more": pl.Int64}, orient="row")
    # Where the number of a row is no longer that of its line, its record says the line.
    told = pl.when(pl.col("more") > 0).then(pl.format("line {}", LINE)).otherwise(RECORD).alias(RECORD)
    placed = bad.sort(LINE).join_asof(steps, on=LINE).with_columns(told)
    moved = placed.with_columns(pl.col(LINE) + pl.col("more")).drop("more")
    return parts, moved, before


def _row(value: dict[str, Any], zero: Zero, characters: int) -> Row:
    if not isinstance(value["request"], dict):
        raise Refused(Reason.MISSING, "requests holds no request")
    arrived_ms = number(value, "timestamp", required=True) or 0.0
    if abs(arrived_ms) > MOST_MS:
        raise Refused(Reason.OUT_OF_UNIT, f"timestamp is {arrived_ms:g}, expected milliseconds")
    request = {str(key).lower().replace("_", " "): item for key, item in value["request"].items()}
    prompt_tokens = whole(request, "prompt length", required=True) or 0
    prompt = prompt_text(request.get("prompt"))
    return {
        s.PROMPT_TOKENS: prompt_tokens,
        s.OUTPUT_TOKENS: whole(request, "output length"),
        s.BLOCK_IDS: None if prompt is None else text_blocks(prompt, characters, max(prompt_tokens, 0) // BLOCK_TOKENS),
        s.ARRIVED_AT_S: zero.seconds_since(round(arrived_ms * NANOSECONDS_PER_MS)),
    }


def _lengths(found: list[Entry]) -> Iterator[tuple[int, int]]:
    for entry in found:
        for request in entry.value.get("requests") or () if isinstance(entry.value.get("requests"), list) else ():
            prompt = prompt_text(request.get("prompt")) if isinstance(request, dict) else None
            tokens = request.get("Prompt Length") if prompt is not None else None
            if prompt is not None and isinstance(tokens, int) and 0 < tokens < MOST_WHOLE:
                yield len(prompt), tokens


FORMAT: Final = Format(
    name="aibrix-workload",
    description="AIBrix benchmark workload, JSON Lines of arrivals with their prompts",
    provides=("arrivals", "blocks"),
    sniff=sniff,
    read=read,
)
