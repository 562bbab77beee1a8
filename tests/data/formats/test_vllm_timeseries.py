"""Benchmarks of one engine, from real files: its requests, its series, and what says when it started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

from engine_logs import broken, samples_of
from lodestar.data.formats import vllm_timeseries_meta, vllm_timeseries_series
from lodestar.data.formats.vllm_timeseries import FORMAT
from lodestar.data.ingest import ingest
from lodestar.data.reading import Reading
from lodestar.data.sources.source import from_bytes, sources_of
from lodestar.data.store import open_store
from lodestar.data.workspace import Workspace
from readings import read_all

SERIES, META = vllm_timeseries_series.FORMAT, vllm_timeseries_meta.FORMAT
RUNS = {"rtxpro6000-Llama-3.1-8B": 67, "rtxpro6000-Qwen3-32B": 160}
RECORD: dict[str, Any] = {
    "request_id": "bench-0",
    "input_toks": 2358,
    "output_toks": 531,
    "arrival_time": 1777142838.25,
    "queued_ts": 479748.25,
    "scheduled_ts": 479748.5,
    "first_token_ts": 479749.0,
    "last_token_ts": 479764.0,
}
HEADER = "t,prompt_throughput,gen_throughput,running,waiting,kv_cache_pct\n"


@pytest.fixture(params=RUNS)
def run(traces: Path, request: pytest.FixtureRequest) -> Path:
    return traces / "vllm-timeseries" / request.param


def together(run: Path) -> Iterator[Reading]:
    with sources_of([run / f"{name}.gz" for name in ("requests.jsonl", "timeseries.csv", "meta.json")]) as found:
        found[0].companions = tuple(found[1:])
        yield from FORMAT.read(found[0])


def test_every_request_and_every_second_of_the_real_runs_is_read(run: Path) -> None:
    parts = list(together(run))
    assert {part.partner: (len(part.rows), len(part.samples), len(part.rejects)) for part in parts} == {
        0: (300, 0, 0),
        1: (0, RUNS[run.name], 0),
        2: (0, 0, 0),
    }
    assert {part.clock for part in parts if part.lines} == {"unix"}
    assert {part.version for part in parts if part.version} == {"vLLM 0.19.0"}


def test_the_series_counts_the_tokens_of_the_requests(run: Path) -> None:
    parts = list(together(run))
    rows, samples = pl.concat(part.rows for part in parts), pl.concat(part.samples for part in parts)
    assert samples["prefill_tokens_per_s"].sum() == rows["prompt_tokens"].sum()
    assert samples["decode_tokens_per_s"].sum() == rows["output_tokens"].sum()


def test_the_series_stands_where_the_requests_run(run: Path) -> None:
    """With both clocks brought together, the running requests of each second follow from the requests' own times."""
    parts = list(together(run))
    rows, samples = pl.concat(part.rows for part in parts), pl.concat(part.samples for part in parts)
    at_s = samples["sampled_at_s"].to_numpy()[:, None]
    start_s = (rows["arrived_at_s"] + rows["queue_ms"] / 1e3).to_numpy()
    end_s = (rows["arrived_at_s"] + rows["e2e_ms"] / 1e3).to_numpy()

    def off(shift_s: float) -> float:
        running = ((start_s <= at_s + shift_s) & (end_s > at_s + shift_s)).sum(axis=1)
        return float(np.abs(running - samples["running_requests"].to_numpy()).mean())

    assert off(0) < 0.02 * 128
    assert off(0) < min(off(-1), off(1))


def test_a_cache_that_is_empty_while_requests_run_is_not_known(run: Path) -> None:
    parts = list(together(run))
    samples = pl.concat(part.samples for part in parts)
    unknown = samples.filter(pl.col("kv_usage_ratio").is_null())
    assert (unknown["running_requests"] > 0).all()
    assert sum(sum(part.counted.values()) for part in parts) == len(unknown) > 0


def test_a_request_is_read_with_its_units() -> None:
    read = read_all(FORMAT, json.dumps(RECORD), "runs/a100/requests.jsonl")
    assert {name: value for name, value in read.rows.row(0, named=True).items() if value is not None} == {
        "line": 1,
        "request_id": "bench-0",
        "arrived_at_s": 0.0,
        "prompt_tokens": 2358,
        "output_tokens": 531,
        "instance": "a100",
        "ttft_ms": 750.0,
        "e2e_ms": 15750.0,
        "queue_ms": 250.0,
        "prefill_ms": 500.0,
        "decode_ms": 15000.0,
    }
    assert (read.clock, read.zero_s) == ("unix", 1777142838.25)
    assert any("monotonic clock" in note for note in read.notes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"arrival_time": None}, "missing-key"),
        ({"arrival_time": 1777142838250}, "unit-out-of-range"),
        ({"scheduled_ts": 479748.0}, "time-backwards"),
        ({"first_token_ts": 479765.0}, "time-backwards"),
        ({"request_id": None}, "missing-key"),
        ({"input_toks": None}, "missing-key"),
        ({"output_toks": 1.5}, "wrong-type"),
        ({"last_token_ts": "late"}, "wrong-type"),
    ],
)
def test_an_unusable_request_is_rejected_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    lines = [json.dumps(RECORD), json.dumps({**RECORD, "request_id": "b", **changes})]
    assert read_all(FORMAT, "\n".join(lines)).reasons == {2: reason}


def test_a_request_that_never_ended_has_no_latencies_of_its_end() -> None:
    row = read_all(FORMAT, json.dumps({**RECORD, "last_token_ts": None})).rows.row(0, named=True)
    assert (row["ttft_ms"], row["e2e_ms"], row["decode_ms"]) == (750.0, None, None)


def test_a_series_alone_has_a_clock_of_its_own() -> None:
    text = HEADER + "1.0,9069.0,166.0,9,1,12.5\n2.0,0,0,0,0,0.0\n"
    read, samples = read_all(SERIES, text), samples_of(SERIES, text, "runs/a100/timeseries.csv")
    assert SERIES.sniff(text.encode())
    assert (read.clock, read.zero_s, read.lines) == ("vllm-timeseries", 0.0, 2)
    assert samples.select("instance", "sampled_at_s", "kv_usage_ratio").rows() == [
        ("a100", 1.0, 0.125),
        ("a100", 2.0, 0.0),
    ]


def test_a_series_with_its_start_has_unix_times(run: Path) -> None:
    with sources_of([run / "timeseries.csv.gz", run / "meta.json.gz"]) as (series, meta):
        series.companions = (meta,)
        start, seconds = SERIES.read(series)
    assert (start.partner, start.lines) == (1, 0)
    at_s = pl.concat([part.samples["sampled_at_s"] + part.zero_s for part in together(run)])
    assert (seconds.clock, (seconds.samples["sampled_at_s"] + seconds.zero_s).to_list()) == (
        "unix",
        pytest.approx(at_s.to_list()),
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2.0,1,1,1,1", "field-count"),
        ("2.0,1,1,1.5,1,1", "wrong-type"),
        ("2.0,1,1,x,1,1", "wrong-type"),
        ("0.5,1,1,1,1,1", "time-backwards"),
        ("2.0,1,1,1,1,250", "unit-out-of-range"),
        (",1,1,1,1,1", "missing-key"),
    ],
)
def test_an_unusable_second_is_rejected_with_its_reason(line: str, reason: str) -> None:
    assert read_all(SERIES, f"{HEADER}1.0,1,1,1,1,1\n{line}\n3.0,1,1,1,1,1\n").reasons == {3: reason}


def test_an_unusable_start_is_rejected_and_the_series_keeps_its_own_clock() -> None:
    source = from_bytes(json.dumps(RECORD).encode())
    meta = {"vllm_version": "0.19.0", "started_at": "2026-04-25T18:47:18", "tick_seconds": 1.0}
    source.companions = (from_bytes(json.dumps(meta).encode()), from_bytes((HEADER + "1,1,1,1,1,1\n").encode()))
    parts = list(FORMAT.read(source))
    assert [(part.partner, part.clock, part.lines) for part in parts] == [
        (0, "unix", 1),
        (1, None, 1),
        (2, "vllm-timeseries", 1),
    ]
    assert parts[1].rejects["reason"].to_list() == ["wrong-value"]


def test_each_file_of_a_run_is_known_by_one_format(run: Path) -> None:
    heads = {name: from_bytes((run / f"{name}.gz").read_bytes()).head() for name in ("requests.jsonl", "config.json")}
    assert [one.sniff(heads["requests.jsonl"]) for one in (FORMAT, SERIES, META)] == [True, False, False]
    assert not any(one.sniff(heads["config.json"]) for one in (FORMAT, SERIES, META))


def test_a_folder_becomes_one_dataset_of_requests_and_samples(run: Path, workspace: Workspace) -> None:
    report = ingest(workspace, [run], "run")
    assert (report.rows_stored, report.rows_rejected) == (300 + RUNS[run.name], 0)
    assert [Path(one.file).name for one in report.skipped] == ["config.json.gz"]
    with open_store(workspace) as con:
        found = con.execute(
            """SELECT s.clock, count(*), min(sampled_at_s - clock_start_s)
            FROM engine_samples s JOIN datasets USING (dataset) GROUP BY 1"""
        ).fetchall()
    assert found == [("unix", RUNS[run.name], pytest.approx(0.935, abs=0.001))]


@settings(max_examples=100, deadline=None)
@given(broken(RECORD))
def test_whatever_stands_in_a_request_it_is_a_row_or_a_reject(record: Any) -> None:
    assert read_all(FORMAT, json.dumps(RECORD) + "\n" + json.dumps(record)).lines == 2
