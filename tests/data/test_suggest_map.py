from __future__ import annotations

import gzip
import io
from pathlib import Path

import polars as pl
import pytest

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.formats.mapped import mapped_format
from lodestar.data.mapping.recipe import load_mapping
from lodestar.data.mapping.suggest import suggest_map
from lodestar.data.reading import Format
from lodestar.data.sources.source import from_bytes
from readings import read_all


def drafted(folder: Path, log: bytes) -> Format:
    path = folder / "map.toml"
    path.write_text(suggest_map(from_bytes(log)))
    return mapped_format(path)


def sample(traces: Path, name: str) -> bytes:
    return gzip.decompress((traces / name).read_bytes())


def test_a_draft_for_azure_reads_it_without_edits(traces: Path, tmp_path: Path) -> None:
    log = sample(traces, "azure/AzureLLMInferenceTrace_conv.csv.gz")
    read = read_all(drafted(tmp_path, log), log)
    assert (len(read.rows), len(read.rejects), read.clock) == (19366, 0, "unix")
    assert read.rows.select(s.PROMPT_TOKENS, s.OUTPUT_TOKENS).row(0) == (374, 44)
    assert read.rows[s.ARRIVED_AT_S][1] == pytest.approx(4.314579)


def test_a_draft_for_a_gateways_csv_reads_its_decisions_and_candidates(traces: Path, tmp_path: Path) -> None:
    log = sample(traces, "lodestar/sharing09/random.csv.gz")
    format = drafted(tmp_path, log)
    read = read_all(format, log)
    assert read.lines == 2491
    assert read.rows[s.TTFT_MS].mean() == pytest.approx(2731, abs=1)
    parts = [part.candidates for part in format.read(from_bytes(log))]
    assert sum(map(len, parts)) == 7 * 2491
    assert pl.concat(parts)[s.HIT_RATIO].max() <= 1


def test_a_draft_for_nested_json_takes_its_units_from_beside_the_values(traces: Path, tmp_path: Path) -> None:
    log = sample(traces, "aiperf/profile_export.jsonl.gz")
    read = read_all(drafted(tmp_path, log), log)
    assert (len(read.rows), len(read.rejects)) == (89, 11)
    assert read.rows[s.TTFT_MS].drop_nulls()[0] == pytest.approx(1413.8, abs=2000)
    assert read.rows[s.INSTANCE].null_count() == 89  # a client's worker is no instance


def test_seconds_and_milliseconds_are_told_by_name_and_by_size(tmp_path: Path) -> None:
    log = b"isl,ttft,latency_ms,tpot\n10,0.25,900.5,12.5\n10,0.5,400.5,13.5\n"
    row = read_all(drafted(tmp_path, log), log).rows.row(0, named=True)
    assert (row[s.TTFT_MS], row[s.E2E_MS], row[s.TPOT_MS]) == (250.0, 900.5, 12.5)
    assert "# guessed: by its name; s half of the values are below 30" in suggest_map(from_bytes(log))


def test_listed_candidates_and_statuses_are_found(tmp_path: Path) -> None:
    log = b'{"prompt_tokens": 5, "status": "success", "to": "x", "pods": [{"name": "x", "hit_ratio": 50}]}\n' * 3
    format = drafted(tmp_path, log)
    assert read_all(format, log).rows[s.STATUS].to_list() == ["ok"] * 3
    assert [part.candidates[s.HIT_RATIO].to_list() for part in format.read(from_bytes(log))] == [[0.5] * 3]


def test_parquet_has_a_draft_too(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"input_tokens": [5, 6], "ts": [1700000000000, 1700000001000]}).write_parquet(buffer)
    read = read_all(drafted(tmp_path, buffer.getvalue()), buffer.getvalue())
    assert read.rows[s.ARRIVED_AT_S].to_list() == [0.0, 1.0]


def test_what_is_not_understood_is_listed_with_its_values() -> None:
    draft = suggest_map(from_bytes(b"isl,colour\n5,red\n6,\n"))
    assert "#   colour: text, 50.0% null, such as red" in draft


def test_a_log_without_prompt_tokens_has_a_draft_that_says_so(tmp_path: Path) -> None:
    draft = suggest_map(from_bytes(b"colour\nred\n"))
    assert "needed: the column with the tokens of each prompt was not found" in draft


def test_markers_among_numbers_become_null(tmp_path: Path) -> None:
    log = b"isl,ttft\n5,-9999\n6,120\n7,NA\n"
    assert read_all(drafted(tmp_path, log), log).rows[s.TTFT_MS].to_list() == [None, 120.0, None]


@pytest.mark.parametrize("log", [b"", b"\n\n", b"{\n{\n", b"PAR1xx"])
def test_what_has_no_rows_is_one_line(log: bytes) -> None:
    with pytest.raises(DataError):
        suggest_map(from_bytes(log))


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a#b", "a\x7fb", "ä", "a.b", "{instance}", "\x00"])
def test_odd_names_make_no_broken_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "map.toml"
    path.write_text(suggest_map(from_bytes(f'isl,"{name.replace(chr(34), chr(34) * 2)}"\n5,6\n'.encode())))
    assert load_mapping(path).fields["prompt_tokens"].column == "isl"
