"""A few rows of every log format, made by hand, and the real logs that stand beside them: where a fuzzer starts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["CSV_HEADS", "NATIVE", "REAL", "SEEDS", "cut", "json_lines", "parquet", "real_seeds"]

REAL_BYTES: Final = 6_000
Json = dict[str, Any]


def json_lines(*records: Any) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def parquet(*records: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(records)), sink)
    return bytes(sink.getvalue())


NATIVE: Final[list[Json]] = [
    {
        "request": {"request_id": f"r{i}", "arrived_at_s": i / 2, "prompt_tokens": 35, "block_ids": [i, -7, 2**60]},
        "block_tokens": 16,
        "policy": "soft",
        "candidates": [
            {"instance": "a", "gpu": "H100", "hit_ratio": 0.5, "probability": 0.25, "running_requests": 3},
            {"instance": "b", "hit_ratio": 0.0, "probability": 0.75},
        ],
        "chosen": "a",
        "outcome": {"ttft_ms": 5.0, "tpot_ms": 1.0, "e2e_ms": 7.0, "status": "ok"},
    }
    for i in range(3)
]
MOONCAKE: Final[list[Json]] = [
    {"timestamp": 27 * i, "input_length": 600, "output_length": 52, "hash_ids": [46 + i, 47]} for i in range(4)
]
QWEN: Final[list[Json]] = [
    {"chat_id": 5 + i, "parent_chat_id": i - 1, "timestamp": 61.1 + i, "input_length": 40, "output_length": 132}
    | {"type": "text", "turn": 1, "hash_ids": [7, 8, 9]}
    for i in range(3)
]
PODS: Final = ("10.0.0.131", "10.0.1.112")
MAP: Final = json.dumps(dict.fromkeys(PODS, 1), separators=(",", ":"))
KLOG: Final = (
    "I0829 00:46:57.280601       1 gateway_rsp_body.go:688] **@latency_metrics@requestID@{id}@request_start_time@{at}"
    f"@selectedpod@{PODS[0]}@ttft@335@avg_tpot@28@e2e@3159@numInputTokens@1939@numOutputTokens@100"
    f"@allPodsKvCacheHitRatios@{{{{}}}}@numInflightRequestsAllPods@{MAP.replace('{', '{{').replace('}', '}}')}"
    "@vllmGPUKVCacheUsage@{map}@vllmNumRequestsRunning@{map}@vllmNumRequestsWaiting@{map}"
    "@numPrefillTokensForAllPods@{map}@numDecodeTokensForAllPods@{map}{newer}@explorationEnabled@-1@"
)
NEWER_KLOG: Final = (
    f"@numInflightPrefillRequestsAllPods@{MAP}@numInflightDecodeRequestsAllPods@null@allPodsKvCacheLastAccess@{MAP}"
    f'@subAlgorithm@x@GPU@{{"{PODS[0]}":"NVIDIA-A30"}}@@predictedRewards@null'
)
AZURE_HEAD: Final = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST_HEAD: Final = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
LODESTAR_HEAD: Final = "request_id,selected_pod,input_tokens,output_tokens,total_tokens,ttft,avg_tpot,e2e_latency"
POD_HEAD: Final = "".join(f",{pod}-{name}" for pod in "ab" for name in ("kv_hit_ratio", "inflight_requests"))
SERIES_HEAD: Final = "t,prompt_throughput,gen_throughput,running,waiting,kv_cache_pct\n"
#: Formats of CSV, whose first line is no row.
CSV_HEADS: Final = {
    "azure": AZURE_HEAD,
    "burstgpt": BURST_HEAD,
    "lodestar-csv": f"{LODESTAR_HEAD}{POD_HEAD}\n",
    "vllm-timeseries-series": SERIES_HEAD,
}
BENCH: Final[Json] = {
    "request_throughput": 2.0,
    "total_input_tokens": 20,
    "input_lens": [10, 10],
    "output_lens": [5, 0],
    "ttfts": [0.5, 0.0],
    "itls": [[0.1, 0.3], []],
    "errors": ["", "Connection reset"],
    "start_times": [100.0, 100.25],
}
AIPERF: Final[list[Json]] = [
    {
        "metadata": {
            "x_request_id": f"r{i}",
            "x_correlation_id": "s1",
            "request_start_ns": 1759813207532900363 + i,
            "request_end_ns": 1759813207838764604,
            "record_processor_id": "p",
            "benchmark_phase": "profiling",
            "was_cancelled": False,
        },
        "metrics": {
            "input_sequence_length": {"value": 550, "unit": "tokens"},
            "output_sequence_length": {"value": 9, "unit": "tokens"},
            "time_to_first_token": {"value": 255.5, "unit": "ms"},
            "inter_token_latency": {"value": 5.25, "unit": "ms"},
            "request_latency": {"value": 297.5, "unit": "ms"},
        },
        "error": None if i else {"code": 499, "type": "RequestCancellationError"},
    }
    for i in range(3)
]
GUIDELLM: Final[Json] = {
    "metadata": {"version": 1, "guidellm_version": "0.5.1"},
    "benchmarks": [
        {
            "type_": "generative_benchmark",
            "request_totals": {"successful": 3},
            "requests": {
                "successful": [
                    {
                        "request_id": "r1",
                        "info": {"conversation_id": "c1", "timings": {"request_start": 1759354691.7}},
                        "input_metrics": {"total_tokens": 8},
                        "output_metrics": {"total_tokens": 16},
                        "request_start_time": 1759354691.7,
                        "request_end_time": 1759354695.7,
                        "time_to_first_token_ms": 500.0,
                        "inter_token_latency_ms": 233.0,
                    }
                ],
                "incomplete": [],
                "errored": [{"request_id": "r2", "prompt_tokens": 8, "output_tokens": 16, "start_time": 1759354691.9}],
            },
        }
    ],
}
INFERENCE_PERF: Final[list[Json]] = [
    {
        "start_time": 1000.0 + i,
        "end_time": 1001.0 + i,
        "request": "{}",
        "info": {"input_tokens": 100, "output_tokens": 5, "output_token_times": [1000.5 + i, 1000.7 + i]},
        "error": {"error_type": "TimeoutError"} if i else None,
    }
    for i in range(2)
]
CALL: Final[Json] = {"t": 0.5, "type": "n", "model": "large", "in": 130, "out": 9, "hash_ids": [1, 2], "api_time": 7.25}
WEKA: Final[Json] = {
    "id": "one",
    "block_size": 64,
    "hash_id_scope": "local",
    "requests": [
        CALL,
        {"t": 1.0, "type": "subagent", "agent_id": "a", "requests": [CALL, {**CALL, "t": 2, "ttft": 1}]},
    ],
}
DYNAMO: Final[list[Json]] = [
    {
        "schema": "dynamo.request.trace.v1",
        "event_type": "request_end",
        "agent_context": {"session_id": "run-42"},
        "request": {
            "request_id": f"req-{i}",
            "input_tokens": 35,
            "output_tokens": 11,
            "cached_tokens": 32,
            "request_received_ms": 1_780_000_000_000 + i,
            "prefill_wait_time_ms": 4.5,
            "prefill_time_ms": 45.5,
            "ttft_ms": 50.0,
            "total_time_ms": 1250.0,
            "avg_itl_ms": 120.0,
            "kv_hit_rate": 0.66,
            "worker": {"prefill_worker_id": 7587890434912345678, "prefill_dp_rank": 0, "decode_worker_id": 12},
            "replay": {"trace_block_size": 16, "input_length": 35, "input_sequence_hashes": [1, 2**63 - 1, 2**64 - 1]},
            "finish_reason_metadata": {"finish_reason": "stop"},
        },
    }
    for i in range(3)
]
SPAN: Final[Json] = {
    "traceId": "00112233445566778899aabbccddeeff",
    "spanId": "10738849ca6f18cd",
    "name": "llm_request",
    "startTimeUnixNano": "1768918269000000000",
    "endTimeUnixNano": "1768918271500000000",
    "attributes": [
        {"key": "gen_ai.request.id", "value": {"stringValue": "cmpl-b9e4-0"}},
        {"key": "gen_ai.usage.prompt_tokens", "value": {"intValue": "2998"}},
        {"key": "gen_ai.usage.completion_tokens", "value": {"intValue": 56}},
        {"key": "gen_ai.latency.time_to_first_token", "value": {"doubleValue": 1.5}},
        {"key": "gen_ai.latency.e2e", "value": {"doubleValue": 2.5}},
    ],
    "status": {"code": 1},
}
OTLP: Final[Json] = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "vllm-a"}}]},
            "scopeSpans": [{"scope": {"name": "vllm"}, "spans": [SPAN, {**SPAN, "spanId": "ff", "name": "other"}]}],
        }
    ]
}


def otlp_protobuf() -> bytes:
    record = json.loads(json.dumps(OTLP))
    for span in record["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        span["traceId"] = span["spanId"] = "AAECAwQFBgc="
    return bytes(ParseDict(record, ExportTraceServiceRequest()).SerializeToString())


VLLM_LOG: Final = """INFO 02-28 16:25:20 api_server.py:1] vLLM API server version 0.6.1
INFO 02-28 16:25:24 metrics.py:467] Avg prompt throughput: 2081.3 tokens/s, Avg generation throughput: 79.5 tokens/s, \
Running: 2 reqs, Swapped: 0 reqs, Pending: 3 reqs, GPU KV cache usage: 2.0%, CPU KV cache usage: 0.0%.
INFO 02-28 16:25:24 metrics.py:483] Prefix cache hit rate: GPU: 61.48%, CPU: 0.00%
2026-01-20 06:11:05,161 INFO vllm.v1.metrics.loggers: Engine 001: Avg prompt throughput: 598.2 tokens/s, Avg \
generation throughput: 6.4 tokens/s, Running: 1 reqs, Waiting: 4 reqs, GPU KV cache usage: 6.7%, Prefix cache hit \
rate: 17.1%
"""
SCRAPES: Final = """# 2026-01-20T07:24:11Z
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="m"} 3
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:prefix_cache_queries_total{engine="0"} 4000.0
vllm:prefix_cache_hits_total{engine="0"} 1000.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 100.0
# scraped at 1768893861
vllm:num_requests_running{pod="a",model_name="m"} 4 1768893861000
vllm:e2e_request_latency_seconds_bucket{le="+Inf",model_name="m"} 3
# EOF
"""
RUNNING: Final = {"__name__": "vllm:num_requests_running", "pod": "a", "model_name": "m"}
QUERY: Final[Json] = {
    "status": "success",
    "data": {
        "resultType": "matrix",
        "result": [{"metric": RUNNING, "values": [[1768893851, "3"], [1768893856.5, "4"]]}],
    },
}
TIMESERIES: Final[list[Json]] = [
    {
        "request_id": f"bench-{i}",
        "input_toks": 2358,
        "output_toks": 531,
        "arrival_time": 1777142838.25 + i,
        "queued_ts": 479748.25,
        "scheduled_ts": 479748.5,
        "first_token_ts": 479749.0,
        "last_token_ts": 479764.0,
    }
    for i in range(3)
]
META: Final[Json] = {"vllm_version": "0.19.0", "started_at": "2026-04-25T18:47:18.273385Z", "tick_seconds": 1.0}
CLIENT: Final[list[Json]] = [
    {
        "request_id": i,
        "status": "success",
        "input": [{"role": "user", "content": "prompt é " * 20}],
        "output": "x",
        "prompt_tokens": 43,
        "output_tokens": 20,
        "start_time": 1740788717.5 + i,
        "end_time": 1740788718.5 + i,
        "latency": 1.0,
        "ttft": 0.25,
        "tpot": 0.0375,
    }
    for i in range(3)
]
GATEWAY_AT: Final = "I0301 00:25:{:09.6f}       1 gateway.go:207] "
GATEWAY: Final = "\n".join(
    GATEWAY_AT.format(17.5 + i / 10) + said
    for i, said in enumerate(
        [
            "trace ticker start at 2025-03-01 00:25:17.4 +0000 UTC m=+0.1",
            '"Processing request" requestID="a1"',
            '"request start" routing-strategy="random" requestID="a1" model="m"',
            '"First token received" requestID="a1" ttft_ms=180',
            "** latency metrics, hash(request), d47226ff, selectedpod, 10.0.1.20:8000, ttft, 180, tpot, 18, e2e, 515, "
            "numInputTokens, 1043, numOutputTokens, 44, numTotalTokens, 1087",
            '"Request completed" requestID="a1" targetPod="10.0.1.20:8000" promptTokens=1043 completionTokens=44',
            '"request_start" request_id="b2" routing_strategy="prefix-cache" routing_time_taken="1.5ms"',
            '"prefix_cache_matched_pods" request_id="b2" matched_pods={"p-1":50} pod_request_count={"p-1":2,"p-2":0}',
            '"request_end" request_id="b2" target_pod="p-1" prompt_tokens=99 completion_tokens=7 ttft="12ms" '
            'total_time_taken="1.2s"',
            '"Processing request" requestID="c3"',
        ]
    )
)
WORKLOAD: Final[list[Json]] = [
    {"timestamp": 79 + i, "requests": [{"Prompt Length": 43, "Output Length": 8, "prompt": "abc " * 45}] * (i + 1)}
    for i in range(2)
]
LLM_D: Final[list[Json]] = [
    {
        "kv_cache_percentage": 0.25,
        "input_token_length": 6545,
        "num_request_waiting": 0,
        "num_request_running": 1,
        "num_tokens_generated": 0,
        "actual_ttft_ms": 1738 * i,
        "actual_tpot_ms": 28.5 * (1 - i),
        "prefix_cache_score": 0.98,
        "prefill_tokens_in_flight": 10176,
        "decode_tokens_in_flight": 0,
    }
    for i in range(2)
]

#: Format → contents that it reads.
SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "native": (json_lines(*NATIVE), parquet(*NATIVE)),
    "lodestar-csv": (
        f"{CSV_HEADS['lodestar-csv']}9,a,100,5,105,20,3,40,0,1,25,0\n10,b,90,5,95,20,3,40,50,0,0,2\n".encode(),
    ),
    "lodestar-klog": (
        "\n".join(
            [KLOG.format(id=i, at=i * 10**6, map=MAP, newer=newer) for i, newer in enumerate(("", "", NEWER_KLOG))]
        ).encode(),
    ),
    "mooncake": (json_lines(*MOONCAKE),),
    "azure": (f"{AZURE_HEAD}2024-05-10 00:00:01.25,10,1\n2024-05-10 00:00:05+02:00,11,2\n".encode(),),
    "vllm-bench": (json_lines(BENCH, BENCH), json.dumps(BENCH, indent=1).encode()),
    "aiperf": (json_lines(*AIPERF),),
    "guidellm": (json_lines(GUIDELLM),),
    "inference-perf": (json_lines(INFERENCE_PERF),),
    "burstgpt": (
        f'{BURST_HEAD}5,,43,ChatGPT,472,18,490,"Conv. log"\n45.5,1722ac82,2,GPT-4,1087,0,1317,API log\n'.encode(),
    ),
    "qwen-bailian": (json_lines(*QWEN),),
    "weka": (json_lines(WEKA), json_lines(WEKA, {**WEKA, "id": "two"})),
    "dynamo": (
        json_lines(*DYNAMO),
        json_lines({"event": DYNAMO[0]}, {"schema": "dynamo.request.trace.v1", "event_type": "tool_end"}),
    ),
    "vllm-otlp": (json_lines(OTLP, {"resourceLogs": []}), otlp_protobuf()),
    "vllm-log": (VLLM_LOG.encode(),),
    "vllm-prometheus": (SCRAPES.encode(), json_lines(QUERY)),
    "vllm-timeseries": (json_lines(*TIMESERIES),),
    "vllm-timeseries-series": (f"{SERIES_HEAD}1.0,9069.0,166.0,9,0,0.0\n2.0,10012.0,488.0,19,1,0.25\n".encode(),),
    "vllm-timeseries-meta": (json.dumps(META, indent=1).encode(),),
    "aibrix-client": (json_lines(*CLIENT),),
    "aibrix-gateway": (GATEWAY.encode(),),
    "aibrix-workload": (json_lines(*WORKLOAD),),
    "llm-d": (json_lines(*LLM_D),),
}
#: Format → its real logs, below the folder of traces.
REAL: Final[dict[str, tuple[str, ...]]] = {
    "lodestar-csv": ("lodestar/sharing47/random.csv.gz",),
    "lodestar-klog": ("lodestar/sharing09/rl.klog.gz", "lodestar/gateway-2026-04.klog"),
    "mooncake": ("mooncake/conversation_trace.jsonl.gz",),
    "azure": ("azure/AzureLLMInferenceTrace_conv.csv.gz",),
    "aiperf": ("aiperf/profile_export.jsonl.gz",),
    "vllm-otlp": ("vllm-otel/codellama-34b-prefill.otlp.json.gz",),
    "vllm-log": ("vllm-otel/codellama-34b-prefill.vllm.log.gz", "aibrix/random/engine/64d7fc4d65-4jvnd.log.gz"),
    "vllm-timeseries": ("vllm-timeseries/rtxpro6000-Llama-3.1-8B/requests.jsonl.gz",),
    "vllm-timeseries-series": ("vllm-timeseries/rtxpro6000-Llama-3.1-8B/timeseries.csv.gz",),
    "vllm-timeseries-meta": ("vllm-timeseries/rtxpro6000-Llama-3.1-8B/meta.json.gz",),
    "aibrix-client": ("aibrix/random/client-output.jsonl.gz",),
    "aibrix-gateway": ("aibrix/random/gateway.klog.gz", "aibrix/prefix-cache-and-load/gateway.klog.gz"),
    "aibrix-workload": ("aibrix/workload.jsonl.gz",),
    "llm-d": ("llm-d-predictor/bimodal-h200.jsonl.gz",),
}


def cut(content: bytes, size: int = REAL_BYTES) -> bytes:
    """Keep the first lines of a log, one at least."""
    end = content.rfind(b"\n", 0, size) + 1 or content.find(b"\n") + 1
    return content[:end] if end else content[:size]


def real_seeds(traces: Path, name: str) -> Iterator[bytes]:
    """Give the first lines of the real logs of a format, as far as they are there."""
    for path in (traces / file for file in REAL.get(name, ())):
        if path.is_file():
            content = path.read_bytes()
            yield cut(gzip.decompress(content) if path.suffix == ".gz" else content)
