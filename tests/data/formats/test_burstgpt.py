"""Fixtures follow the documented columns of BurstGPT's releases 1 and 2: the traces themselves are not at hand."""

from __future__ import annotations

import pytest

from lodestar.data import schema as s
from lodestar.data.formats.burstgpt import FORMAT, sniff
from readings import read_all

FIRST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
SECOND = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"


def test_the_first_release_has_arrivals_and_lengths() -> None:
    read = read_all(FORMAT, f"{FIRST}\n5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n")
    assert read.rows.select(s.ARRIVED_AT_S, s.PROMPT_TOKENS, s.OUTPUT_TOKENS).rows() == [(0, 472, 18), (40, 1087, 230)]
    assert (read.clock, read.zero_s) == ("burstgpt", 5.0)
    assert read.rows.select(s.SESSION_ID, s.E2E_MS).row(0) == (None, None)


def test_the_second_release_adds_sessions_and_durations() -> None:
    rows = "19440110.0,1722ac82-0a46,43,GPT-4,906,446,1352,Conversation log\n19440161.0,,2,ChatGPT,36,29,65,API log\n"
    read = read_all(FORMAT, f"{SECOND}\n{rows}")
    assert read.rows.select(s.SESSION_ID, s.E2E_MS).rows() == [("1722ac82-0a46", 43_000.0), (None, 2_000.0)]
    assert "durations are logged in whole seconds" in read.notes


def test_no_response_tokens_are_a_failure_which_is_kept_and_counted() -> None:
    read = read_all(
        FORMAT, f"{FIRST}\n5,ChatGPT,472,0,472,API log\n6,ChatGPT,472,9,481,API log\n7,GPT-4,0,0,0,API log\n"
    )
    assert read.rows.select(s.STATUS, s.OUTPUT_TOKENS).rows() == [("error", 0), ("ok", 9)]
    assert read.reasons == {4: "wrong-value"}
    assert list(read.counted.values()) == [1]


def test_what_the_trace_mixes_is_said() -> None:
    notes = " ".join(read_all(FORMAT, f"{FIRST}\n5,ChatGPT,472,18,490,API log\n").notes)
    assert "several models" in notes
    assert "time zone that is not named" in notes


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("5,ChatGPT,472,18,490", "field-count"),
        ("soon,ChatGPT,472,18,490,API log", "wrong-type"),
        ("5,ChatGPT,4.5,18,490,API log", "wrong-type"),
        ("nan,ChatGPT,472,18,490,API log", "not-finite"),
        ("5,ChatGPT,,18,490,API log", "missing-key"),
        (",ChatGPT,472,18,490,API log", "missing-key"),
        ("5,ChatGPT,472,-9999,490,API log", "sentinel"),
    ],
)
def test_a_broken_line_is_refused_with_its_reason(line: str, reason: str) -> None:
    read = read_all(FORMAT, f"{FIRST}\n5,ChatGPT,472,18,490,API log\n{line}\n")
    assert (read.rows["line"].to_list(), read.reasons) == ([2], {3: reason})


def test_it_is_known_by_its_columns() -> None:
    assert sniff(FIRST.encode())
    assert sniff(SECOND.encode() + b"\r\n")
    assert not sniff(b"TIMESTAMP,ContextTokens,GeneratedTokens\n")
