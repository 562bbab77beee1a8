"""The spans of an OTLP file: JSON lines, length-prefixed protobuf messages, or one bare protobuf message."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final, NamedTuple

from lodestar.data.errors import DataError
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import Entry, entries
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["Found", "attributes", "found_spans"]

RESOURCE_SPANS_TAG: Final = 0x0A  # with which every message that holds spans starts
LENGTH: Final = struct.Struct(">I")
MOST_MESSAGE_BYTES: Final = 1 << 27
SHOWN_BYTES: Final = 1 << 10
PART_SPANS: Final = 20_000
SIGNALS: Final = {"resourceLogs": "logs", "resourceMetrics": "metrics"}


class Found(NamedTuple):
    """A span with the attributes of its resource, or why a part of the file holds none."""

    place: str
    span: dict[str, Any]
    resource: Any
    raw: str
    refused: Refused | None = None


def found_spans(source: Source) -> Iterator[list[Found | str]]:
    """Read the spans part by part, each as its object in OTLP's JSON; a text counts a line of another signal.

    >>> from lodestar.data.sources.source import from_bytes
    >>> line = b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": "1f0a", "name": "llm_request"}]}]}]}'
    >>> [(span.place, span.span["name"]) for part in found_spans(from_bytes(line)) for span in part]
    [('span 1f0a', 'llm_request')]
    """
    parts = _json_parts(source) if source.head(1 << 10).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" else _parts(source)
    for part in parts:
        for start in range(0, len(part), PART_SPANS):
            yield part[start : start + PART_SPANS]


def attributes(listed: Any, wanted: frozenset[str]) -> dict[str, Any]:
    """Return the wanted attributes of OTLP's list of keys and values.

    >>> attributes([{"key": "n", "value": {"intValue": "7"}}], frozenset({"n"}))
    {'n': 7}

    Raises:
        Refused: the list is none, or a number is none.
    """
    if listed is None:
        return {}
    if not isinstance(listed, list):
        raise Refused(Reason.WRONG_TYPE, f"attributes: {str(listed)[:80]} is no list")
    stray = next((one for one in listed if not (isinstance(one, dict) and isinstance(one.get("key"), str))), None)
    if stray is not None or None in listed:
        raise Refused(Reason.WRONG_TYPE, f"attributes: {str(stray)[:80]} is no key with a value")
    return {one["key"]: _value(one["key"], one.get("value")) for one in listed if one["key"] in wanted}


def _value(key: str, value: Any) -> Any:
    if not isinstance(value, dict) or len(value) != 1:
        raise Refused(Reason.WRONG_TYPE, f"{key}: {str(value)[:80]} is no value of OTLP")
    [(kind, inner)] = value.items()
    # 64-bit integers are text in OTLP's JSON, though some exporters write them as numbers.
    if kind == "intValue" and isinstance(inner, str):
        digits = inner.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            raise Refused(Reason.WRONG_TYPE, f"{key}: {inner[:80]!r} is no integer")
        return int(inner)
    return inner


def _json_parts(source: Source) -> Iterator[list[Found | str]]:
    for lines, bad in entries(source):
        part: list[Found | str] = []
        for number, reason, detail, raw in bad.select("line", "reason", "detail", "raw").iter_rows():
            part.append(Found(f"line {number}", {}, None, raw, Refused(Reason(reason), detail)))
        for entry in lines:
            part += _of_line(entry)
        yield part


def _of_line(entry: Entry) -> list[Found | str]:
    line = f"line {entry.number}"
    signal = next((name for key, name in SIGNALS.items() if key in entry.value), None)
    if signal is not None and "resourceSpans" not in entry.value:
        return [f"lines of {signal}"]
    if "resourceSpans" not in entry.value:
        refused = Refused(Reason.MISSING, "resourceSpans is missing")
        return [Found(line, {}, None, entry.raw, refused)]
    return list(_spans(entry.value, line))


def _spans(record: dict[str, Any], line: str) -> Iterator[Found]:
    for resource_spans in _listed(record, "resourceSpans", line):
        if isinstance(resource_spans, Found):
            yield resource_spans
            continue
        resource = resource_spans.get("resource")
        # Exporters before OTLP 0.15 grouped spans by instrumentation library.
        key = "scopeSpans" if "scopeSpans" in resource_spans else "instrumentationLibrarySpans"
        for scope in _listed(resource_spans, key, line):
            for span in [scope] if isinstance(scope, Found) else _listed(scope, "spans", line):
                yield span if isinstance(span, Found) else _found(span, resource, line)


def _found(span: dict[str, Any], resource: Any, line: str) -> Found:
    identity = span.get("spanId")
    place = f"span {identity[:32]}" if isinstance(identity, str) and identity.isascii() and identity else line
    of = resource.get("attributes") if isinstance(resource, dict) else resource
    return Found(place, span, of, json.dumps(span))


def _listed(record: dict[str, Any], key: str, line: str) -> Iterator[dict[str, Any] | Found]:
    """Give the objects of a list, and a refusal for whatever else stands there."""
    value = record.get(key)
    for one in value if isinstance(value, list) else [] if value is None else [value]:
        if isinstance(value, list) and isinstance(one, dict):
            yield one
        else:
            refused = Refused(Reason.WRONG_TYPE, f"{key}: {json.dumps(one)[:80]} is no list of objects")
            yield Found(line, {}, None, json.dumps(one), refused)


def _parts(source: Source) -> Iterator[list[Found | str]]:
    number = 0
    for number, message in enumerate(_messages(source), 1):
        yield list(_of_message(message, f"message {number}"))
    if not number:
        raise DataError(f"{source.name}: no OTLP message; expected JSON lines or protobuf. Check the file")


def _messages(source: Source) -> Iterator[bytes | tuple[Refused, bytes]]:
    if source.head(1)[:1] == bytes([RESOURCE_SPANS_TAG]):
        yield source.document()
        return
    with source.stream() as stream:
        while prefix := stream.read(LENGTH.size):
            length = LENGTH.unpack(prefix)[0] if len(prefix) == LENGTH.size else MOST_MESSAGE_BYTES + 1
            message = stream.read(length) if length <= MOST_MESSAGE_BYTES else b""
            if len(message) < length:
                told = f"{len(message)} of {length} bytes" if message else f"a length of {prefix.hex()}"
                yield Refused(Reason.BAD_TEXT, f"a cut or damaged message: {told}"), prefix + message
                return  # where the next one starts is not known
            yield message


def _of_message(message: bytes | tuple[Refused, bytes], place: str) -> Iterator[Found]:
    if isinstance(message, tuple):
        yield Found(place, {}, None, message[1][:SHOWN_BYTES].hex(), message[0])
        return
    try:
        record = _as_json(message)
    except Refused as refused:
        yield Found(place, {}, None, message[:SHOWN_BYTES].hex(), refused)
        return
    yield from _spans(record, place)


def _as_json(message: bytes) -> dict[str, Any]:
    try:
        as_dict = import_module("google.protobuf.json_format").MessageToDict
        broken = import_module("google.protobuf.message").DecodeError
        request = import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2").ExportTraceServiceRequest()
    except ImportError as error:
        raise DataError(
            f"OTLP protobuf cannot be read without {error.name}; expected it to be installed. "
            "Install opentelemetry-proto, or export JSON"
        ) from error
    try:
        request.ParseFromString(message)
        record: dict[str, Any] = as_dict(request)
    except (broken, ValueError, RecursionError) as error:
        raise Refused(Reason.BAD_TEXT, f"no OTLP message: {str(error)[:200]}") from None
    _name_ids(record)
    return record


def _name_ids(record: dict[str, Any]) -> None:
    """Turn span ids from protobuf's base64 to the hexadecimal of OTLP's JSON."""
    for resource_spans in record.get("resourceSpans", []):
        for scope in resource_spans.get("scopeSpans", []):
            for span in scope.get("spans", []):
                if "spanId" in span:
                    span["spanId"] = base64.b64decode(span["spanId"]).hex()
