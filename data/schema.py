"""The canonical tables: every column is declared here once and used by this name elsewhere.

Times are seconds from the dataset's first arrival (``datasets.origin_s`` is that arrival in Unix time, where known);
latencies are milliseconds; ratios lie between 0 and 1. NULL means "the log does not say", never zero.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CUT_OFF", "OUTCOMES_LATENCIES", "PHASES", "SAMPLE_FIELDS", "SNAPSHOT_FIELDS", "TABLES"]

# Who and what
DATASET: Final = "dataset"
SOURCE_ID: Final = "source_id"
REQUEST_INDEX: Final = "request_index"  # 0, 1, … in the order in which they were stored, unique in the store
REQUEST_ID: Final = "request_id"  # as the log names it; NULL where it names none
INSTANCE_INDEX: Final = "instance_index"  # 0, 1, … in the order in which the dataset first saw them
INSTANCE: Final = "instance"
GPU: Final = "gpu"

# Requests
ARRIVED_AT_S: Final = "arrived_at_s"
PROMPT_TOKENS: Final = "prompt_tokens"
OUTPUT_TOKENS: Final = "output_tokens"
BLOCK_IDS: Final = "block_ids"
SESSION_ID: Final = "session_id"  # requests of one conversation or agent tree
CACHED_TOKENS: Final = "cached_tokens"  # prompt tokens that the engine says it found in its cache

# In the order of dispatch of its source, where neither arrivals nor lines tell it
DISPATCH_NUMBER: Final = "dispatch_number"

# What the router knew of one instance when it decided
HIT_RATIO: Final = "hit_ratio"  # share of the prompt that the router believes cached there
INFLIGHT_REQUESTS: Final = "inflight_requests"  # sent and not finished, without this request
RUNNING_REQUESTS: Final = "running_requests"
WAITING_REQUESTS: Final = "waiting_requests"
KV_USAGE_RATIO: Final = "kv_usage_ratio"
INFLIGHT_PREFILL_REQUESTS: Final = "inflight_prefill_requests"  # sent, no first token yet
INFLIGHT_DECODE_REQUESTS: Final = "inflight_decode_requests"  # past the first token
PREFILL_TOKENS: Final = "prefill_tokens"  # prompt tokens of the requests with no first token yet
DECODE_TOKENS: Final = "decode_tokens"  # tokens generated so far by the requests in flight
LAST_ACCESS_AGE_S: Final = "last_access_age_s"  # since the deepest matched block was last used
SCORE: Final = "score"
PROBABILITY: Final = "probability"  # that the policy gave this candidate

# Decisions and outcomes
POLICY: Final = "policy"
PROPENSITY: Final = "propensity"  # probability of the chosen candidate
SNAPSHOT_AGE_MS: Final = "snapshot_age_ms"
MODEL_VERSION: Final = "model_version"
TTFT_MS: Final = "ttft_ms"
TPOT_MS: Final = "tpot_ms"
E2E_MS: Final = "e2e_ms"
QUEUE_MS: Final = "queue_ms"  # in the engine, before its first step
PREFILL_MS: Final = "prefill_ms"  # from the first step to the first token
DECODE_MS: Final = "decode_ms"  # from the first token to the last
STATUS: Final = "status"  # 'ok', 'cancelled' (by the client), 'timeout', 'error'

# What engines say of themselves
SAMPLED_AT_S: Final = "sampled_at_s"  # as the clock of the sample shows it
PREFILL_TOKENS_PER_S: Final = "prefill_tokens_per_s"
DECODE_TOKENS_PER_S: Final = "decode_tokens_per_s"
PREEMPTIONS: Final = "preemptions"  # since the engine started
PREFIX_QUERIED_TOKENS: Final = "prefix_queried_tokens"  # prompt tokens looked up in the cache since it started
PREFIX_HIT_TOKENS: Final = "prefix_hit_tokens"  # of these, found

SNAPSHOT_FIELDS: Final = (
    HIT_RATIO,
    INFLIGHT_REQUESTS,
    RUNNING_REQUESTS,
    WAITING_REQUESTS,
    KV_USAGE_RATIO,
    INFLIGHT_PREFILL_REQUESTS,
    INFLIGHT_DECODE_REQUESTS,
    PREFILL_TOKENS,
    DECODE_TOKENS,
    LAST_ACCESS_AGE_S,
)
OUTCOMES_LATENCIES: Final = (TTFT_MS, TPOT_MS, E2E_MS)
#: Requests that ended before they were served: what was measured until then is a lower bound, and no failure.
CUT_OFF: Final = ("cancelled", "timeout")
PHASES: Final = (QUEUE_MS, PREFILL_MS, DECODE_MS)
SAMPLE_FIELDS: Final = (
    RUNNING_REQUESTS,
    WAITING_REQUESTS,
    KV_USAGE_RATIO,
    HIT_RATIO,  # of the engine's own prefix cache
    PREFILL_TOKENS_PER_S,
    DECODE_TOKENS_PER_S,
    PREEMPTIONS,
    PREFIX_QUERIED_TOKENS,
    PREFIX_HIT_TOKENS,
)

#: Table → column → DuckDB type, in the order in which the columns are stored.
TABLES: Final[dict[str, dict[str, str]]] = {
    "datasets": {
        DATASET: "VARCHAR PRIMARY KEY",
        "created_at": "TIMESTAMPTZ",
        "origin_s": "DOUBLE",
        "clock": "VARCHAR",  # 'unix', or the format whose own clock the arrivals are read from; NULL without arrivals
        "clock_start_s": "DOUBLE",  # what that clock showed at the first arrival
        "block_tokens": "INTEGER",  # prompt tokens in one prefix block, where block ids are logged
        POLICY: "VARCHAR",  # the logging policy where one is known for the whole dataset
    },
    # A source owns the requests first_request_index … last_request_index, and what hangs on them.
    "sources": {
        SOURCE_ID: "VARCHAR",
        DATASET: "VARCHAR",
        "number": "INTEGER",  # 0, 1, … in the order in which they came; a new version keeps its predecessor's
        "file": "VARCHAR",
        "sha256": "VARCHAR",
        "format": "VARCHAR",
        "version": "VARCHAR",  # of the format, where the log shows it
        "bytes": "BIGINT",
        "licence": "VARCHAR",  # where one lies beside the file
        "rows": "BIGINT",
        "stored": "BIGINT",
        "rejected": "BIGINT",
        "first_request_index": "BIGINT",
        "last_request_index": "BIGINT",
        "clock": "VARCHAR",  # of its times; NULL where it has none
        "first_at_s": "DOUBLE",  # its first and last time, as that clock shows them
        "last_at_s": "DOUBLE",
        "notes": "VARCHAR",  # what a user should know of how the file was read, a sentence a line
        "ingested_at": "TIMESTAMPTZ",
    },
    "requests": {
        DATASET: "VARCHAR",
        REQUEST_INDEX: "BIGINT",
        REQUEST_ID: "VARCHAR",
        "line": "BIGINT",  # in the source that owns its index
        ARRIVED_AT_S: "DOUBLE",
        PROMPT_TOKENS: "BIGINT",
        OUTPUT_TOKENS: "BIGINT",
    },
    # What few logs say has a table of its own: a column of NULL takes time and room too.
    "blocks": {REQUEST_INDEX: "BIGINT", BLOCK_IDS: "BIGINT[]"},
    "sessions": {REQUEST_INDEX: "BIGINT", SESSION_ID: "VARCHAR"},
    "dispatches": {REQUEST_INDEX: "BIGINT", DISPATCH_NUMBER: "BIGINT"},
    "instances": {DATASET: "VARCHAR", INSTANCE_INDEX: "BIGINT", INSTANCE: "VARCHAR", GPU: "VARCHAR"},
    "decisions": {
        REQUEST_INDEX: "BIGINT",
        POLICY: "VARCHAR",
        INSTANCE_INDEX: "BIGINT",
        PROPENSITY: "DOUBLE",
        SNAPSHOT_AGE_MS: "DOUBLE",
        MODEL_VERSION: "VARCHAR",
    },
    "candidates": {
        REQUEST_INDEX: "BIGINT",
        INSTANCE_INDEX: "BIGINT",
        **dict.fromkeys(SNAPSHOT_FIELDS, "DOUBLE"),
        SCORE: "DOUBLE",
        PROBABILITY: "DOUBLE",
    },
    "outcomes": {
        REQUEST_INDEX: "BIGINT",
        TTFT_MS: "DOUBLE",
        TPOT_MS: "DOUBLE",
        E2E_MS: "DOUBLE",
        STATUS: "VARCHAR",
    },
    "phases": {
        REQUEST_INDEX: "BIGINT",
        QUEUE_MS: "DOUBLE",
        PREFILL_MS: "DOUBLE",
        DECODE_MS: "DOUBLE",
        CACHED_TOKENS: "BIGINT",
    },
    "engine_samples": {
        DATASET: "VARCHAR",
        SOURCE_ID: "VARCHAR",
        INSTANCE_INDEX: "BIGINT",
        "clock": "VARCHAR",
        SAMPLED_AT_S: "DOUBLE",
        **dict.fromkeys(SAMPLE_FIELDS, "DOUBLE"),
    },
    "rejects": {
        DATASET: "VARCHAR",
        SOURCE_ID: "VARCHAR",
        "file": "VARCHAR",
        "line": "BIGINT",
        "record": "VARCHAR",  # where a line holds many rows: which of them
        "reason": "VARCHAR",  # a code: see reasons.py
        "detail": "VARCHAR",
        "raw": "VARCHAR",
    },
}
