from __future__ import annotations

import io
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.formats.mapped import mapped_format
from lodestar.data.reading import Reading
from lodestar.data.sources.source import from_bytes
from readings import read_all

DOCS = Path(__file__).parents[3] / "docs" / "mapping.md"


def parts(folder: Path, mapping: str, log: bytes) -> list[Reading]:
    path = folder / "map.toml"
    path.write_text(mapping)
    return list(mapped_format(path).read(from_bytes(log)))


def read(folder: Path, mapping: str, log: bytes) -> Reading:
    (part,) = parts(folder, mapping, log)
    return part


def fenced(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", DOCS.read_text(), re.DOTALL)


def test_the_first_example_of_the_reference_does_what_it_says(tmp_path: Path) -> None:
    part = read(tmp_path, fenced("toml")[0], fenced("csv")[0].encode())
    assert part.rows.select(s.REQUEST_ID, s.ARRIVED_AT_S, s.TTFT_MS, s.OUTPUT_TOKENS, s.STATUS, s.POLICY).rows() == [
        ("r1", 0.0, 250.0, 64, "ok", "random"),
        ("r2", 0.5, None, None, "error", "random"),
    ]
    told = part.candidates.select("line", s.INSTANCE, s.HIT_RATIO, s.WAITING_REQUESTS).rows()
    assert told == [(2, "a", 0.75, 0.0), (2, "b", 0.0, 3.0), (3, "b", 0.125, 1.0)]
    assert (part.clock, part.zero_s, len(part.rejects)) == ("unix", 1700000000.123, 0)


def test_the_second_example_of_the_reference_reads_the_same_request(tmp_path: Path) -> None:
    part = read(tmp_path, fenced("toml")[1], fenced("json")[0].encode())
    assert part.rows.select(s.REQUEST_ID, s.PROMPT_TOKENS, s.INSTANCE).row(0) == ("r1", 512, "a")
    assert part.candidates.select(s.INSTANCE, s.HIT_RATIO).rows() == [("a", 0.75), ("b", 0.0)]
    assert part.zero_s == 1700000000.123  # 23:13 in Berlin is 22:13 UTC


def test_parquet_reads_by_the_same_file_as_json(tmp_path: Path) -> None:
    rows = pl.read_ndjson(io.StringIO(fenced("json")[0])).with_columns(pl.lit([3, 4]).alias("blocks"))
    buffer = io.BytesIO()
    rows.write_parquet(buffer)
    mapping = fenced("toml")[1].replace('"jsonl"', '"parquet"\nblock_tokens = 16')
    part = read(tmp_path, mapping.replace("[fields]", '[fields]\nblock_ids = "blocks"'), buffer.getvalue())
    assert part.rows.select(s.REQUEST_ID, s.PROMPT_TOKENS).row(0) == ("r1", 512)
    assert part.rows[s.BLOCK_IDS].to_list() == [[3, 4]]
    assert part.candidates.select(s.INSTANCE, s.HIT_RATIO).rows() == [("a", 0.75), ("b", 0.0)]


CSV = 'kind = "csv"\nblock_tokens = 16\n[fields]\nprompt_tokens = "isl"\n'


@pytest.mark.parametrize(
    ("unit", "text", "zero_s", "clock"),
    [
        ("unix_s", "1700000000.25", 1700000000.25, "unix"),
        ("unix_ns", "1700000000250000000", 1700000000.25, "unix"),
        ("iso", "2023-11-14T22:13:20.25Z", 1700000000.25, "unix"),
        ("iso", "2023-11-14 22:13:20.25", 1700000000.25, "unix"),
        ("iso", "2023-11-15T00:13:20.25+02:00", 1700000000.25, "unix"),
        ("relative_us", "1500000", 1.5, None),
    ],
)
def test_times_are_read_in_the_unit_that_is_named(
    tmp_path: Path, unit: str, text: str, zero_s: float, clock: str | None
) -> None:
    part = read(tmp_path, CSV + f'arrived_at = {{ column = "t", unit = "{unit}" }}', f"t,isl\n{text},5\n".encode())
    assert part.rows[s.ARRIVED_AT_S].to_list() == [0.0]
    assert part.zero_s == zero_s
    assert (part.clock == "unix") == (clock == "unix")


def test_a_layout_reads_times_that_are_not_iso(tmp_path: Path) -> None:
    column = '{ column = "t", unit = "iso", layout = "%d/%m/%Y %H:%M:%S", zone = "UTC" }'
    part = read(tmp_path, CSV + f"arrived_at = {column}", b"t,isl\n14/11/2023 22:13:20,5\n")
    assert (part.zero_s, part.notes) == (1700000000.0, ())


def test_a_fraction_in_a_layout_is_a_fraction_of_a_second(tmp_path: Path) -> None:
    column = '{ column = "t", unit = "iso", layout = "%Y%m%d-%H:%M:%S.%f" }'
    assert read(tmp_path, CSV + f"arrived_at = {column}", b"t,isl\n20231114-22:13:20.25,5\n").zero_s == 1700000000.25


def test_hours_that_clocks_leave_out_are_no_time(tmp_path: Path) -> None:
    column = '{ column = "t", unit = "iso", zone = "Europe/Berlin" }'
    part = read(tmp_path, CSV + f"arrived_at = {column}", b"t,isl\n2024-03-31 02:30:00,5\n2024-03-31 03:30:00,5\n")
    assert part.rejects["detail"].to_list() == ["column 't': '2024-03-31 02:30:00' is no time in iso"]


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ('ttft_ms = "x"', "soon", "wrong-type"),
        ('ttft_ms = "x"', "inf", "not-finite"),
        ('ttft_ms = "x"', "nan", "not-finite"),
        ('output_tokens = "x"', "1.5", "wrong-type"),
        ('block_ids = "x"', "1 b", "wrong-type"),
        ('status = { column = "x", values = { good = "ok" } }', "bad", "wrong-value"),
        ('arrived_at = { column = "x", unit = "unix_s" }', "1e300", "wrong-type"),
        ('arrived_at = { column = "x", unit = "iso" }', "9999-99-99", "wrong-type"),
        ('arrived_at = { column = "x", unit = "iso" }', "9999-01-01 00:00:00", "wrong-type"),
        ('ttft_ms = "x"', "-1", "negative-latency"),
        ('status = "x"', "good", "wrong-value"),
    ],
)
def test_a_value_that_does_not_fit_refuses_its_row(tmp_path: Path, field: str, text: str, reason: str) -> None:
    path = tmp_path / "map.toml"
    path.write_text(CSV + field)
    got = read_all(mapped_format(path), f"x,isl\n{text},5\n".encode())
    assert got.reasons == {2: reason}


def test_null_markers_stand_for_nothing_in_their_column_only(tmp_path: Path) -> None:
    mapping = CSV + 'ttft_ms = { column = "x", null = "-9999" }\ne2e_ms = "y"'
    part = read(tmp_path, mapping, b"x,y,isl\n-9999,5,5\n1,-9999,5\n")
    assert part.rows.select(s.TTFT_MS, s.E2E_MS).rows() == [(None, 5.0), (1.0, -9999.0)]


def test_a_csv_without_header_counts_its_lines_from_one(tmp_path: Path) -> None:
    mapping = 'kind = "csv"\n[csv]\nheader = false\ndelimiter = "|"\n[fields]\nprompt_tokens = "column_2"\n'
    part = read(tmp_path, mapping, b"a|5\nb|x\n")
    assert part.rows.select("line", s.PROMPT_TOKENS).rows() == [(1, 5)]
    assert part.raw(part.rejects["line"]) == ["b|x"]


def test_json_may_name_an_instance_in_its_keys(tmp_path: Path) -> None:
    mapping = 'kind = "jsonl"\n[fields]\nprompt_tokens = "isl"\n[candidates.fields]\nhit_ratio = "kv.{instance}"\n'
    part = read(tmp_path, mapping, b'{"isl": 5, "kv": {"10.0.0.1": 0.5, "10.0.0.2": 0}}\n')
    assert part.candidates.select(s.INSTANCE, s.HIT_RATIO).rows() == [("10.0.0.1", 0.5), ("10.0.0.2", 0.0)]


def test_a_listed_candidate_without_a_name_refuses_its_row(tmp_path: Path) -> None:
    mapping = (
        'kind = "jsonl"\n[fields]\nprompt_tokens = "isl"\n[candidates]\nlist = "c"\n[candidates.fields]\nscore = "s"\n'
    )
    part = read(
        tmp_path, mapping, b'{"isl": 5, "c": [{"s": 1}, {"s": 2}]}\n{"isl": 5, "c": [{"instance": "x", "s": 2}]}\n'
    )
    assert part.rejects.select("line", "reason").rows() == [(1, "missing-key")]
    assert part.candidates.select("line", s.INSTANCE, s.SCORE).rows() == [(2, "x", 2.0)]


def test_a_column_that_is_not_there_is_an_error_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'isl' is missing; did you mean 'islx'"):
        parts(tmp_path, CSV, b"islx\n5\n")


def test_what_is_no_parquet_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="damaged Parquet"):
        parts(tmp_path, CSV.replace("csv", "parquet"), b"PAR1 and nothing else")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["isl", "kv", "a"]), inner, max_size=3),
    max_leaves=6,
)


def test_half_of_a_surrogate_pair_is_refused_and_other_rows_stay(tmp_path: Path) -> None:
    mapping = 'kind = "jsonl"\n[fields]\nrequest_id = "id"\nprompt_tokens = "isl"\n[candidates.fields]\n'
    lines = ['{"id": "\\ud800", "isl": 1}', '{"id": "b", "isl": 2}', '{"id": "c", "isl": 3, "kv": {"\\udfff": 0.5}}']
    part = read(tmp_path, mapping + 'hit_ratio = "kv.{instance}"\n', "\n".join(lines).encode())
    assert part.rows[s.REQUEST_ID].to_list() == ["b"]
    assert part.rejects.select("line", "reason").rows() == [(1, "not-utf8"), (3, "not-utf8")]


FUZZED = CSV.replace("csv", "jsonl") + (
    'ttft_ms = "a.kv"\nblock_ids = "kv"\narrived_at = { column = "a", unit = "unix_ns" }\nrequest_id = "kv.0"\n'
    '[candidates]\nlist = "kv"\ninstance = "a"\n[candidates.fields]\nhit_ratio = "isl"\n'
)


@given(st.lists(st.dictionaries(st.sampled_from(["isl", "kv", "a"]), VALUES, max_size=3), max_size=5))
def test_json_of_any_shape_is_stored_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[object]) -> None:
    import json

    path = tmp_path_factory.mktemp("fuzz") / "map.toml"
    path.write_text(FUZZED)
    read_all(mapped_format(path), "".join(json.dumps(row) + "\n" for row in rows))
