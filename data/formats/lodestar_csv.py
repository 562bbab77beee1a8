"""The processed CSV of Lodestar's gateway: one row a request, eight columns a pod."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.formats.percent import percent_as_ratio
from lodestar.data.parsing.delimited import Fields, csv_parts, header_of, raw_of
from lodestar.data.reading import CANDIDATE_COLUMNS, LINE, ROW_COLUMNS, Format, Reading, as_columns, empty
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

HEAD: Final = b"request_id,selected_pod,input_tokens,output_tokens,"
POD_COLUMN: Final = re.compile(r"(?P<pod>.+)-(?P<field>kv_hit_ratio)$")
REQUEST_COLUMNS: Final = {
    "input_tokens": s.PROMPT_TOKENS,
    "output_tokens": s.OUTPUT_TOKENS,
    "ttft": s.TTFT_MS,
    "avg_tpot": s.TPOT_MS,
    "e2e_latency": s.E2E_MS,
}
REQUIRED: Final = ("request_id", "selected_pod", "input_tokens")
WHOLE: Final = ("request_id", "input_tokens", "output_tokens")
POD_FIELDS: Final = {
    "kv_hit_ratio": s.HIT_RATIO,
    "inflight_requests": s.INFLIGHT_REQUESTS,
    "gpu_kv_cache": s.KV_USAGE_RATIO,
    "running_requests": s.RUNNING_REQUESTS,
    "waiting_requests": s.WAITING_REQUESTS,
    "prefill_tokens": s.PREFILL_TOKENS,
    "decode_tokens": s.DECODE_TOKENS,
}


def sniff(head: bytes) -> bool:
    """Tell by the header."""
    first = head.lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    return first.startswith(HEAD) and b"-kv_hit_ratio" in first


def read(source: Source) -> Iterator[Reading]:
    """Read the rows, one a line; the integer `request_id` is the order of dispatch, and no times are logged."""
    header = header_of(source.head())
    pods = [match["pod"] for name in header if (match := POD_COLUMN.match(name))]
    snapshot = tuple(f"{pod}-{theirs}" for pod in pods for theirs in POD_FIELDS)
    fields = Fields(texts=("selected_pod",), numbers=("request_id", *REQUEST_COLUMNS, *snapshot), whole=WHOLE)
    for part in csv_parts(source, fields, REQUIRED):
        candidates = pl.concat([empty(CANDIDATE_COLUMNS), *(_candidates(part.columns, pod) for pod in pods)])
        yield Reading(
            rows=_rows(part.columns),
            candidates=percent_as_ratio(candidates.sort(LINE, maintain_order=True), s.HIT_RATIO, "kv_hit_ratio"),
            rejects=part.rejects,
            lines=part.lines,
            raw=raw_of(part.block),
        )


def _rows(good: pl.DataFrame) -> pl.DataFrame:
    named = good.rename({k: v for k, v in REQUEST_COLUMNS.items() if k in good.columns}, strict=False)
    # One token has no time between tokens; the log writes 0.
    if s.TPOT_MS in named.columns and s.OUTPUT_TOKENS in named.columns:
        named = named.with_columns(pl.when(pl.col(s.OUTPUT_TOKENS) > 1).then(s.TPOT_MS).alias(s.TPOT_MS))
    order = pl.col("request_id").cast(pl.Int64)
    named = named.with_columns(
        order.cast(pl.String),
        order.alias(s.DISPATCH_NUMBER),
        pl.col("selected_pod").replace("", None).alias(s.INSTANCE),
    )
    return as_columns(named, ROW_COLUMNS)


def _candidates(good: pl.DataFrame, pod: str) -> pl.DataFrame:
    present = {f"{pod}-{theirs}": ours for theirs, ours in POD_FIELDS.items() if f"{pod}-{theirs}" in good.columns}
    of_pod = good.select(LINE, pl.lit(pod).alias(s.INSTANCE), *(pl.col(k).alias(v) for k, v in present.items()))
    return as_columns(of_pod, CANDIDATE_COLUMNS)


FORMAT: Final = Format(
    name="lodestar-csv",
    description="processed CSV of the Lodestar gateway, one row a request",
    provides=("decisions", "candidates", "outcomes"),
    sniff=sniff,
    read=read,
)
