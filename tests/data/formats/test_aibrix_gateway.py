"""The samples are of the first generation; lines of the second are built from its documented fields."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data import schema as s
from lodestar.data.formats.aibrix_gateway import FORMAT, sniff
from lodestar.data.sources.source import from_bytes
from readings import read_all

ARMS = ("random", "least-request", "prefix-cache", "prefix-cache-and-load")
AT = "I0823 10:00:0{}.{:06d}       1 gateway.go:1] "
OLD = [
    AT.format(0, 0) + '"Processing request" requestID="u1"',
    AT.format(0, 1000) + '"request start" routing-strategy="random" requestID="u1" model="m"',
    AT.format(0, 1500) + "(Routing logic overhead) selectTargetPod latency: 0.0000, target pod: 10.0.0.1:8000",
    AT.format(0, 200000) + '"First token received" requestID="u1" ttft_ms=199',
    AT.format(1, 0)
    + "** latency metrics, hash(request), ab, selectedpod, 10.0.0.1:8000, ttft, 199, tpot, 40, e2e, 999, "
    "numInputTokens, 100, numOutputTokens, 21, numTotalTokens, 121",
    AT.format(1, 1)
    + '"Request completed" requestID="u1" targetPod="10.0.0.1:8000" promptTokens=100 completionTokens=21',
]
NEW = [
    AT.format(0, 900) + '"prefix_cache_matched_pods" request_id="u2" target_pod="pod-b" target_pod_ip="10.0.0.2" '
    'matched_pods={"pod-b":75} pod_request_count={"pod-a":3,"pod-b":1}',
    AT.format(0, 1200) + '"request_start" request_id="u2" request_path="/v1/chat/completions" model="m" stream=true '
    'routing_strategy="prefix-cache" target_pod="pod-b" target_pod_ip="10.0.0.2:8000" outstanding_requests=2 '
    'routing_time_taken="1.2ms"',
    AT.format(2, 0)
    + '"request_end" request_id="u2" model_name="m" prompt_tokens=500 completion_tokens=30 total_tokens=530 '
    'target_pod="pod-b" outstanding_request_count=1 routing_time_taken="1.2ms" total_time_taken="2.0012s"',
]
TICKER = AT.format(0, 0) + "trace ticker start at 2026-08-23 10:00:00.000001 +0200 CEST m=+0.1"


def log(lines: list[str]) -> bytes:
    return "\n".join(lines).encode() + b"\n"


def gateway(traces: Path, arm: str) -> Path:
    return traces / "aibrix" / arm / "gateway.klog.gz"


@pytest.mark.parametrize("arm", ARMS)
def test_every_request_of_a_sample_has_its_decision_and_latencies(traces: Path, arm: str) -> None:
    read = read_all(FORMAT, gateway(traces, arm))
    assert len(read.rows) == 320
    assert set(read.rows[s.POLICY]) == {arm}
    wanted = [s.INSTANCE, s.TTFT_MS, s.TPOT_MS, s.E2E_MS, s.OUTPUT_TOKENS]
    assert sum(read.rows[name].null_count() for name in wanted) == 0
    # End-to-end times are whole milliseconds from when the routing began until the last token.
    assert (read.rows[s.E2E_MS] >= read.rows[s.TTFT_MS]).all()


def test_requests_that_never_ended_are_refused(traces: Path) -> None:
    read = read_all(FORMAT, gateway(traces, "prefix-cache"))
    assert (read.lines, len(read.rows)) == (323, 320)
    assert Counter(read.rejects["reason"]) == {"missing-key": 3}
    assert read.rejects["record"][0].startswith("request ")
    assert all("Processing request" in raw for raw in read.rejects["raw"])


def test_year_and_zone_follow_from_the_line_that_shows_them(traces: Path) -> None:
    read = read_all(FORMAT, gateway(traces, "random"))
    assert (read.clock, int(read.zero_s)) == ("unix", 1740788717)  # 2025-03-01 00:25:17 UTC
    assert read_all(FORMAT, log([TICKER, *OLD])).zero_s == 1787472000.0  # 08:00:00 UTC


def test_without_that_line_times_are_the_logs_own() -> None:
    read = read_all(FORMAT, log(OLD))
    assert read.clock == "aibrix-gateway"
    assert any("no line tells the year" in note for note in read.notes)


def candidates(path: Path) -> pl.DataFrame:
    parts = list(FORMAT.read(from_bytes(gzip.decompress(path.read_bytes()))))
    rows = pl.concat([part.rows for part in parts]).select("line", chosen=s.INSTANCE)
    return pl.concat([part.candidates for part in parts]).join(rows, on="line")


def test_candidates_are_the_ready_pods_with_the_share_that_the_log_tells(traces: Path) -> None:
    found = candidates(gateway(traces, "prefix-cache"))
    assert found.group_by("line").len()["len"].unique().to_list() == [8]
    assert found.filter(pl.col(s.INSTANCE) == pl.col("chosen"))[s.HIT_RATIO].null_count() == 0
    assert found["line"].n_unique() == 304  # of 320: the others' could be more than one


def test_chances_follow_from_the_rule_and_the_threshold_that_the_log_shows(traces: Path) -> None:
    found = candidates(gateway(traces, "prefix-cache"))
    sums = found.group_by("line").agg(pl.col(s.PROBABILITY).sum())[s.PROBABILITY]
    assert (sums - 1).abs().max() < 1e-9
    chosen = found.filter(pl.col(s.INSTANCE) == pl.col("chosen"))
    # A wrong rule would sooner or later give a pod that was chosen no chance.
    assert chosen[s.PROBABILITY].min() >= 1 / 8
    assert chosen.filter(pl.col(s.PROBABILITY) < 1).height > 100


def test_pods_have_their_names_where_the_log_tells_them(traces: Path) -> None:
    found = candidates(gateway(traces, "prefix-cache-and-load"))
    assert found["line"].n_unique() == 310
    assert all(name.startswith("deepseek-llm-7b-chat-66f657bd76-") for name in found[s.INSTANCE].unique())
    notes = read_all(FORMAT, gateway(traces, "prefix-cache-and-load")).notes
    assert any("deepseek-llm-7b-chat-66f657bd76-8jhhn at 10.0.0.134" in note for note in notes)


def test_lines_for_people_give_one_row_with_units() -> None:
    row = read_all(FORMAT, log(OLD)).rows.row(0, named=True)
    assert (row[s.REQUEST_ID], row[s.INSTANCE], row[s.POLICY]) == ("u1", "10.0.0.1", "random")
    assert (row[s.TTFT_MS], row[s.TPOT_MS], row[s.E2E_MS], row[s.STATUS]) == (199, 40, 999, "ok")


def test_structured_lines_give_one_row_with_candidates() -> None:
    (part,) = FORMAT.read(from_bytes(log(NEW)))
    assert part.version == "structured"
    row = part.rows.row(0, named=True)
    assert (row[s.INSTANCE], row[s.PROMPT_TOKENS], row[s.OUTPUT_TOKENS]) == ("pod-b", 500, 30)
    assert row[s.E2E_MS] == pytest.approx(2001.2)
    told = part.candidates.select(s.INSTANCE, s.HIT_RATIO, s.INFLIGHT_REQUESTS).rows()
    assert told == [("pod-a", 0.0, 3.0), ("pod-b", 0.75, 1.0)]


def test_an_arrival_is_when_the_routing_began() -> None:
    assert read_all(FORMAT, log([TICKER, *NEW])).zero_s == 1787472000.0


def test_a_completion_without_token_counts_is_refused() -> None:
    end = AT.format(3, 0) + "request end, requestID: u9 - targetPod: 10.244.2.126:8000, elapsed: 1m20.298186s"
    read = read_all(FORMAT, log([*OLD, end]))
    assert read.reasons == {7: "missing-key"}


def test_decisions_that_could_be_of_two_requests_are_of_none() -> None:
    route = (
        AT.format(0, 1400) + '"prefix cache route" message="[]" tokens=[1,2] matched_tokens=[{}] unmatched_tokens=[2] '
    )
    route += 'matched_pods=["10.0.0.1"] ready_pods=["10.0.0.1","10.0.0.2"] target_pod="10.0.0.1"'
    first = [OLD[0], OLD[1], route.format(1), OLD[2]]
    second = [line.replace("u1", "u2") for line in OLD[:2]] + [route.format(""), OLD[2]]
    ends = [*OLD[3:], *(line.replace("u1", "u2") for line in OLD[3:])]
    (part,) = FORMAT.read(from_bytes(log([*first, *second, *ends])))
    assert (len(part.rows), len(part.candidates)) == (2, 0)
    (part,) = FORMAT.read(from_bytes(log([*first, *OLD[3:]])))
    assert part.candidates[s.HIT_RATIO].to_list() == [0.5, None]


@given(
    st.lists(
        st.sampled_from([*OLD, *NEW, TICKER, "", "Connected", *(line[: len(line) // 2] for line in OLD + NEW)]),
        max_size=40,
    )
)
def test_lines_in_any_order_never_crash_or_get_lost(lines: list[str]) -> None:
    read_all(FORMAT, log(lines))


def test_it_knows_its_own(traces: Path) -> None:
    for arm in ARMS:
        assert sniff(gzip.decompress(gateway(traces, arm).read_bytes())[: 1 << 18])
    assert sniff(log(NEW))
    assert sniff(log(OLD))
    assert not sniff(b"I0401 00:02:34.128704       1 gateway_rsp_body.go:1013] **@latency_metrics@requestID@4@")
