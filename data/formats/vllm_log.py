"""The statistics that a vLLM engine writes to its log every few seconds, as engine samples."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.formats.line_times import LineTimes, stamp
from lodestar.data.formats.names import engine_named, file_named
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.reading import LINE, SAMPLE_COLUMNS, Format, Reading, no_rejects, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

STATISTICS: Final = "Avg prompt throughput:"
HIT_LINE: Final = "Prefix cache hit rate: GPU:"  # of older engines: a line of its own, after the statistics
STARTED: Final = "vLLM API server version"
SNIFFED: Final = re.compile(rb"Avg prompt throughput: [\d.]+ tokens/s|vLLM API server version \d")
RAW: Final = "raw"
#: What a sample takes → where it stands, and what it is divided by. Older engines call waiting requests pending.
FIELDS: Final[dict[str, tuple[re.Pattern[str], int]]] = {
    s.PREFILL_TOKENS_PER_S: (re.compile(r"Avg prompt throughput: ([\d.]+) tokens/s"), 1),
    s.DECODE_TOKENS_PER_S: (re.compile(r"Avg generation throughput: ([\d.]+) tokens/s"), 1),
    s.RUNNING_REQUESTS: (re.compile(r"Running: (\d+) reqs"), 1),
    s.WAITING_REQUESTS: (re.compile(r"(?:Waiting|Pending): (\d+) reqs"), 1),
    s.KV_USAGE_RATIO: (re.compile(r"GPU KV cache usage: ([\d.]+)%"), 100),
    # Not the hit rates of an external cache or of the multimodal one, which newer engines add.
    s.HIT_RATIO: (re.compile(r"Prefix cache hit rate: (?:GPU: )?([\d.]+)%"), 100),
}
OPTIONAL: Final = (s.HIT_RATIO,)
SWAPPED: Final = re.compile(r"Swapped: (\d+) reqs")
ENGINE: Final = re.compile(r"Engine (\d+): ")
VERSION: Final = re.compile(r"vLLM API server version (\S+)")


@dataclass(slots=True)
class Log:
    """What is known of a log while its lines are read.

    Attributes:
        name: of the instance whose log it is.
        times: its clock.
        held: the sample of an older engine, whose hit rate is on the line to come.
        version: of vLLM, where the log shows it.
    """

    name: str
    times: LineTimes = field(default_factory=LineTimes)
    held: dict[str, Any] | None = None
    version: str | None = None


def sniff(head: bytes) -> bool:
    """Tell by a statistics line, or by the line with which a server starts."""
    return head.lstrip()[:1] not in (b"{", b"[") and SNIFFED.search(head) is not None


def read(source: Source) -> Iterator[Reading]:
    """Read the log; a row is a statistics line, and lines of other kinds are counted.

    An older engine writes its prefix-cache hit rate on a line of its own: it belongs to the statistics before it. The
    instance is named by the file; engines of a number above 0 in one log are told apart as NAME/NUMBER. Rates are of
    the interval since the line before, hit rates of the engine's latest requests.
    """
    log = Log(file_named(source.name))
    for block in source.blocks():
        yield _part(block.lines(), log)
    if log.held is not None:
        yield _reading([_released(log)], [], Counter(), log)


def _part(lines: pl.DataFrame, log: Log) -> Reading:
    told = lines.filter(pl.col("raw").str.contains_any([STATISTICS, HIT_LINE, STARTED]))
    counted = Counter({"lines that are no statistics": len(lines) - len(told)})
    samples: list[dict[str, Any]] = []
    rejects = []
    for line, raw in told.iter_rows():
        try:
            _take(line, raw, log, samples, counted)
        except Refused as error:
            rejects.append(rejects_of([line], error.reason, [error.detail], [raw]))
    return _reading(samples, rejects, counted, log)


def _take(line: int, raw: str, log: Log, samples: list[dict[str, Any]], counted: Counter[str]) -> None:
    """Take one line into the samples, or hold it until its hit rate comes."""
    if STATISTICS in raw:
        if log.held is not None:
            samples.append(_released(log))
        sample = _sample(line, raw, log, counted)
        if ENGINE.search(raw) or sample[s.HIT_RATIO] is not None:
            samples.append(sample)
        else:
            log.held = sample
    elif HIT_LINE in raw:
        samples.append(_with_hit_rate(raw, log))
        counted["prefix-cache lines, which belong to the statistics before them"] += 1
    else:
        found = VERSION.search(raw)
        log.version = f"vLLM {found[1]}" if found else log.version
        counted["starts of an engine's server"] += 1


def _sample(line: int, raw: str, log: Log, counted: Counter[str]) -> dict[str, Any]:
    sample: dict[str, Any] = {LINE: line, RAW: raw}
    for name, (pattern, unit) in FIELDS.items():
        found = pattern.search(raw)
        if found is None and name not in OPTIONAL:
            raise Refused(Reason.BAD_TEXT, f"{name}: nothing matches {pattern.pattern!r}")
        sample[name] = None if found is None else _number(name, found[1]) / unit
    engine = ENGINE.search(raw)
    sample[s.INSTANCE] = engine_named(log.name, engine[1] if engine else None)
    sample[s.SAMPLED_AT_S] = log.times.seconds_at(sample[s.INSTANCE], raw)
    swapped = SWAPPED.search(raw)
    if swapped is not None and swapped[1].strip("0"):
        counted["samples with swapped requests, which count neither as running nor as waiting"] += 1
    return sample


def _number(name: str, digits: str) -> float:
    try:
        value = float(digits)
    except ValueError:
        raise Refused(Reason.BAD_TEXT, f"{name}: {digits[:80]!r} is no number") from None
    if not math.isfinite(value):
        raise Refused(Reason.NOT_FINITE, f"{name}: {digits[:80]}… is too large a number")
    return value


def _with_hit_rate(raw: str, log: Log) -> dict[str, Any]:
    if log.held is None or stamp(log.held[RAW]) != stamp(raw):
        raise Refused(Reason.NO_PARTNER, "a prefix-cache line without statistics of the same time before it")
    pattern, unit = FIELDS[s.HIT_RATIO]
    found = pattern.search(raw)
    if found is None:
        raise Refused(Reason.BAD_TEXT, f"{s.HIT_RATIO}: nothing matches {pattern.pattern!r}")
    log.held[s.HIT_RATIO] = _number(s.HIT_RATIO, found[1]) / unit
    return _released(log)


def _released(log: Log) -> dict[str, Any]:
    held, log.held = log.held, None
    assert held is not None
    return held


def _reading(samples: list[dict[str, Any]], rejects: list[pl.DataFrame], counted: Counter[str], log: Log) -> Reading:
    raws = {sample[LINE]: sample[RAW] for sample in samples}
    refused = pl.concat([no_rejects(), *rejects])
    return Reading(
        lines=len(samples) + len(refused),
        samples=pl.DataFrame(samples, schema=dict(SAMPLE_COLUMNS)),
        rejects=refused,
        raw=lambda lines: [raws.get(line) for line in lines],
        clock=log.times.clock,
        zero_s=log.times.zero.at_s,
        version=log.version,
        notes=log.times.notes,
        counted={what: n for what, n in counted.items() if n},
    )


FORMAT: Final = Format(
    name="vllm-log",
    description="statistics lines in the log of a vLLM engine",
    provides=("engine samples",),
    sniff=sniff,
    read=read,
)
