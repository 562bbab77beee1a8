"""A stream in blocks: the same lines however it is cut, and none of them lost."""

from __future__ import annotations

import io
from collections.abc import Iterator

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestar.data.reading import no_rejects
from lodestar.data.sources.blocks import BOM, Block, blocks

PIECES = (
    *(b"", b"a", b"bb", b" ", b"\r", b"\r\n", b"\n", b"\n\n", b"x" * 9, b"x" * 10, b"x" * 11, b"x" * 40),
    *(b"\xff", b"\xc3", "é".encode(), "\u2028".encode(), "😀".encode(), b"\0", BOM, b"\xed\xa0\x80"),
)
MOST = 10
contents = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)


class Dripping(io.RawIOBase):
    """A stream that gives a byte at a time, as pipes may."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._content.read(1)
        buffer[: len(part)] = part
        return len(part)


def whole(found: Iterator[Block]) -> tuple[list[tuple[int, bytes]], list[tuple[int, str, str, str]]]:
    """Put blocks together: the lines with text, and the lines that were set aside."""
    lines: list[tuple[int, bytes]] = []
    aside = [no_rejects()]
    after = 1
    for block in found:
        assert block.first_line == after
        assert block.content.endswith(b"\n")
        lines += [(after + k, raw) for k, raw in enumerate(block.content.split(b"\n")[:-1]) if raw]
        aside.append(block.aside)
        after += block.rows
    return lines, pl.concat(aside).select("line", "reason", "detail", "raw").rows()


def expected(content: bytes) -> tuple[list[tuple[int, bytes]], dict[int, str]]:
    """Say the same by looking at each line on its own."""
    lines, aside = [], {}
    for number, raw in enumerate(content.removeprefix(BOM).split(b"\n"), 1):
        if len(raw) > MOST:
            aside[number] = "line-too-long"
        elif raw.decode(errors="replace").encode() != raw:
            aside[number] = "not-utf8"
        elif raw:
            lines.append((number, raw))
    return lines, aside


@settings(deadline=None, max_examples=300)
@given(contents, st.integers(1, 60))
def test_no_line_is_lost_however_a_stream_is_cut(content: bytes, size: int) -> None:
    lines, aside = whole(blocks(io.BytesIO(content), size, MOST))
    wanted, reasons = expected(content)
    assert lines == wanted
    assert {line: reason for line, reason, _, _ in aside} == reasons
    assert len(aside) == len(reasons)
    assert [line for line, *_ in aside] == sorted(reasons)


@settings(deadline=None, max_examples=200)
@given(contents, st.integers(1, 60), st.integers(1, 60))
def test_two_cuts_say_the_same_of_every_line(content: bytes, one: int, other: int) -> None:
    (lines, aside), (same_lines, same_aside) = (whole(blocks(io.BytesIO(content), size, MOST)) for size in (one, other))
    assert lines == same_lines
    # How much of a line that is too long is kept depends on the cut.
    assert [each[:2] for each in aside] == [each[:2] for each in same_aside]
    assert [each for each in aside if each[1] == "not-utf8"] == [each for each in same_aside if each[1] == "not-utf8"]


@settings(deadline=None)
@given(contents)
def test_a_stream_that_gives_little_at_a_time_is_read_whole(content: bytes) -> None:
    lines, aside = whole(blocks(io.BufferedReader(Dripping(content), 8), 16, MOST))
    wanted, reasons = expected(content)
    assert (lines, {line: reason for line, reason, *_ in aside}) == (wanted, reasons)


def test_the_text_of_what_is_set_aside_is_kept() -> None:
    _, aside = whole(blocks(io.BytesIO(b"ab\xff\n" + b"y" * 200_000), 64, 100_000))
    assert [(line, reason, len(raw)) for line, reason, _, raw in aside] == [
        (1, "not-utf8", len("ab\\xff")),
        (2, "line-too-long", 1 << 16),
    ]
    assert "200000 bytes, expected at most 100000" in aside[1][2]


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("before", [0, 1, 1000])
def test_the_longest_line_is_as_long_wherever_it_starts(over: int, before: int) -> None:
    content = b"a" * before + b"\n" + b"b" * (4096 + over) + b"\nc\n"
    lines, aside = whole(blocks(io.BytesIO(content), 1024, 4096))
    assert len(aside) == over
    assert lines[-1] == (3, b"c")


def test_every_line_of_a_block_may_be_broken() -> None:
    content = b"caf\xe9,1,2\n" * 20_000
    assert sum(len(block.aside) for block in blocks(io.BytesIO(content))) == 20_000
