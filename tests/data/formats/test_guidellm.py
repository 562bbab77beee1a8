"""Fixtures follow the documented schema, GuideLLM's own models of its report before and since 0.4: no real report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lodestar.data import schema as s
from lodestar.data.formats.guidellm import FORMAT, sniff
from readings import read_all

START = 1759354691.7182198


def newer(**facts: Any) -> dict[str, Any]:
    """A request as reports since 0.4 list it."""
    timings = {"request_start": START, "first_token_iteration": START + 0.5, "request_end": START + 4}
    return {
        "type_": "generative_request_stats",
        "request_id": "r1",
        "info": {"conversation_id": "c1", "turn_index": 0, "timings": {**timings, "resolve_end": START + 4.1}},
        "input_metrics": {"text_tokens": 8, "total_tokens": 8},
        "output_metrics": {"text_tokens": 16, "total_tokens": 16},
        "request_start_time": START,
        "request_end_time": START + 4,
        "request_latency": 4.0,
        "prompt_tokens": 8,
        "cached_tokens": 2,
        "output_tokens": 16,
        "time_to_first_token_ms": 500.0,
        "time_per_output_token_ms": 250.0,
        "inter_token_latency_ms": 233.0,
        **facts,
    }


def older(**facts: Any) -> dict[str, Any]:
    """A request as reports before 0.4 list it."""
    return {
        "type_": "generative_text_response",
        "request_id": "r2",
        "scheduler_info": {"completed": True},
        "prompt_tokens": 8,
        "output_tokens": 16,
        "start_time": START,
        "end_time": START + 4,
        "first_token_time": START + 0.5,
        "last_token_time": START + 4,
        "time_to_first_token_ms": 500.0,
        "inter_token_latency_ms": 233.0,
        "time_per_output_token_ms": 218.0,
        **facts,
    }


def report(*benchmarks: Any) -> str:
    return json.dumps({"metadata": {"version": 1, "guidellm_version": "0.5.1"}, "benchmarks": list(benchmarks)})


def benchmark(successful: Any = (), errored: Any = (), incomplete: Any = (), **facts: Any) -> dict[str, Any]:
    groups = {"successful": successful, "incomplete": incomplete, "errored": errored, "total": None}
    return {"type_": "generative_benchmark", "requests": groups, **facts}


@pytest.mark.parametrize("request_of", [newer, older])
def test_a_request_reads_the_same_from_older_and_newer_reports(request_of: Any) -> None:
    read = read_all(FORMAT, report(benchmark([request_of()])))
    row = read.rows.row(0, named=True)
    assert (row[s.PROMPT_TOKENS], row[s.OUTPUT_TOKENS], row[s.STATUS]) == (8, 16, "ok")
    assert (row[s.TTFT_MS], row[s.TPOT_MS], row[s.ARRIVED_AT_S]) == (500.0, 233.0, 0.0)
    assert row[s.E2E_MS] == pytest.approx(4000)
    assert (read.clock, read.zero_s, read.version) == ("unix", pytest.approx(START), "0.5.1")


def test_conversations_and_cached_tokens_are_kept() -> None:
    rows = read_all(FORMAT, report(benchmark([newer()]))).rows
    assert rows.select(s.SESSION_ID, s.CACHED_TOKENS).row(0) == ("c1", 2)


def test_each_group_has_its_status() -> None:
    errored = older(first_token_time=None, time_to_first_token_ms=None, inter_token_latency_ms=None, output_tokens=0)
    read = read_all(FORMAT, report(benchmark([older()], [errored], [older()]), benchmark([newer()])))
    assert read.rows[s.STATUS].to_list() == ["ok", "cancelled", "error", "ok"]
    assert read.rows["record"].to_list()[2:] == ["benchmark 1, errored request 1", "benchmark 2, successful request 1"]
    assert read.rows.select(s.TTFT_MS, s.TPOT_MS).row(2) == (None, None)


def test_one_output_token_has_no_time_between_tokens() -> None:
    assert (
        read_all(FORMAT, report(benchmark([older(output_tokens=1, inter_token_latency_ms=0.0)]))).rows[s.TPOT_MS][0]
        is None
    )


@pytest.mark.parametrize(
    "facts",
    [{"metrics": {"request_totals": {"successful": 5}}}, {"run_stats": {"requests_made": {"successful": 5}}}],
)
def test_requests_that_were_made_but_not_listed_are_counted(facts: dict[str, Any]) -> None:
    read = read_all(FORMAT, report(benchmark([newer(), newer(request_id="r3")], **facts)))
    assert read.counted["requests made that the report does not list"] == 3


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (newer(info={"timings": {"request_end": START - 1}}), "time-backwards"),
        (older(start_time=None), "missing-key"),
        (older(prompt_tokens=None), "missing-key"),
        (older(prompt_tokens="many"), "wrong-type"),
        (older(time_to_first_token_ms=-1.0), "negative-latency"),
        (7, "wrong-type"),
    ],
)
def test_a_broken_request_is_refused_alone(request_: Any, reason: str) -> None:
    read = read_all(FORMAT, report(benchmark([older(), request_])))
    assert (len(read.rows), read.reasons) == (1, {2: reason})


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        (report(3), "requests is no object"),
        (report(benchmark("all")), 'requests.successful: "all" is no array'),
        ('{"guidellm_version": 1, "benchmarks": 2}', "benchmarks is no array"),
        (report(benchmark([newer()]))[:-9], "no JSON"),
    ],
)
def test_what_is_no_report_is_one_reject(document: str, detail: str) -> None:
    read = read_all(FORMAT, document)
    assert (read.lines, len(read.rejects)) == (1, 1)
    assert detail in read.rejects["detail"][0]


def test_it_is_known_by_its_version_or_the_type_of_a_benchmark() -> None:
    assert sniff(report().encode())
    assert sniff(b'{"benchmarks": [{"type_": "generative_benchmark", ')
    assert not sniff(b'{"benchmarks": []}')
