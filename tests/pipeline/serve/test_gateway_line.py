"""One line of Lodestar's gateway: what it says, what is refused, and that a file of such lines says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data import schema as s
from lodestar.data.formats import lodestar_klog
from lodestar.data.sources.source import from_bytes
from lodestar.pipeline.serve.gateway_keys import outcome_in, said_in
from lodestar.pipeline.serve.gateway_line import GatewayLine, gateway_line
from lodestar.pipeline.serve.outcome import Outcome
from lodestar.pipeline.serve.refused import Refused
from serving import PODS, finished_line, infer_line


def asked(text: str) -> GatewayLine:
    """Read a line of /infer."""
    return gateway_line(said_in(text))


def finished(text: str) -> tuple[Outcome, GatewayLine]:
    """Read a line of /flush."""
    said = said_in(text)
    outcome = outcome_in(said)
    return outcome, gateway_line(said, outcome.chosen)


COLUMN = {name: i for i, name in enumerate(s.SNAPSHOT_FIELDS)}


def value(line: GatewayLine, pod: str, field: str) -> float:
    return float(line.snapshot[line.names.index(pod), COLUMN[field]])


def test_a_line_names_its_candidates_with_their_hardware_and_counts() -> None:
    text = infer_line(
        7,
        3000,
        allPodsKvCacheHitRatios={"a": 40, "b": 0},
        allPodsKvCacheLastAccess={"a": 202815, "b": 0},
        numInflightPrefillRequestsAllPods={"a": 2},
        numInflightDecodeRequestsAllPods={"b": 3},
        vllmGPUKVCacheUsage={"a": 0.5},
        numPrefillTokensForAllPods={"a": 5000},
        GPU={"a": "A30", "b": "V100"},
    )
    line = asked(text)
    assert (line.request_id, line.prompt_tokens, line.names, line.kinds) == ("7", 3000, ["a", "b"], ["A30", "V100"])
    assert line.inflight_told
    assert line.group == 6112368693372458883 & (1 << 62) - 1
    assert value(line, "a", "hit_ratio") == 0.4
    assert value(line, "a", "last_access_age_s") == 0.5
    assert np.isnan(value(line, "b", "last_access_age_s"))  # never used
    assert [value(line, pod, "inflight_requests") for pod in "ab"] == [2, 3]
    assert value(line, "b", "prefill_tokens") == 0  # a pod that a map leaves out


def test_maps_may_be_written_as_go_prints_them_or_be_null() -> None:
    as_json = infer_line(1, numPrefillTokensForAllPods=dict.fromkeys(PODS, 5), vllmNumRequestsWaiting={})
    as_go = infer_line(
        1,
        numPrefillTokensForAllPods="map[" + " ".join(f"{pod}:5" for pod in PODS) + "]",
        vllmNumRequestsWaiting="null",
    )
    np.testing.assert_array_equal(asked(as_json).snapshot, asked(as_go).snapshot)


def test_sentinels_are_not_known() -> None:
    line = asked(
        infer_line(
            1,
            allPodsKvCacheHitRatios={"a": 0, "b": 0},
            vllmGPUKVCacheUsage={"a": -9999, "b": 0.25},
            vllmNumRequestsRunning={"a": -1, "b": 2},
        )
    )
    assert np.isnan([value(line, "a", "kv_usage_ratio"), value(line, "a", "running_requests")]).all()
    assert (value(line, "b", "kv_usage_ratio"), value(line, "b", "running_requests")) == (0.25, 2)


def test_maps_left_empty_while_requests_run_are_not_told() -> None:
    empty = {"numInflightPrefillRequestsAllPods": {}, "numInflightDecodeRequestsAllPods": {}}
    busy = asked(infer_line(1, **empty, vllmNumRequestsRunning=dict.fromkeys(PODS, 2)))
    idle = asked(infer_line(1, **empty))
    assert not busy.inflight_told
    assert value(busy, PODS[0], "inflight_requests") == 2
    assert np.isnan(value(busy, PODS[0], "inflight_prefill_requests"))
    assert idle.inflight_told
    assert value(idle, PODS[0], "inflight_prefill_requests") == 0


def test_without_hit_ratios_the_hardware_names_the_candidates() -> None:
    line = asked(infer_line(1, allPodsKvCacheHitRatios="null", GPU={"x": "A30"}))
    assert line.names == ["x"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"requestID": ""}, "requestID"),
        ({"requestID": "x" * 300}, "requestID"),
        ({"numInputTokens": -5}, "numInputTokens"),
        ({"numInputTokens": "many"}, "numInputTokens"),
        ({"numInputTokens": 1e300}, "numInputTokens"),
        ({"request_start_time": "nan"}, "request_start_time"),
        ({"allPodsKvCacheHitRatios": {}, "GPU": "null"}, "allPodsKvCacheHitRatios"),
        ({"allPodsKvCacheHitRatios": {"a": 101}}, "allPodsKvCacheHitRatios"),
        ({"allPodsKvCacheHitRatios": "[1]"}, "allPodsKvCacheHitRatios"),
        ({"allPodsKvCacheHitRatios": {"": 1}}, "allPodsKvCacheHitRatios"),
        ({"allPodsKvCacheHitRatios": {f"pod-{k}": 0 for k in range(5000)}}, "allPodsKvCacheHitRatios"),
        ({"vllmGPUKVCacheUsage": {PODS[0]: 45}}, "vllmGPUKVCacheUsage"),
        ({"vllmNumRequestsWaiting": {PODS[0]: "x"}}, "vllmNumRequestsWaiting"),
        ({"vllmNumRequestsWaiting": {PODS[0]: [1]}}, "vllmNumRequestsWaiting"),
        ({"numDecodeTokensForAllPods": '{"10.0.0.1":1e999}'}, "numDecodeTokensForAllPods"),
        ({"numDecodeTokensForAllPods": '{"10.0.0.1":'}, "numDecodeTokensForAllPods"),
        ({"numDecodeTokensForAllPods": '{"10.0.0.1":' + "[" * 100_000}, "numDecodeTokensForAllPods"),
        ({"GPU": '{"10.0.0.1":'}, "GPU"),
    ],
)
def test_what_cannot_be_used_is_named(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused) as refused:
        asked(infer_line(**{"request_id": 1, **changed}))
    assert refused.value.field == named


def test_a_missing_key_is_named() -> None:
    with pytest.raises(Refused, match="vllmNumRequestsRunning is missing"):
        asked(infer_line(1).replace("@vllmNumRequestsRunning@", "@else@"))
    with pytest.raises(Refused, match="selectedpod"):
        finished(infer_line(1))


def test_a_finished_line_is_without_what_the_request_added() -> None:
    text = finished_line(
        1, PODS[2], 150, 2000, 10, numInflightPrefillRequestsAllPods={PODS[2]: 3},
        numPrefillTokensForAllPods={PODS[2]: 6803}, numInflightDecodeRequestsAllPods={PODS[2]: 1},
    )  # fmt: skip
    outcome, line = finished(text)
    assert outcome == Outcome("1", PODS[2], 150, 20, 330, 10, "ok")
    assert value(line, PODS[2], "inflight_prefill_requests") == 2
    assert value(line, PODS[2], "prefill_tokens") == 4803
    assert value(line, PODS[2], "inflight_requests") == 3


counts = st.dictionaries(st.sampled_from(PODS), st.integers(0, 9))


@given(st.lists(st.tuples(counts, counts, counts, counts, st.integers(0, 5000), st.sampled_from(PODS)), max_size=4))
def test_a_file_of_lines_reads_the_same(drawn: list[Any]) -> None:
    """The vectorised reader of `lodestar ingest` and the reader of one line are two ways to the same numbers."""
    texts = [
        finished_line(
            k, pod, 100 + k, prompt_tokens,
            allPodsKvCacheHitRatios={pod: 10 * n for n, pod in enumerate(PODS)},
            allPodsKvCacheLastAccess={pod: 1000 * n for n, pod in enumerate(PODS)},
            numInflightPrefillRequestsAllPods={**prefill, pod: prefill.get(pod, 0) + 1},
            numInflightDecodeRequestsAllPods=decode,
            vllmNumRequestsRunning=running, vllmNumRequestsWaiting=waiting,
            numPrefillTokensForAllPods={pod: prompt_tokens + 700 * prefill.get(pod, 0)},
        )
        for k, (prefill, decode, running, waiting, prompt_tokens, pod) in enumerate(drawn)
    ]  # fmt: skip
    assert_same(texts)


def test_real_lines_read_the_same(traces: Path) -> None:
    assert_same((traces / "lodestar" / "gateway-2026-04.klog").read_text().splitlines())


def assert_same(texts: list[str]) -> None:
    if not texts:
        return
    readings = list(lodestar_klog.FORMAT.read(from_bytes(("\n".join(texts) + "\n").encode(), "log")))
    frame = {(row["line"], row["instance"]): row for part in readings for row in part.candidates.iter_rows(named=True)}
    rows = {row["line"]: row for part in readings for row in part.rows.iter_rows(named=True)}
    assert len(rows) == len(texts)
    for number, text in enumerate(texts, start=1):
        (outcome, line), row = finished(text), rows[number]
        assert (outcome.request_id, outcome.chosen) == (row["request_id"], row["instance"])
        assert [outcome.ttft_ms, outcome.e2e_ms, line.prompt_tokens, outcome.output_tokens] == [
            row[name] for name in ("ttft_ms", "e2e_ms", "prompt_tokens", "output_tokens")
        ]
        for name, found in zip(line.names, line.snapshot, strict=True):
            expected = [frame[number, name][field] for field in s.SNAPSHOT_FIELDS]
            np.testing.assert_allclose(found, np.array(expected, dtype=np.float64), rtol=1e-12, err_msg=name)
