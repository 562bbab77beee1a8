"""Scrapes of engines. No file of them is at hand: texts and documents are made as Prometheus and vLLM document them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_logs import broken, samples_of
from lodestar.data.formats.vllm_prometheus import FORMAT
from readings import read_all

NEW = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="m"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="m"}} 2.0
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} 0.25
vllm:gpu_cache_usage_perc{{engine="0",model_name="m"}} 0.24
# HELP vllm:prefix_cache_queries_total Prefix cache queries, in terms of number of queried tokens.
vllm:prefix_cache_queries_total{{engine="0",model_name="m"}} 4000.0
vllm:prefix_cache_hits_total{{engine="0",model_name="m"}} 1000.0
vllm:num_preemptions_total{{engine="0",model_name="m"}} 7.0
vllm:prompt_tokens_total{{engine="0",model_name="m"}} {prompt}
vllm:generation_tokens_total{{engine="0",model_name="m"}} 50.0
vllm:prompt_tokens_created{{engine="0",model_name="m"}} 1.7e+09
vllm:e2e_request_latency_seconds_bucket{{le="+Inf",model_name="m"}} 3
"""
OLD = """vllm:num_requests_running{model_name="m"} 3.0
vllm:num_requests_waiting{model_name="m"} 0.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:gpu_prefix_cache_hit_rate{model_name="m"} -1.0
vllm:avg_prompt_throughput_toks_per_s{model_name="m"} 812.5
"""


def scrape(at: str = "# 2026-01-20T07:24:11Z", running: object = 3, prompt: object = 100.0) -> str:
    return at + "\n" + NEW.format(running=running, prompt=prompt)


def told(samples: Any, number: int = 0) -> dict[str, Any]:
    return {name: value for name, value in samples.row(number, named=True).items() if value is not None}


def test_a_scrape_is_read_with_its_units() -> None:
    assert FORMAT.sniff(scrape().encode())
    assert told(samples_of(FORMAT, scrape(), "pods/pod-a.prom")) == {
        "line": 4,
        "instance": "pod-a",
        "sampled_at_s": 0.0,
        "running_requests": 3.0,
        "waiting_requests": 2.0,
        "kv_usage_ratio": 0.25,
        "preemptions": 7.0,
        "prefix_queried_tokens": 4000.0,
        "prefix_hit_tokens": 1000.0,
    }
    read = read_all(FORMAT, scrape())
    assert (read.clock, read.zero_s, read.lines) == ("unix", 1768893851.0, 1)
    assert read.counted["series that tell nothing of an engine's state"] == 2


def test_the_old_names_are_known_and_a_hit_rate_of_minus_one_is_none() -> None:
    log = "# scraped at 1768893851\n" + OLD
    found = told(samples_of(FORMAT, log))
    assert (found["kv_usage_ratio"], found["prefill_tokens_per_s"]) == (0.5, 812.5)
    assert "hit_ratio" not in found
    assert read_all(FORMAT, log).counted["hit rates of -1, with which an engine says that its prefix cache is off"] == 1


@pytest.mark.parametrize(
    ("running", "waiting", "usage"),
    [
        ("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage"),
        ("trtllm_num_requests_running", "trtllm_num_requests_waiting", "trtllm_kv_cache_utilization"),
    ],
)
def test_other_engines_are_known(running: str, waiting: str, usage: str) -> None:
    log = f"# 1768893851\n{running} 1\n{waiting} 2\n{usage} 0.5\n"
    assert FORMAT.sniff(log.encode())
    columns = ("running_requests", "waiting_requests", "kv_usage_ratio")
    assert samples_of(FORMAT, log).select(columns).rows() == [(1.0, 2.0, 0.5)]


def test_rates_come_from_counters_between_scrapes_and_it_is_said() -> None:
    log = scrape("# 1768893851", prompt=100) + scrape("# 1768893861", prompt=350)
    samples = samples_of(FORMAT, log)
    assert samples.select("sampled_at_s", "prefill_tokens_per_s", "decode_tokens_per_s").rows() == [
        (0.0, None, None),
        (10.0, 25.0, 0.0),
    ]
    assert sum(n for what, n in read_all(FORMAT, log).counted.items() if "inferred from" in what) == 2


def test_a_counter_that_falls_is_a_restart_and_gives_no_rate() -> None:
    log = scrape("# 1768893851", prompt=100) + scrape("# 1768893861", prompt=10)
    assert samples_of(FORMAT, log)["prefill_tokens_per_s"].to_list() == [None, None]
    assert sum(n for what, n in read_all(FORMAT, log).counted.items() if "restarts" in what) == 1


@pytest.mark.parametrize("at", ["1768893851000", "1768893851.000", "1768893851"])
def test_times_with_the_series_are_milliseconds_or_openmetrics_seconds(at: str) -> None:
    series = 'vllm:num_requests_running{pod="a",instance="10.0.0.1:8000"} 1'
    read = read_all(FORMAT, f"{series} {at}\n# EOF\n")
    assert (read.zero_s, read.lines) == (1768893851.0, 1)


def test_a_federated_scrape_tells_of_each_pod_and_engine() -> None:
    pods = [("a", "0"), ("a", "1"), ("b", "0")]
    series = [f'vllm:num_requests_running{{pod="{pod}",engine="{engine}"}} 1 1768893851000' for pod, engine in pods]
    assert samples_of(FORMAT, "\n".join(series))["instance"].to_list() == ["a", "a/1", "b"]


def test_a_scrape_without_a_time_is_rejected_with_its_text() -> None:
    read = read_all(FORMAT, OLD + OLD)
    assert set(read.reasons.values()) == {"missing-key"}
    assert read.rejects["raw"].to_list() == [OLD.strip()] * 2


def test_a_time_without_a_zone_is_taken_for_utc_and_it_is_said() -> None:
    read = read_all(FORMAT, scrape("# date: 2026-01-20 07:24:11"))
    assert (read.zero_s, read.notes) == (1768893851.0, {"times in comments without a zone: taken for UTC"})


def test_counters_in_blocks_are_not_taken_for_tokens() -> None:
    old_help = "# HELP vllm:prefix_cache_queries_total Prefix cache queries, in terms of number of queried blocks."
    log = scrape("# 1768893851\n" + old_help)
    found = told(samples_of(FORMAT, log))
    assert "prefix_queried_tokens" not in found
    assert found["prefix_hit_tokens"] == 1000.0


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (scrape("# 1768893841"), "time-backwards"),
        (scrape("# 1768893851"), "duplicate-id"),
        (scrape("# 1768893861", running="NaN"), "not-finite"),
        (scrape("# 1768893861", running="-4"), "negative-count"),
        (scrape("# 1768893861") + 'vllm:num_requests_running{model_name="lora"} 3\n', "duplicate-id"),
        ("# 1768893861\nvllm:num_requests_running{ 3\n", "bad-text"),
        ('# 1768893861\nvllm:kv_cache_usage_perc{model_name="m"} 25\n', "unit-out-of-range"),
    ],
)
def test_an_unusable_scrape_is_rejected_with_its_reason(second: str, reason: str) -> None:
    read = read_all(FORMAT, scrape("# 1768893851") + second)
    assert list(read.reasons.values()) == [reason]
    assert read.lines == 2


def query(*series: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "matrix", "result": list(series)}}


def series(name: str, *values: Any, **labels: str) -> dict[str, Any]:
    return {"metric": {"__name__": name, **labels}, "values": list(values)}


RUNNING = series("vllm:num_requests_running", [1768893851.5, "1"], [1768893866.5, "2"], pod="a", engine="0")
USAGE = series("vllm:kv_cache_usage_perc", [1768893851.5, "0.5"], [1768893866.5, "0.25"], pod="a", engine="0")


@pytest.mark.parametrize("text", [json.dumps(query(RUNNING, USAGE)), json.dumps(query(RUNNING, USAGE), indent=1)])
def test_what_queries_say_of_an_instance_at_one_time_is_one_sample(text: str) -> None:
    assert FORMAT.sniff(text.encode())
    columns = ("instance", "sampled_at_s", "running_requests", "kv_usage_ratio")
    assert samples_of(FORMAT, text).select(columns).rows() == [("a", 0.0, 1.0, 0.5), ("a", 15.0, 2.0, 0.25)]


def test_documents_of_several_queries_in_one_file_are_put_together() -> None:
    lines = json.dumps(query(RUNNING)) + "\n" + json.dumps(query(USAGE)) + "\n"
    assert samples_of(FORMAT, lines).equals(samples_of(FORMAT, json.dumps(query(RUNNING, USAGE))))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"metric": {"pod": "a"}, "values": []}, "missing-key"),
        ({"metric": None}, "wrong-type"),
        (series("vllm:num_requests_running", ["soon", "1"]), "wrong-type"),
        (series("vllm:num_requests_running", [1768893851000, "1"]), "unit-out-of-range"),
        (series("vllm:num_requests_running", [1768893851.5, "+Inf"]), "not-finite"),
    ],
)
def test_an_unusable_part_of_a_result_is_rejected_with_its_place(part: Any, reason: str) -> None:
    read = read_all(FORMAT, json.dumps(query(RUNNING, part)))
    assert (list(read.reasons.values()), read.lines) == ([reason], 3)
    assert read.rejects["record"][0]


def test_an_error_instead_of_a_result_is_rejected() -> None:
    assert read_all(FORMAT, '{"status": "error", "error": "timeout"}').reasons == {1: "missing-key"}


@settings(max_examples=100, deadline=None)
@given(broken(query(RUNNING, USAGE)))
def test_whatever_stands_in_a_document_each_part_is_a_sample_or_a_reject(document: Any) -> None:
    read_all(FORMAT, json.dumps(document))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*scrape().splitlines(), "# 1768893861", "x", "# EOF", 'a{b="} 1', "a 1 2 3"])))
def test_lines_in_any_order_are_in_exactly_one_place(lines: list[str]) -> None:
    read_all(FORMAT, "\n".join(lines))
