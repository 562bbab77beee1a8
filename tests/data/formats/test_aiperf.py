from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lodestar.data import schema as s
from lodestar.data.formats.aiperf import FORMAT, sniff
from readings import read_all

SAMPLE = "aiperf/profile_export.jsonl.gz"


def record(metadata: dict[str, Any] | None = None, error: Any = None, **metrics: Any) -> str:
    """A record as the current documentation shows it."""
    made = {
        "input_sequence_length": {"value": 550, "unit": "tokens"},
        "output_sequence_length": {"value": 9, "unit": "tokens"},
        "time_to_first_token": {"value": 255.5, "unit": "ms"},
        "inter_token_latency": {"value": 5.25, "unit": "ms"},
        "request_latency": {"value": 297.5, "unit": "ms"},
    }
    head = {
        "x_request_id": "r1",
        "x_correlation_id": "s1",
        "conversation_id": "c1",
        "request_start_ns": 1759813207532900363,
        "request_end_ns": 1759813207838764604,
        "record_processor_id": "p",
        "benchmark_phase": "profiling",
        "was_cancelled": False,
    }
    kept = {name: value for name, value in {**made, **metrics}.items() if value is not None}
    return json.dumps({"metadata": {**head, **(metadata or {})}, "metrics": kept, "error": error})


def test_every_request_of_the_sample_is_stored_or_refused(traces: Path) -> None:
    read = read_all(FORMAT, traces / SAMPLE)
    assert (read.lines, len(read.rows), len(read.rejects)) == (100, 89, 11)
    assert set(read.rejects["reason"]) == {"missing-key"}
    assert "no prompt length for a request that was cancelled" in read.rejects["detail"][0]


def test_latencies_of_the_sample_agree_with_its_time_stamps_and_chunks(traces: Path) -> None:
    read = read_all(FORMAT, traces / SAMPLE)
    lines = [json.loads(line) for line in gzip.decompress((traces / SAMPLE).read_bytes()).splitlines()]
    for row in read.rows.iter_rows(named=True):
        metrics = {name: each["value"] for name, each in lines[row["line"] - 1]["metrics"].items()}
        span_ms = (metrics["max_response_timestamp"] - metrics["min_request_timestamp"]) / 1e6
        assert row[s.E2E_MS] == pytest.approx(span_ms)
        assert row[s.TTFT_MS] + sum(metrics["inter_chunk_latency"]) == pytest.approx(span_ms)
        assert row[s.TPOT_MS] == pytest.approx((span_ms - row[s.TTFT_MS]) / (row[s.OUTPUT_TOKENS] - 1))


def test_times_of_the_sample_are_unix_and_exact_to_the_nanosecond(traces: Path) -> None:
    read = read_all(FORMAT, traces / SAMPLE)
    assert read.clock == "unix"
    assert read.zero_s == pytest.approx(1759522419.15483, abs=1e-4)
    stamps = [
        json.loads(line)["metadata"]["timestamp_ns"]
        for line in gzip.decompress((traces / SAMPLE).read_bytes()).splitlines()
    ]
    first, last = read.rows["line"][0], read.rows["line"][-1]
    apart = read.rows[s.ARRIVED_AT_S][-1] - read.rows[s.ARRIVED_AT_S][0]
    assert round(apart * 1e9) == stamps[last - 1] - stamps[first - 1]


@pytest.mark.parametrize(("value", "unit"), [(0.25, "s"), (0.25, "sec"), (250, "ms"), (250_000, "us"), (25e7, "ns")])
def test_a_latency_is_read_in_its_unit(value: float, unit: str) -> None:
    read = read_all(FORMAT, record(time_to_first_token={"value": value, "unit": unit}))
    assert read.rows[s.TTFT_MS][0] == pytest.approx(250)


def test_names_of_older_builds_are_known() -> None:
    old = record(
        {"request_start_ns": None, "timestamp_ns": 5}, time_to_first_token=None, ttft={"value": 7, "unit": "ms"}
    )
    assert read_all(FORMAT, old).rows.select(s.TTFT_MS, s.ARRIVED_AT_S).row(0) == (7.0, 0.0)


def test_a_session_is_one_users_and_not_the_prompts_that_it_took() -> None:
    rows = read_all(FORMAT, record()).rows
    assert rows.select(s.REQUEST_ID, s.SESSION_ID).row(0) == ("r1", "s1")
    assert read_all(FORMAT, record({"x_correlation_id": None})).rows[s.SESSION_ID][0] == "c1"


@pytest.mark.parametrize(
    ("metadata", "error", "status"),
    [
        ({}, None, "ok"),
        ({}, {"code": 500, "type": "ServerError"}, "error"),
        ({}, {"code": 499, "type": "RequestCancellationError"}, "cancelled"),
        ({"was_cancelled": True}, None, "cancelled"),
    ],
)
def test_the_status_tells_cancelled_from_failed(metadata: dict[str, Any], error: Any, status: str) -> None:
    nothing = dict.fromkeys(("input_sequence_length", "time_to_first_token", "request_latency"))
    read = read_all(FORMAT, record(metadata, error, error_isl={"value": 550, "unit": "tokens"}, **nothing))
    assert read.rows.select(s.STATUS, s.PROMPT_TOKENS, s.E2E_MS).row(0) == (status, 550, None)


def test_requests_of_the_warm_up_are_kept_and_counted() -> None:
    read = read_all(FORMAT, "\n".join([record({"benchmark_phase": "warmup"}), record({"credit_phase": "x"})]))
    assert (len(read.rows), read.counted["requests of the warm-up, kept"]) == (2, 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (record(time_to_first_token={"value": 1, "unit": "fortnights"}), "wrong-value"),
        (record(time_to_first_token={"value": 1}), "wrong-value"),
        (record(output_sequence_length={"value": 9, "unit": "words"}), "wrong-value"),
        (record(output_sequence_length={"value": 9.5, "unit": "tokens"}), "wrong-type"),
        (record(request_latency=12), "wrong-type"),
        (record({"request_end_ns": 5}), "time-backwards"),
        (record({"request_start_ns": None}), "missing-key"),
        (record({"request_start_ns": 1e30}), "unit-out-of-range"),
        (record(request_latency={"value": -1, "unit": "ms"}), "negative-latency"),
        ('{"metadata": {}, ', "bad-json"),
    ],
)
def test_a_broken_record_is_refused_with_its_reason(line: str, reason: str) -> None:
    read = read_all(FORMAT, f"{record()}\n{line}")
    assert (read.rows["line"].to_list(), read.reasons) == ([1], {2: reason})


def test_it_is_known_by_the_keys_of_its_records() -> None:
    assert sniff(record().encode() + b"\n{")
    assert not sniff(b'{"metadata": {}, "metrics": {}}')
