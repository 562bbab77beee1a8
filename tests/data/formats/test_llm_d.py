from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lodestar.data import schema as s
from lodestar.data.formats.llm_d import FORMAT, sniff
from lodestar.data.sources.source import from_bytes
from readings import read_all

SAMPLES = ("bimodal-h200", "sharegpt-h200")


def row(**changes: Any) -> str:
    made = {
        "kv_cache_percentage": 0.25,
        "input_token_length": 100,
        "num_request_waiting": 1,
        "num_request_running": 2,
        "num_tokens_generated": 0,
        "actual_ttft_ms": 120.5,
        "actual_tpot_ms": 0,
        "prefix_cache_score": 0.5,
        "prefill_tokens_in_flight": 10,
        "decode_tokens_in_flight": 20,
    }
    return json.dumps({**made, **changes}) + "\n"


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_row_of_a_sample_has_one_label(traces: Path, sample: str) -> None:
    path = traces / "llm-d-predictor" / f"{sample}.jsonl.gz"
    read = read_all(FORMAT, path)
    raw = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert (len(read.rows), read.lines) == (3400, 3400)
    assert read.rows[s.TTFT_MS].count() == sum(each["actual_ttft_ms"] > 0 for each in raw)
    assert read.rows[s.TPOT_MS].mean() == pytest.approx(
        sum(each["actual_tpot_ms"] for each in raw) / sum(each["actual_tpot_ms"] > 0 for each in raw)
    )
    assert (read.rows[s.TTFT_MS].is_null() != read.rows[s.TPOT_MS].is_null()).all()


def test_a_row_is_a_request_with_the_one_candidate_that_was_chosen() -> None:
    (part,) = FORMAT.read(from_bytes((row() + row(pod_type="prefill")).encode()))
    assert part.rows[s.INSTANCE].to_list() == part.candidates[s.INSTANCE].to_list() == ["unnamed", "prefill"]
    told = part.candidates.row(0, named=True)
    assert (told[s.HIT_RATIO], told[s.KV_USAGE_RATIO], told[s.RUNNING_REQUESTS]) == (0.5, 0.25, 2.0)
    assert (told[s.WAITING_REQUESTS], told[s.PREFILL_TOKENS], told[s.DECODE_TOKENS]) == (1.0, 10.0, 20.0)
    assert told[s.INFLIGHT_REQUESTS] is None


def test_progress_is_no_output_length_and_nothing_tells_a_time() -> None:
    read = read_all(FORMAT, row(actual_ttft_ms=0, actual_tpot_ms=9.5, num_tokens_generated=40))
    assert read.rows.select(s.OUTPUT_TOKENS, s.ARRIVED_AT_S, s.TTFT_MS, s.TPOT_MS).row(0) == (None, None, None, 9.5)
    assert read.clock is None
    assert read.counted["rows without actual_ttft_ms, logged as 0"] == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"actual_ttft_ms": 0}, "sentinel"),
        ({"actual_ttft_ms": "fast"}, "wrong-type"),
        ({"actual_ttft_ms": -5}, "negative-latency"),
        ({"input_token_length": None}, "missing-key"),
        ({"kv_cache_percentage": 25.0}, "unit-out-of-range"),
        ({"prefix_cache_score": []}, "wrong-type"),
        ({"pod_type": 1.5}, "wrong-type"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    assert read_all(FORMAT, row() + row(**change)).reasons == {2: reason}


def test_it_knows_its_own() -> None:
    assert sniff(row().encode())
    assert not sniff(b'{"actual_ttft_ms": 1}\n')
