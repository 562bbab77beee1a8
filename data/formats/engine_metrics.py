"""The Prometheus metrics of vLLM, SGLang and TensorRT-LLM by old and new names, and scrapes of them as samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.formats.names import engine_named
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import NANOSECONDS, Zero
from lodestar.data.reading import LINE, RECORD, SAMPLE_COLUMNS, Reading, no_rejects, rejects_of
from lodestar.data.reasons import Reason

__all__ = ["Samples", "Scrape", "instance_of", "metric_named"]

PROMPT: Final = "prompt tokens since the start"
GENERATED: Final = "generated tokens since the start"
#: What a sample takes → the metrics that tell it, the newest name first; counters without their ``_total``.
METRICS: Final[dict[str, tuple[str, ...]]] = {
    s.RUNNING_REQUESTS: ("vllm:num_requests_running", "sglang:num_running_reqs", "trtllm_num_requests_running"),
    s.WAITING_REQUESTS: ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "trtllm_num_requests_waiting"),
    s.KV_USAGE_RATIO: (
        "vllm:kv_cache_usage_perc",  # a ratio for all its name, as is the old one
        "vllm:gpu_cache_usage_perc",
        "sglang:token_usage",
        "trtllm_kv_cache_utilization",
    ),
    s.HIT_RATIO: ("vllm:gpu_prefix_cache_hit_rate", "sglang:cache_hit_rate", "trtllm_kv_cache_hit_rate"),
    s.PREFILL_TOKENS_PER_S: ("vllm:avg_prompt_throughput_toks_per_s",),
    s.DECODE_TOKENS_PER_S: ("vllm:avg_generation_throughput_toks_per_s", "sglang:gen_throughput"),
    s.PREEMPTIONS: ("vllm:num_preemptions",),
    s.PREFIX_QUERIED_TOKENS: ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
    s.PREFIX_HIT_TOKENS: ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
    PROMPT: ("vllm:prompt_tokens", "sglang:prompt_tokens"),
    GENERATED: ("vllm:generation_tokens", "sglang:generation_tokens"),
}
RANKED: Final = {name: (told, rank) for told, names in METRICS.items() for rank, name in enumerate(names)}
RATES: Final = {s.PREFILL_TOKENS_PER_S: PROMPT, s.DECODE_TOKENS_PER_S: GENERATED}
SERVER_LABELS: Final = ("pod", "pod_name", "kubernetes_pod_name", "exported_pod", "instance", "server")
ENGINE_LABELS: Final = ("engine", "dp_rank")


def metric_named(name: str) -> str | None:
    """Return the metric's name as ``METRICS`` has it, None where it tells nothing of a sample.

    >>> metric_named("vllm:prefix_cache_hits_total"), metric_named("vllm:iteration_tokens_total_bucket")
    ('vllm:prefix_cache_hits', None)
    """
    short = name.removesuffix("_total")
    return short if short in RANKED else None


def instance_of(labels: Mapping[str, str], file: str) -> str:
    """Name the instance that a series tells of: by its pod, then by its target, then by the file; and its engine.

    >>> instance_of({"pod": "a", "instance": "10.0.0.1:8000", "engine": "1"}, "scrape"), instance_of({}, "scrape")
    ('a/1', 'scrape')
    """
    server = next((labels[key] for key in SERVER_LABELS if labels.get(key)), file)
    return engine_named(server, next((labels[key] for key in ENGINE_LABELS if labels.get(key)), None))


@dataclass(slots=True)
class Scrape:
    """What one scrape says of one instance.

    Attributes:
        line: its number in the source.
        instance: its name.
        record: where it stands, if it is no line.
        at_ns: its time, None where it has none of its own.
        values: field of a sample → the rank of the metric's name, its value, and its labels.
        raw: its text.
        refused: why it cannot be used.
    """

    line: int
    instance: str
    record: str | None = None
    at_ns: int | None = None
    values: dict[str, tuple[int, float, str]] = field(default_factory=dict)
    raw: list[str] = field(default_factory=list)
    refused: Refused | None = None

    def take(self, metric: str, value: str, labels: str) -> None:
        """Add a metric's value; of two names for one thing the newer counts.

        >>> scrape = Scrape(1, "a")
        >>> scrape.take("vllm:kv_cache_usage_perc", "0.5", "")
        >>> scrape.take("vllm:gpu_cache_usage_perc", "0.4", "")
        >>> scrape.values
        {'kv_usage_ratio': (0, 0.5, '')}
        """
        told, rank = RANKED[metric]
        try:
            number = math.nan if "_" in value else float(value)
        except ValueError:
            number = math.nan
        known = self.values.get(told)
        if not math.isfinite(number):
            self.refused = self.refused or Refused(Reason.NOT_FINITE, f"{metric}: {value[:80]!r} is no finite number")
        elif known is not None and known[0] == rank:
            both = f"{metric} is there twice for {self.instance}, with {known[2] or 'no labels'} and {labels or 'none'}"
            self.refused = self.refused or Refused(Reason.DUPLICATE, both[:400])
        elif known is None or rank < known[0]:
            self.values[told] = rank, number, labels


@dataclass(slots=True)
class Samples:
    """Scrapes turned into samples, part by part, with what must be known of those before.

    Attributes:
        in_blocks: metrics that count blocks of the cache, as old engines say in their help, and not tokens.
        zero: the first time.
        last: instance → the time of its last scrape, and its counters.
    """

    in_blocks: set[str] = field(default_factory=set)
    zero: Zero = field(default_factory=Zero)
    last: dict[str, tuple[int, dict[str, float]]] = field(default_factory=dict)

    def reading(self, scrapes: list[Scrape], counted: Counter[str], notes: tuple[str, ...] = ()) -> Reading:
        """Make the reading of these scrapes; those without a time, or back in time, are rejected."""
        rows, rejects = [], [no_rejects()]
        for scrape in scrapes:
            try:
                rows.append(self._row(scrape, counted))
            except Refused as error:
                raw = "\n".join(scrape.raw)
                rejects.append(rejects_of([scrape.line], error.reason, [error.detail], [raw], [scrape.record or ""]))
        refused = pl.concat(rejects).with_columns(pl.col(RECORD).replace("", None))
        raws = {scrape.line: "\n".join(scrape.raw) for scrape in scrapes}
        return Reading(
            lines=len(rows) + len(refused),
            samples=pl.DataFrame(rows, schema=dict(SAMPLE_COLUMNS)),
            rejects=refused,
            raw=lambda lines: [raws.get(line) for line in lines],
            clock=None if self.zero.at_ns is None else "unix",
            zero_s=self.zero.at_s,
            notes=notes,
            counted={what: n for what, n in counted.items() if n},
        )

    def _row(self, scrape: Scrape, counted: Counter[str]) -> dict[str, Any]:
        if scrape.refused is not None:
            raise scrape.refused
        if scrape.at_ns is None:
            raise Refused(Reason.MISSING, "no time, neither with the metrics nor in a comment before them")
        values = {told: value for told, (_, value, _) in scrape.values.items()}
        self._without_unknown(values, counted)
        before, counters = self.last.get(scrape.instance, (None, {}))
        if before is not None and scrape.at_ns <= before:
            ago = (before - scrape.at_ns) / NANOSECONDS
            reason = Reason.BACKWARDS if ago else Reason.DUPLICATE
            raise Refused(reason, f"a scrape of {scrape.instance} {ago:g} s before the one before it")
        if before is not None:
            _add_rates(values, counters, (scrape.at_ns - before) / NANOSECONDS, counted)
        self.last[scrape.instance] = scrape.at_ns, values
        at_s = self.zero.seconds_since(scrape.at_ns)
        return {LINE: scrape.line, RECORD: scrape.record, s.INSTANCE: scrape.instance, s.SAMPLED_AT_S: at_s, **values}

    def _without_unknown(self, values: dict[str, float], counted: Counter[str]) -> None:
        if values.get(s.HIT_RATIO) == -1:
            del values[s.HIT_RATIO]
            counted["hit rates of -1, with which an engine says that its prefix cache is off"] += 1
        for told in (s.PREFIX_QUERIED_TOKENS, s.PREFIX_HIT_TOKENS):
            if told in values and self.in_blocks.intersection(METRICS[told]):
                del values[told]
                counted[f"{told} counted in blocks and not in tokens: not stored"] += 1


def _add_rates(values: dict[str, float], before: dict[str, float], seconds: float, counted: Counter[str]) -> None:
    """Add rates that are not told: what a counter gained since the scrape before, by the time between."""
    for rate, counter in RATES.items():
        if rate in values or counter not in values or counter not in before:
            continue
        gained = values[counter] - before[counter]
        if gained < 0:
            counted[f"restarts of an engine, seen by fewer {counter}"] += 1
        else:
            values[rate] = gained / seconds
            counted[f"{rate} inferred from {counter} in this scrape and the one before"] += 1
