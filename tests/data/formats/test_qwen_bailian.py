"""Fixtures follow the documented record of the Qwen-Bailian traces: the traces themselves are not at hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lodestar.data import schema as s
from lodestar.data.formats import mooncake
from lodestar.data.formats.qwen_bailian import FORMAT, sniff
from readings import read_all

NAME = "qwen_traceA_blksz_16.jsonl"


def turn(chat: int, parent: int = -1, **facts: Any) -> str:
    made = {"chat_id": chat, "parent_chat_id": parent, "timestamp": 61.114, "input_length": 40, "output_length": 132}
    return json.dumps({**made, "type": "text", "turn": 1, "hash_ids": [7, 8, 9], **facts})


def test_times_are_seconds_and_blocks_hold_16_tokens() -> None:
    read = read_all(FORMAT, turn(159), NAME)
    row = read.rows.row(0, named=True)
    assert (row[s.ARRIVED_AT_S], row[s.PROMPT_TOKENS], row[s.OUTPUT_TOKENS]) == (61.114, 40, 132)
    assert (row[s.REQUEST_ID], row[s.BLOCK_IDS]) == ("159", [7, 8, 9])
    assert (read.block_tokens, read.clock, read.notes) == (16, "qwen-bailian", set())


def test_the_size_of_a_block_is_in_the_files_name_or_said_to_be_taken() -> None:
    assert read_all(FORMAT, turn(1, hash_ids=[7, 8]), "x_blksz_32.jsonl.gz").block_tokens == 32
    assert "16 tokens" in next(iter(read_all(FORMAT, turn(1), "trace.jsonl").notes))


def test_a_chain_of_turns_is_a_session_named_after_its_first() -> None:
    read = read_all(FORMAT, "\n".join([turn(5), turn(6, 5), turn(1), turn(7, 6)]), NAME)
    assert read.rows[s.SESSION_ID].to_list() == ["5", "5", "1", "5"]
    assert not read.counted


def test_a_refused_turn_still_links_those_that_follow_it() -> None:
    read = read_all(FORMAT, "\n".join([turn(5), turn(6, 5, hash_ids=[]), turn(7, 6)]), NAME)
    assert read.rows[s.SESSION_ID].to_list() == ["5", "5"]


def test_a_chain_that_starts_before_the_file_is_named_after_what_is_missing_and_counted() -> None:
    read = read_all(FORMAT, "\n".join([turn(6, 5), turn(7, 6), turn(8, 5)]), NAME)
    assert read.rows[s.SESSION_ID].to_list() == ["5", "5", "5"]
    assert list(read.counted.values()) == [1]


@pytest.mark.parametrize("ids", [[7, 8], [7, 8, 9]])
def test_a_last_block_that_is_not_full_may_be_listed_or_not(ids: list[int]) -> None:
    assert read_all(FORMAT, turn(1, hash_ids=ids), NAME).rows[s.BLOCK_IDS].to_list() == [ids]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (turn(2, hash_ids=[7]), "blocks-do-not-fit"),
        (turn(2, hash_ids=[7, 8, 9, 10]), "blocks-do-not-fit"),
        (turn(2, hash_ids=[7, 8, "x"]), "wrong-type"),
        (turn(2, input_length=40.5), "wrong-type"),
        (turn(2, timestamp=None), "missing-key"),
        ('{"chat_id": 2}', "missing-key"),
        (turn(2)[:-4], "bad-json"),
        (turn(2, timestamp=-9999), "sentinel"),
    ],
)
def test_a_broken_record_is_refused_with_its_reason(line: str, reason: str) -> None:
    read = read_all(FORMAT, f"{turn(1)}\n{line}", NAME)
    assert (read.rows["line"].to_list(), read.reasons) == ([1], {2: reason})


def test_it_is_not_taken_for_a_mooncake_trace_nor_the_other_way_round() -> None:
    assert sniff(turn(1).encode())
    assert not mooncake.sniff(turn(1).encode())
    assert not sniff(b'{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [0]}')
