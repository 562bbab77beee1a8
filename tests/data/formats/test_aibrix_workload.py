from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lodestar.data import schema as s
from lodestar.data.formats.aibrix_workload import FORMAT, sniff
from readings import read_all

SAMPLE = "aibrix/workload.jsonl.gz"


def line(timestamp: Any, *requests: Any) -> str:
    return json.dumps({"timestamp": timestamp, "requests": list(requests)}) + "\n"


def request(prompt: str = "abc", tokens: Any = 32) -> dict[str, Any]:
    return {"Prompt Length": tokens, "Output Length": 8, "prompt": prompt}


def test_the_sample_gives_320_arrivals_in_seconds(traces: Path) -> None:
    read = read_all(FORMAT, traces / SAMPLE)
    first = json.loads(gzip.decompress((traces / SAMPLE).read_bytes()).splitlines()[0])
    assert (read.lines, len(read.rows), read.clock) == (320, 320, "aibrix-workload")
    assert read.zero_s == first["timestamp"] / 1e3
    assert read.rows[s.ARRIVED_AT_S].to_list()[:3] == pytest.approx([0.0, 0.126, 0.218])
    assert read.rows[s.PROMPT_TOKENS][0] == first["requests"][0]["Prompt Length"]


def test_ten_prefixes_of_32_requests_come_out(traces: Path) -> None:
    blocks = read_all(FORMAT, traces / SAMPLE).rows[s.BLOCK_IDS]
    starts = blocks.list.first().value_counts()["count"].to_list()
    assert starts == [32] * 10


def test_a_line_with_several_requests_gives_several_rows_with_their_place() -> None:
    read = read_all(FORMAT, line(0, request(), request()) + "{\n" + line(5, request()) + line(9))
    assert read.rows["line"].to_list() == [1, 2, 4]
    assert read.rows["record"].to_list() == ["line 1, request 1", "line 1, request 2", "line 3, request 1"]
    assert read.rows[s.ARRIVED_AT_S].to_list() == [0.0, 0.0, 0.005]
    assert read.reasons == {3: "bad-json", 5: "missing-key"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (line(None, request()), "missing-key"),
        (line("x", request()), "wrong-type"),
        (line(0, request(tokens=None)), "missing-key"),
        (line(0, 7), "missing-key"),
        (line(1e308, request()), "unit-out-of-range"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(text: str, reason: str) -> None:
    assert read_all(FORMAT, line(0, request()) + text).reasons == {2: reason}


def test_it_knows_its_own(traces: Path) -> None:
    assert sniff(gzip.decompress((traces / SAMPLE).read_bytes())[: 1 << 18])
    assert not sniff(b'{"timestamp": 1, "requests": 3}\n')
