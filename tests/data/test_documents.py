from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from lodestar.data.errors import DataError
from lodestar.data.parsing.documents import documents, elements, object_of, shown, whole_document
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import from_bytes, sources_of


def test_lines_that_are_whole_documents_are_read_one_by_one() -> None:
    found = list(documents(from_bytes(b'{"a": 1}\r\n\n{"a": \n{"a": 3}')))
    assert [each.value for each in found] == [{"a": 1}, None, {"a": 3}]
    assert found[1].bad is not None
    assert (found[1].bad.reason, found[1].raw) == (Reason.BAD_JSON, '{"a": \n')


def test_a_document_laid_out_over_lines_is_one() -> None:
    text = json.dumps({"a": [1, {"b": 2}]}, indent=2).encode()
    assert [each.value for each in documents(from_bytes(b"\xef\xbb\xbf" + text))] == [{"a": [1, {"b": 2}]}]


def test_a_line_longer_than_what_is_looked_at_first_is_a_document() -> None:
    long = json.dumps({"a": "x" * 300_000}).encode()
    assert len(list(documents(from_bytes(long + b"\n" + long)))) == 2


def test_a_document_cut_short_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"a": list(range(99_999))}).encode())[:-9000])
    with pytest.raises(DataError, match="damaged compressed file"), sources_of([path]) as sources:
        list(documents(sources[0]))


def test_endless_nesting_and_broken_text_are_bad_json() -> None:
    for content in (b"[" * 100_000, b'{"a": "\xff\xfe"}', b"\x00", b'{"a": 1, "a": 2}'):
        bad = whole_document(from_bytes(content)).bad
        assert bad is not None
        assert bad.reason is Reason.BAD_JSON


def test_only_what_is_refused_is_written_out_and_other_rows_on_demand() -> None:
    reading = elements([{"session_id": "a"}, 7], 10, "number {}".format, object_of)
    assert reading.rows.select("line", "record", "session_id").rows() == [(11, "number 1", "a")]
    assert reading.rejects.select("line", "record", "raw").rows() == [(12, "number 2", "7")]
    assert reading.raw(reading.rows["line"]) == ['{"session_id": "a"}']


def test_what_is_too_deep_to_be_shown_is_named() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a list that is nested too deep to be shown"


def test_what_is_no_object_is_refused_with_its_type() -> None:
    with pytest.raises(Refused, match="3 is a int, expected an object"):
        object_of(3)
