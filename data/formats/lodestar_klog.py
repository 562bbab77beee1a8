"""The ``@latency_metrics@`` lines of Lodestar's gateway, builds of 2025 and 2026."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.formats.percent import percent_as_ratio
from lodestar.data.parsing.delimited import Fields, raw_of, typed
from lodestar.data.reading import CANDIDATE_COLUMNS, LINE, ROW_COLUMNS, Format, Reading, as_columns, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.blocks import Block
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

MARK: Final = "@latency_metrics@"
NUMBERS: Final = {
    "requestID": s.REQUEST_ID,
    "request_start_time": "start_us",
    "ttft": s.TTFT_MS,
    "avg_tpot": s.TPOT_MS,
    "e2e": s.E2E_MS,
    "numInputTokens": s.PROMPT_TOKENS,
    "numOutputTokens": s.OUTPUT_TOKENS,
}
WHOLE: Final = ("requestID", "numInputTokens", "numOutputTokens")
MAPS: Final = {
    "allPodsKvCacheHitRatios": s.HIT_RATIO,
    "numInflightRequestsAllPods": s.INFLIGHT_REQUESTS,
    "vllmGPUKVCacheUsage": s.KV_USAGE_RATIO,
    "vllmNumRequestsRunning": s.RUNNING_REQUESTS,
    "vllmNumRequestsWaiting": s.WAITING_REQUESTS,
    "numPrefillTokensForAllPods": s.PREFILL_TOKENS,
    "numDecodeTokensForAllPods": s.DECODE_TOKENS,
}
#: Newer builds only.
NEWER_MAPS: Final = {
    "numInflightPrefillRequestsAllPods": s.INFLIGHT_PREFILL_REQUESTS,
    "numInflightDecodeRequestsAllPods": s.INFLIGHT_DECODE_REQUESTS,
    "allPodsKvCacheLastAccess": "last_access_us",
}
# Every build ends its common part with this key, so a line without it is cut.
LAST: Final = "explorationEnabled"
REQUIRED: Final = (*NUMBERS, "selectedpod", *MAPS, LAST)
PAIR: Final = r'"[^"]+":-?[0-9][0-9.eE+-]*'
MAP: Final = rf"^(null|\{{\}}|\{{{PAIR}(,{PAIR})*\}})$"


def sniff(head: bytes) -> bool:
    """Tell by the mark of the lines."""
    return MARK.encode() in head


def read(source: Source) -> Iterator[Reading]:
    """Read the marked lines, in completion order; other lines of the gateway's log are counted in the notes.

    Keys are found by name: some builds write an empty key, which breaks reading them in pairs.
    """
    marked = False
    for block in source.blocks():
        every = block.lines()
        lines = every.filter(pl.col("raw").str.contains(MARK, literal=True))
        marked |= len(lines) > 0
        yield _reading(block, lines, len(every) - len(lines))
    if not marked:
        raise DataError(f"no line holds {MARK!r}; expected the gateway's log at its default verbosity. Check the file")


def _reading(block: Block, lines: pl.DataFrame, others: int) -> Reading:
    keys = ("selectedpod", LAST, "subAlgorithm", "GPU", *NUMBERS, *MAPS, *NEWER_MAPS)
    text = lines.select(LINE, *(pl.col("raw").str.extract(f"@{key}@([^@]*)").alias(key) for key in keys))
    whole, broken = _whole_lines(text)
    good, unreadable = typed(whole, Fields(texts=keys, numbers=tuple(NUMBERS), whole=WHOLE))
    rows = _rows(good)
    candidates, counted = _candidates(good, rows)
    newer = good["numInflightPrefillRequestsAllPods"].is_not_null().any() if len(good) else False
    return Reading(
        rows=as_columns(rows, ROW_COLUMNS),
        candidates=as_columns(candidates, CANDIDATE_COLUMNS),
        rejects=pl.concat([broken, unreadable]),
        lines=len(lines),
        raw=raw_of(block),
        clock="lodestar-klog",
        version="2026" if newer else "2025",
        gpu=_gpus(good),
        counted=counted | ({f"lines without {MARK} were no request lines": others} if others else {}),
    )


def _whole_lines(text: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take apart the lines that lack a key, or whose maps are none."""
    missing = (
        pl.when(pl.col(key).fill_null("") == "").then(pl.lit(f"key {key!r} is missing or empty")) for key in REQUIRED
    )
    maps = (
        pl.when(~pl.col(key).str.contains(MAP)).then(pl.lit(f"key {key!r}: no map of numbers"))
        for key in (*MAPS, *NEWER_MAPS)
    )
    bad = []
    for reason, complaints in ((Reason.MISSING, missing), (Reason.BAD_TEXT, maps)):
        judged = text.with_columns(pl.coalesce(*complaints).alias("detail"))
        broken = judged.filter(pl.col("detail").is_not_null())
        bad.append(rejects_of(broken[LINE], reason, broken["detail"]))
        text = judged.filter(pl.col("detail").is_null()).drop("detail")
    return text, pl.concat(bad)


def _rows(good: pl.DataFrame) -> pl.DataFrame:
    named = good.rename({**NUMBERS, "selectedpod": s.INSTANCE, "subAlgorithm": s.MODEL_VERSION})
    return named.with_columns(
        pl.col(s.REQUEST_ID).cast(pl.Int64).cast(pl.String),
        (pl.col("start_us") / 1e6).alias(s.ARRIVED_AT_S),
        # One token has no time between tokens; the log writes 0.
        pl.when(pl.col(s.OUTPUT_TOKENS) > 1).then(s.TPOT_MS).alias(s.TPOT_MS),
    )


def _candidates(good: pl.DataFrame, rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Make one row for every pod that a line names; a pod that a map leaves out has 0 there."""
    named = {**MAPS, **NEWER_MAPS}
    maps = {key: _pairs(good, key) for key in named}
    chosen = good.select(LINE, pl.col("selectedpod").alias(s.INSTANCE))
    every = pl.concat([pairs.select(LINE, s.INSTANCE) for pairs in maps.values()] + [chosen]).unique()
    frame = every.sort(LINE, s.INSTANCE)
    for key, name in named.items():
        frame = frame.join(maps[key].rename({"value": name}), on=[LINE, s.INSTANCE], how="left", maintain_order="left")
    told = good.select(LINE, *(pl.col(key).is_not_null().alias(f"has {name}") for key, name in named.items()))
    own = rows.select(LINE, "start_us", s.PROMPT_TOKENS, pl.col(s.INSTANCE).alias("chosen"))
    frame = frame.join(told, on=LINE, maintain_order="left").join(own, on=LINE, maintain_order="left")
    frame = frame.with_columns(
        pl.when(pl.col(f"has {name}")).then(pl.col(name).fill_null(0)).alias(name) for name in named.values()
    )
    return _in_units(_before_decision(frame))


def _pairs(good: pl.DataFrame, key: str) -> pl.DataFrame:
    pairs = good.select(LINE, pl.col(key).str.extract_all(PAIR).alias("pair")).explode("pair").drop_nulls()
    split = pl.col("pair").str.extract_groups(r'"(?<instance>[^"]+)":(?<value>.+)')
    return pairs.select(LINE, split).unnest("pair").with_columns(pl.col("value").cast(pl.Float64, strict=False))


def _before_decision(frame: pl.DataFrame) -> pl.DataFrame:
    """Newer builds count the request itself on the chosen pod: take it out."""
    prefill, decode = pl.col(s.INFLIGHT_PREFILL_REQUESTS), pl.col(s.INFLIGHT_DECODE_REQUESTS)
    newer = pl.col(f"has {s.INFLIGHT_PREFILL_REQUESTS}")
    own = newer & (pl.col(s.INSTANCE) == pl.col("chosen"))
    frame = frame.with_columns(
        pl.when(own).then(prefill - 1).otherwise(prefill).alias(s.INFLIGHT_PREFILL_REQUESTS),
        pl.when(own)
        .then(pl.col(s.PREFILL_TOKENS) - pl.col(s.PROMPT_TOKENS))
        .otherwise(pl.col(s.PREFILL_TOKENS))
        .alias(s.PREFILL_TOKENS),
    )
    return frame.with_columns(
        # With no other request before its first token there is nothing left; the gateway's own count of the prompt
        # differs from the engine's by the chat template, so the difference alone is not exact.
        pl.when(own & (prefill == 0)).then(0.0).otherwise(pl.col(s.PREFILL_TOKENS)).alias(s.PREFILL_TOKENS),
        # Newer builds leave the map of all requests in flight empty.
        pl.when(newer)
        .then(prefill + decode.fill_null(0))
        .otherwise(pl.col(s.INFLIGHT_REQUESTS))
        .alias(s.INFLIGHT_REQUESTS),
    )


def _in_units(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Turn percent to ratios and times to ages; what falls below 0 on the way is not known."""
    never = (pl.col("last_access_us") == 0) & (pl.col(s.HIT_RATIO) == 0)
    age_s = (pl.col("start_us") - pl.col("last_access_us")) / 1e6
    frame = percent_as_ratio(frame, s.HIT_RATIO, "allPodsKvCacheHitRatios")
    frame = frame.with_columns(pl.when(~never).then(age_s).alias(s.LAST_ACCESS_AGE_S))
    newer = pl.col(f"has {s.INFLIGHT_PREFILL_REQUESTS}")
    below = {
        s.INFLIGHT_PREFILL_REQUESTS: pl.col(s.INFLIGHT_PREFILL_REQUESTS) < 0,
        s.INFLIGHT_REQUESTS: newer & (pl.col(s.INFLIGHT_REQUESTS) < 0),
        s.PREFILL_TOKENS: newer & (pl.col(s.PREFILL_TOKENS) < 0),
        s.LAST_ACCESS_AGE_S: pl.col(s.LAST_ACCESS_AGE_S) < 0,
    }
    counts = frame.select(expr.sum().alias(name) for name, expr in below.items()).row(0, named=True)
    counted = {
        f"candidates have {name} below 0 without the request itself: taken as unknown": n
        for name, n in counts.items()
        if n
    }
    return frame.with_columns(
        pl.when(~expr.fill_null(False)).then(name).alias(name) for name, expr in below.items()
    ), counted


def _gpus(good: pl.DataFrame) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in good["GPU"].drop_nulls().unique().sort():
        try:
            told = json.loads(text)
        except ValueError:
            continue  # an old build, or another word where the map stands; the request itself is whole
        found |= {pod: gpu for pod, gpu in told.items() if isinstance(gpu, str)} if isinstance(told, dict) else {}
    return found


FORMAT: Final = Format(
    name="lodestar-klog",
    description="log lines of the Lodestar gateway, one a completed request",
    provides=("arrivals", "decisions", "candidates", "outcomes"),
    sniff=sniff,
    read=read,
)
