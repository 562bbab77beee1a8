"""vLLM's spans, from real files; protobuf is written from the same spans by OpenTelemetry's own messages."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]
from hypothesis import given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from engine_logs import broken
from lodestar.data.formats.vllm_otlp import FORMAT
from readings import Read, read_all

FILES = {"codellama-34b-prefill": 200, "codellama-34b-train": 280}


def attribute(key: str, kind: str, value: Any) -> dict[str, Any]:
    return {"key": key, "value": {kind: value}}


SPAN: dict[str, Any] = {
    "traceId": "00112233445566778899aabbccddeeff",
    "spanId": "10738849ca6f18cd",
    "name": "llm_request",
    "kind": 2,
    "startTimeUnixNano": "1768918269000000000",
    "endTimeUnixNano": "1768918271500000000",
    "attributes": [
        attribute("gen_ai.request.id", "stringValue", "cmpl-b9e4-0"),
        attribute("gen_ai.usage.prompt_tokens", "intValue", "2998"),
        attribute("gen_ai.usage.completion_tokens", "intValue", 56),
        attribute("gen_ai.latency.time_to_first_token", "doubleValue", 1.5),
        attribute("gen_ai.latency.e2e", "doubleValue", 2.5),
        attribute("gen_ai.latency.time_in_queue", "doubleValue", 0.25),
        attribute("gen_ai.latency.time_in_model_prefill", "doubleValue", 1.25),
        attribute("gen_ai.latency.time_in_model_decode", "doubleValue", 1.0),
    ],
    "status": {},
}
RESOURCE = {"attributes": [attribute("service.name", "stringValue", "vllm-a")]}


def export(*spans: Any, resource: Any = RESOURCE) -> dict[str, Any]:
    return {
        "resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "vllm"}, "spans": list(spans)}]}]
    }


def lines_of(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def with_(drop: tuple[str, ...] = (), add: tuple[dict[str, Any], ...] = (), **changes: Any) -> dict[str, Any]:
    names = {*drop, *(one["key"] for one in add)}
    kept = [one for one in SPAN["attributes"] if one["key"] not in names]
    return {**SPAN, "attributes": [*kept, *add], **changes}


def spans_of(*spans: Any) -> Read:
    return read_all(FORMAT, lines_of(export(*spans)))


@pytest.mark.parametrize(("name", "rows"), FILES.items())
def test_every_span_of_the_real_files_is_a_row(traces: Path, name: str, rows: int) -> None:
    path = traces / f"vllm-otel/{name}.otlp.json.gz"
    read = read_all(FORMAT, path)
    assert (len(read.rows), len(read.rejects)) == (rows, 0)
    assert gzip.decompress(path.read_bytes()).count(b'"name":"llm_request"') == rows
    assert read.rows["request_id"].n_unique() == rows


@pytest.mark.parametrize("name", FILES)
def test_seconds_become_milliseconds_that_agree_with_the_span_and_each_other(traces: Path, name: str) -> None:
    path = traces / f"vllm-otel/{name}.otlp.json.gz"
    rows = read_all(FORMAT, path).rows
    spans = [
        span
        for line in gzip.decompress(path.read_bytes()).splitlines()
        for scope in json.loads(line)["resourceSpans"][0]["scopeSpans"]
        for span in scope["spans"]
    ]
    length_ms = [(int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e6 for span in spans]
    assert all(0 <= span - e2e < 1 for span, e2e in zip(length_ms, rows["e2e_ms"], strict=True))
    # What is in neither phase is the way to the engine, the same in both latencies.
    before_first = rows["ttft_ms"] - rows["queue_ms"] - rows["prefill_ms"]
    whole = rows["e2e_ms"] - rows["queue_ms"] - rows["prefill_ms"] - rows["decode_ms"]
    assert (before_first > 0).all()
    assert ((whole - before_first).abs() < 1).all()


def test_a_span_is_read_with_its_units() -> None:
    read = spans_of(SPAN)
    told = {name: value for name, value in read.rows.row(0, named=True).items() if value is not None}
    assert told == {
        "line": 1,
        "record": "span 10738849ca6f18cd",
        "request_id": "cmpl-b9e4",
        "arrived_at_s": 0.0,
        "prompt_tokens": 2998,
        "output_tokens": 56,
        "instance": "vllm-a",
        "ttft_ms": 1500.0,
        "e2e_ms": 2500.0,
        "queue_ms": 250.0,
        "prefill_ms": 1250.0,
        "decode_ms": 1000.0,
    }
    assert (read.clock, read.zero_s) == ("unix", 1768918269.0)


def test_only_the_suffix_of_a_first_completion_prompt_is_taken_off() -> None:
    ids = ["cmpl-a-0", "cmpl-a-1", "chatcmpl-b-0", "mine-0"]
    spans = [with_(add=(attribute("gen_ai.request.id", "stringValue", one),)) for one in ids]
    read = spans_of(*spans)
    assert read.rows["request_id"].to_list() == ["cmpl-a", "cmpl-a-1", "chatcmpl-b-0", "mine-0"]
    assert read.counted["request ids without the -0 that vLLM adds for a request's first prompt"] == 1


def test_the_later_names_of_token_counts_are_known() -> None:
    later = (
        attribute("gen_ai.usage.input_tokens", "intValue", "7"),
        attribute("gen_ai.usage.output_tokens", "intValue", "8"),
        attribute("gen_ai.usage.cached_tokens", "intValue", "4"),
    )
    row = spans_of(with_(("gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens"), later)).rows.row(
        0, named=True
    )
    assert (row["prompt_tokens"], row["output_tokens"], row["cached_tokens"]) == (7, 8, 4)


def test_other_spans_and_signals_are_counted_and_are_no_rows() -> None:
    read = read_all(FORMAT, lines_of(export({**SPAN, "name": "GET /v1"}, SPAN), {"resourceLogs": []}))
    assert (read.lines, read.counted["spans of other names than llm_request"], read.counted["lines of logs"]) == (
        1,
        1,
        1,
    )


def test_the_instance_is_named_by_the_most_telling_attribute_and_it_is_said() -> None:
    names = [attribute(key, "stringValue", key) for key in ("service.name", "host.name", "k8s.pod.name")]
    read = read_all(FORMAT, lines_of(export(SPAN, resource={"attributes": names})))
    assert read.rows["instance"].to_list() == ["k8s.pod.name"]
    assert read.counted["requests whose instance is named by k8s.pod.name"] == 1


def test_a_span_without_e2e_takes_its_own_length_and_says_so() -> None:
    read = spans_of(with_(("gen_ai.latency.e2e",)))
    assert read.rows["e2e_ms"].to_list() == [2500.0]
    assert read.counted["spans without gen_ai.latency.e2e: e2e_ms taken from the span's length"] == 1


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        (with_(startTimeUnixNano=None), "missing-key"),
        (with_(startTimeUnixNano="soon"), "wrong-type"),
        (with_(("gen_ai.latency.e2e",), endTimeUnixNano="1768918268000000000"), "time-backwards"),
        (with_(("gen_ai.usage.prompt_tokens",)), "missing-key"),
        (with_(add=(attribute("gen_ai.usage.input_tokens", "intValue", "7"),)), "wrong-value"),
        (with_(add=(attribute("gen_ai.usage.prompt_tokens", "intValue", "many"),)), "wrong-type"),
        (with_(add=(attribute("gen_ai.latency.e2e", "doubleValue", "NaN"),)), "wrong-type"),
        (with_(add=(attribute("gen_ai.latency.e2e", "doubleValue", -1),)), "negative-latency"),
        (with_(attributes={}), "wrong-type"),
        (with_(attributes=[None]), "wrong-type"),
    ],
)
def test_an_unusable_span_is_rejected_with_its_id_its_reason_and_its_text(span: Any, reason: str) -> None:
    read = spans_of(SPAN, {**span, "spanId": "beef"})
    assert read.reasons == {2: reason}
    assert read.rejects["record"].to_list() == ["span beef"]


def test_a_line_that_holds_no_spans_is_rejected_with_its_place() -> None:
    read = read_all(FORMAT, lines_of(export(SPAN), {"a": 1}, export("x")) + '{"resourceSpans":')
    assert read.rejects.select("record", "reason").rows() == [
        ("line 4", "bad-json"),
        ("line 2", "missing-key"),
        ("line 3", "wrong-type"),
    ]


def protobuf(record: dict[str, Any]) -> bytes:
    copied = json.loads(json.dumps(record))
    for resource in copied["resourceSpans"]:
        for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
            for key in ("traceId", "spanId"):
                span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    message: bytes = ParseDict(copied, ExportTraceServiceRequest()).SerializeToString()
    return message


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(message)) + message for message in messages)


def test_protobuf_says_the_same_as_json(traces: Path) -> None:
    path = traces / "vllm-otel/codellama-34b-train.otlp.json.gz"
    records = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    content = framed(*map(protobuf, records))
    assert FORMAT.sniff(content[: 1 << 18])
    assert read_all(FORMAT, content).rows.equals(read_all(FORMAT, path).rows)


def test_a_bare_protobuf_message_is_read() -> None:
    content = protobuf(export(SPAN, {**SPAN, "name": "other"}))
    assert FORMAT.sniff(content)
    assert read_all(FORMAT, content).rows.equals(spans_of(SPAN).rows)


def test_a_cut_message_is_rejected_and_those_before_it_are_read() -> None:
    content = framed(protobuf(export(SPAN)), protobuf(export(SPAN)))[:-9]
    assert read_all(FORMAT, content).reasons == {2: "bad-text"}


def test_bytes_that_are_no_message_are_rejected() -> None:
    assert read_all(FORMAT, framed(b"\x0a\xff\xff", protobuf(export(SPAN)))).reasons == {1: "bad-text"}


@settings(max_examples=150, deadline=None)
@given(broken(export(SPAN)))
def test_whatever_stands_in_a_line_it_is_a_row_or_a_reject_or_counted(record: Any) -> None:
    read = read_all(FORMAT, lines_of(export(SPAN), record))
    assert 1 <= read.lines <= 3
