from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lodestar.data import schema as s
from lodestar.data.formats.vllm_bench import FORMAT, sniff
from readings import read_all

RUNS = {"day02_c4_i128_o64": 16, "day05_large_i2048_o256_c4": 16, "day06_c16_i128_o64_n64": 64}


def run(**arrays: Any) -> dict[str, Any]:
    """A run of two requests, the second of which failed."""
    made = {
        "request_throughput": 2.0,
        "total_input_tokens": 20,
        "input_lens": [10, 10],
        "output_lens": [5, 0],
        "ttfts": [0.5, 0.0],
        "itls": [[0.1, 0.3], []],
        "errors": ["", "Connection reset"],
        "start_times": [100.0, 100.25],
    }
    return {name: value for name, value in {**made, **arrays}.items() if value is not None}


@pytest.mark.parametrize(("name", "rows"), RUNS.items())
def test_means_are_those_that_the_run_printed_itself(traces: Path, name: str, rows: int) -> None:
    path = traces / "vllm-bench" / f"{name}.json.gz"
    told, read = json.loads(gzip.decompress(path.read_bytes())), read_all(FORMAT, path)
    assert (read.lines, len(read.rows)) == (rows, rows)
    mean = {column: sum(read.rows[column]) / rows for column in (s.TTFT_MS, s.TPOT_MS, s.E2E_MS)}
    assert mean[s.TTFT_MS] == pytest.approx(told["mean_ttft_ms"], rel=1e-9)
    # The run knows when its last response ended, the file only when the last chunk came: some microseconds earlier.
    assert mean[s.TPOT_MS] == pytest.approx(told["mean_tpot_ms"], rel=1e-4)
    assert mean[s.E2E_MS] == pytest.approx(told["mean_e2el_ms"], rel=1e-4)
    assert read.rows[s.PROMPT_TOKENS].sum() == told["total_input_tokens"]
    assert read.rows[s.OUTPUT_TOKENS].sum() == told["total_output_tokens"]
    assert read.rows[s.ARRIVED_AT_S].max() <= told["duration"]


def test_the_time_per_token_counts_tokens_and_not_chunks() -> None:
    read = read_all(FORMAT, json.dumps(run()))
    assert read.rows[s.TPOT_MS][0] == pytest.approx(400 / 4)
    assert read.rows[s.E2E_MS][0] == pytest.approx(900)


def test_a_failed_request_has_no_latencies() -> None:
    read = read_all(FORMAT, json.dumps(run()))
    assert read.rows[s.STATUS].to_list() == ["ok", "error"]
    assert read.rows.select(s.TTFT_MS, s.TPOT_MS, s.E2E_MS).row(1) == (None, None, None)


def test_start_times_are_of_a_clock_of_their_own() -> None:
    read = read_all(FORMAT, json.dumps(run()))
    assert (read.clock, read.zero_s) == ("vllm-bench", 100.0)
    assert read.rows[s.ARRIVED_AT_S].to_list() == [0.0, 0.25]
    assert read_all(FORMAT, json.dumps(run(start_times=None))).clock is None


def test_without_error_texts_no_status_is_claimed() -> None:
    assert read_all(FORMAT, json.dumps(run(errors=None))).rows[s.STATUS].to_list() == [None, None]


def test_runs_appended_to_one_file_are_read_one_after_the_other() -> None:
    read = read_all(FORMAT, f"{json.dumps(run())}\n{json.dumps(run(start_times=[200.0, 201.0]))}")
    assert read.rows["line"].to_list() == [1, 2, 3, 4]
    assert read.rows["record"][2] == "run 2, request 1"
    assert read.rows[s.ARRIVED_AT_S].to_list() == [0.0, 0.25, 100.0, 101.0]


def test_start_times_that_earlier_runs_lack_are_left_out_and_counted() -> None:
    read = read_all(FORMAT, f"{json.dumps(run(start_times=None))}\n{json.dumps(run())}")
    assert read.rows[s.ARRIVED_AT_S].null_count() == 4
    assert read.counted["start times left out, as earlier runs have none"] == 2


def test_a_run_laid_out_over_lines_is_one_document() -> None:
    assert read_all(FORMAT, json.dumps(run(), indent=2)).lines == 2


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"ttfts": [0.5]}, "missing-key"),
        ({"itls": [[0.1], [-0.1]]}, "negative-latency"),
        ({"itls": [[0.1], [1e308, 1e308]]}, "not-finite"),
        ({"itls": [[0.1], ["a"]]}, "wrong-type"),
        ({"itls": [[0.1], None]}, "missing-key"),
        ({"output_lens": [5, 2.5]}, "wrong-type"),
        ({"input_lens": [10, 0]}, "wrong-value"),
        ({"start_times": [1.0, 1e300]}, "unit-out-of-range"),
    ],
)
def test_a_broken_request_is_refused_alone(arrays: dict[str, Any], reason: str) -> None:
    read = read_all(FORMAT, json.dumps(run(**arrays)))
    assert (len(read.rows), read.reasons) == (1, {2: reason})


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        (json.dumps(run(itls=None)), "itls is missing; only runs with --save-detailed tell of their requests"),
        (json.dumps(run(ttfts=3)), "ttfts is a int, expected an array"),
        (json.dumps(run())[:-20], "no JSON"),
        ("[1]", "a list, expected an object with the results of a run"),
    ],
)
def test_a_run_that_cannot_be_used_is_one_reject(document: str, detail: str) -> None:
    read = read_all(FORMAT, document)
    assert (read.lines, len(read.rejects)) == (1, 1)
    assert detail in read.rejects["detail"][0]
    assert read.rejects["raw"][0].startswith(document[:10])


def test_it_is_known_by_the_keys_of_its_summary() -> None:
    assert sniff(json.dumps(run()).encode()[:100])
    assert not sniff(b'{"ttfts": [1.0], "itls": [[]]}')
