"""Dynamo's request trace. No log of it is at hand: the records are made from the schema in Dynamo's own source."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings

from engine_logs import broken
from lodestar.data.formats.dynamo import FORMAT
from readings import read_all

RECORD: dict[str, Any] = {
    "schema": "dynamo.request.trace.v1",
    "event_type": "request_end",
    "event_time_unix_ms": 1_780_000_001_250,
    "event_source": "dynamo",
    "agent_context": {"session_id": "run-42", "parent_session_id": "run-41"},
    "request": {
        "request_id": "req-1",
        "model": "m",
        "input_tokens": 35,
        "output_tokens": 11,
        "cached_tokens": 32,
        "request_received_ms": 1_780_000_000_000,
        "prefill_wait_time_ms": 4.5,
        "prefill_time_ms": 45.5,
        "ttft_ms": 50.0,
        "total_time_ms": 1250.0,
        "avg_itl_ms": 120.0,
        "kv_hit_rate": 0.66,
        "queue_depth": 2,
        "worker": {"prefill_worker_id": 7587890434912345678, "prefill_dp_rank": 0, "decode_worker_id": 12},
        "replay": {"trace_block_size": 16, "input_length": 35, "input_sequence_hashes": [1, 2**63 - 1, 2**64 - 1]},
        "finish_reason_metadata": {"finish_reason": "stop"},
    },
}


def with_(**changes: Any) -> dict[str, Any]:
    record = copy.deepcopy(RECORD)
    record["request"] |= changes
    return record


def lines_of(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_request_is_read_with_its_units() -> None:
    row = read_all(FORMAT, lines_of(RECORD)).rows.row(0, named=True)
    told = {name: value for name, value in row.items() if value is not None}
    assert told == {
        "line": 1,
        "request_id": "req-1",
        "arrived_at_s": 0.0,
        "prompt_tokens": 35,
        "output_tokens": 11,
        "block_ids": [1, 2**63 - 1, -1],
        "session_id": "run-42",
        "instance": "7587890434912345678/dp0",
        "ttft_ms": 50.0,
        "tpot_ms": 120.0,
        "e2e_ms": 1250.0,
        "queue_ms": 4.5,
        "prefill_ms": 45.5,
        "cached_tokens": 32,
        "status": "ok",
    }


def test_arrivals_are_unix_milliseconds_from_the_first() -> None:
    read = read_all(FORMAT, lines_of(RECORD, with_(request_id="b", request_received_ms=1_780_000_000_250)))
    assert (read.clock, read.zero_s, read.rows["arrived_at_s"].to_list()) == ("unix", 1.78e9, [0.0, 0.25])
    assert (read.block_tokens, read.version) == (16, "dynamo.request.trace.v1")


def test_the_envelope_of_the_file_sink_is_taken_off() -> None:
    wrapped = lines_of({"timestamp": 3, "event": RECORD})
    assert FORMAT.sniff(wrapped.encode())
    assert read_all(FORMAT, wrapped).rows.equals(read_all(FORMAT, lines_of(RECORD)).rows)


def test_payloads_and_tool_events_are_counted_and_are_no_rows() -> None:
    others = [{**RECORD, "event_type": kind, "request": None} for kind in ("tool_end", "request_payload", "tool_end")]
    read = read_all(FORMAT, lines_of(RECORD, *others))
    assert read.lines == 1
    assert read.counted["tool_end events, which are no requests"] == 2
    assert read.counted["request_payload events, which are no requests"] == 1


def test_hashes_keep_their_differences_as_signed_numbers() -> None:
    hashes = [0, 2**63 - 1, 2**63, 2**64 - 1]
    replay = {"trace_block_size": 2, "input_length": 8, "input_sequence_hashes": hashes}
    ids = read_all(FORMAT, lines_of(with_(replay=replay, cached_tokens=None))).rows["block_ids"][0].to_list()
    assert [one % 2**64 for one in ids] == hashes


def test_a_record_for_replay_alone_has_its_prompt_length_from_its_blocks() -> None:
    request = {key: RECORD["request"][key] for key in ("request_id", "output_tokens", "request_received_ms", "replay")}
    row = read_all(FORMAT, lines_of({**RECORD, "agent_context": None, "request": request})).rows.row(0, named=True)
    assert (row["prompt_tokens"], row["instance"], row["status"], row["ttft_ms"]) == (35, None, None, None)


def test_where_two_lengths_are_told_that_of_the_blocks_counts_and_it_is_said() -> None:
    read = read_all(FORMAT, lines_of(with_(input_tokens=40)))
    assert read.rows["prompt_tokens"].to_list() == [35]
    assert read.counted["requests whose input_tokens differ from replay.input_length: the latter is taken"] == 1


def test_a_request_of_two_workers_belongs_to_the_one_that_did_the_prefill() -> None:
    worker = {"prefill_worker_id": 5, "decode_worker_id": 6}
    read = read_all(FORMAT, lines_of(with_(worker=worker), with_(request_id="b", worker={"decode_worker_id": 6})))
    assert read.rows["instance"].to_list() == ["5", "6"]
    assert sum(n for what, n in read.counted.items() if "decoded by another worker" in what) == 1


@pytest.mark.parametrize(
    ("reason", "status"), [("stop", "ok"), ("Cancelled", "cancelled"), ("error: out of memory", "error"), ("?", None)]
)
def test_the_backends_reason_tells_the_status(reason: str, status: str | None) -> None:
    record = with_(finish_reason_metadata={"finish_reason": "stop", "backend_finish_reason": reason})
    assert read_all(FORMAT, lines_of(record)).rows["status"].to_list() == [status]


REPLAY = RECORD["request"]["replay"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"request_id": None}, "missing-key"),
        ({"request_received_ms": None}, "missing-key"),
        ({"request_received_ms": 0}, "wrong-value"),
        ({"input_tokens": None, "replay": None}, "missing-key"),
        ({"output_tokens": 1.5}, "wrong-type"),
        ({"ttft_ms": "50"}, "wrong-type"),
        ({"kv_hit_rate": 66}, "unit-out-of-range"),
        ({"ttft_ms": -1}, "negative-latency"),
        ({"replay": {**REPLAY, "input_sequence_hashes": [1, 2]}}, "blocks-do-not-fit"),
        ({"replay": {**REPLAY, "trace_block_size": 0}}, "blocks-do-not-fit"),
        ({"replay": {**REPLAY, "trace_block_size": 32, "input_sequence_hashes": [1, 2]}}, "blocks-do-not-fit"),
        ({"replay": {**REPLAY, "input_sequence_hashes": [1, 2, 2**64]}}, "wrong-value"),
        ({"replay": {**REPLAY, "input_sequence_hashes": {}}}, "wrong-type"),
        ({"replay": [1]}, "wrong-type"),
    ],
)
def test_an_unusable_request_is_rejected_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    read = read_all(FORMAT, lines_of(RECORD, with_(**{"request_id": "b", **changes})))
    assert read.reasons == {2: reason}


def test_another_schema_or_event_is_rejected() -> None:
    strange = [{**RECORD, "schema": "dynamo.request.trace.v2"}, {**RECORD, "event_type": "request_start"}]
    assert set(read_all(FORMAT, lines_of(*strange)).reasons.values()) == {"wrong-value"}


def test_a_cut_line_is_rejected() -> None:
    assert read_all(FORMAT, lines_of(RECORD) + lines_of(RECORD)[:200]).reasons == {2: "bad-json"}


@settings(max_examples=150, deadline=None)
@given(broken(RECORD))
def test_whatever_stands_in_a_record_it_is_a_row_or_a_reject(record: Any) -> None:
    read = read_all(FORMAT, lines_of(RECORD, record))
    other_events = sum(n for what, n in read.counted.items() if "events" in what)
    assert read.lines == 2 - other_events
