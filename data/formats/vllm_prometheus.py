"""Prometheus scrapes of vLLM, SGLang and TensorRT-LLM as engine samples: exposition text, or JSON of a range query."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from lodestar.data.formats.engine_metrics import Samples, Scrape, instance_of, metric_named
from lodestar.data.formats.line_times import unix_ns
from lodestar.data.formats.names import file_named
from lodestar.data.formats.query_results import query_readings
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import NANOSECONDS
from lodestar.data.reading import Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT"]

ENGINES: Final = rb"(vllm:|sglang:|trtllm_)"
TEXT: Final = re.compile(rb"(?m)^(# (HELP|TYPE) )?" + ENGINES + rb"\w+( |\{)")
QUERY: Final = re.compile(rb'"__name__"\s*:\s*"' + ENGINES)
SERIES: Final = re.compile(
    r'([a-zA-Z_:][\w:]*)(?:\{((?:[^"{}]|"(?:[^"\\]|\\.)*")*)\})?\s+(\S+)(?:\s+(\d{1,20}(?:\.\d{1,20})?))?(?:\s+#.*)?\s*',
    re.ASCII,
)
LABEL: Final = re.compile(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"')
EPOCH_NUMBER: Final = re.compile(r"\b(\d{13}|\d{10}(?:\.\d{1,9})?)\b", re.ASCII)
DESCRIPTIONS: Final = ("# HELP ", "# TYPE ", "# UNIT ")
END: Final = "# EOF"
FIRST_MS: Final = 10**11  # as seconds the year 5138, as milliseconds 1973
NO_ZONE: Final = "times in comments without a zone: taken for UTC"


@dataclass(slots=True)
class Exposition:
    """A text of scrapes, one after the other, as far as it has been read.

    Attributes:
        file: names the instance where labels do not.
        samples: what is known of the scrapes before.
        at_ns: time of the current scrape, told by the comment before it.
        current: instance → what the current scrape says of it.
        seen: series of the current scrape; one that comes again starts the next.
        whole: scrapes that are complete.
        notes: what was taken for what.
    """

    file: str
    samples: Samples = field(default_factory=Samples)
    at_ns: int | None = None
    current: dict[str, Scrape] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    whole: list[Scrape] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)

    def part(self, counted: Counter[str]) -> Reading:
        """Return the scrapes that are complete."""
        whole, self.whole = self.whole, []
        return self.samples.reading(whole, counted, tuple(sorted(self.notes)))

    def end(self, at_ns: int | None = None) -> None:
        """End the current scrape, and start one of this time."""
        for scrape in self.current.values():
            scrape.at_ns = self.at_ns if scrape.at_ns is None else scrape.at_ns
            self.whole.append(scrape)
        self.current, self.seen, self.at_ns = {}, set(), at_ns


def sniff(head: bytes) -> bool:
    """Tell by a metric of a known engine, as a line or in the result of a query."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return b'"resultType"' in head and QUERY.search(head) is not None
    return TEXT.search(head) is not None


def read(source: Source) -> Iterator[Reading]:
    """Read scrapes; a row is what one scrape says of one instance, and series of other metrics are counted.

    A text may hold many scrapes. One ends where a series comes again, at ``# EOF``, or at a comment that holds a time,
    ISO 8601 or Unix, which is that of the scrape after it; times with the series themselves count before it. A scrape
    without any time is rejected, since nothing tells when the engine was in that state. Names of instances come from
    the labels pod, instance or server, else from the file; an engine above 0 is NAME/NUMBER.
    """
    if source.head(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        yield from query_readings(source)
        return
    text = Exposition(file_named(source.name))
    for block in source.blocks():
        counted: Counter[str] = Counter()
        for line, raw in block.lines().iter_rows():
            _take(line, raw, text, counted)
        yield text.part(counted)
    text.end()
    yield text.part(Counter())


def _take(line: int, raw: str, text: Exposition, counted: Counter[str]) -> None:
    if raw.startswith("#"):
        _comment(raw, text)
        return
    found = SERIES.fullmatch(raw)
    if found is None:
        refused = Refused(Reason.BAD_TEXT, "no series of a metric: expected NAME{LABELS} VALUE")
        text.whole.append(Scrape(line, text.file, raw=[raw], refused=refused))
        return
    metric = metric_named(found[1])
    if metric is None:
        counted["series that tell nothing of an engine's state"] += 1
        return
    series = f"{found[1]}{{{found[2] or ''}}}"
    if series in text.seen:
        text.end()
    text.seen.add(series)
    labels = {key: value.replace('\\"', '"').replace("\\\\", "\\") for key, value in LABEL.findall(found[2] or "")}
    instance = instance_of(labels, text.file)
    scrape = text.current.setdefault(instance, Scrape(line, instance))
    scrape.raw.append(raw)
    scrape.take(metric, found[3], found[2] or "")
    if found[4] is not None:
        scrape.at_ns = max(scrape.at_ns or 0, _nanoseconds(found[4]))


def _comment(raw: str, text: Exposition) -> None:
    if raw.startswith(DESCRIPTIONS):
        metric = metric_named(raw.split(" ", 3)[2]) if raw.count(" ") >= 3 else None
        if metric is not None and raw.startswith("# HELP ") and re.search(r"\bblocks?\b", raw):
            text.samples.in_blocks.add(metric)
        return
    if raw.startswith(END):
        text.end()
        return
    dated, number = unix_ns(raw), EPOCH_NUMBER.search(raw)
    if dated is not None:
        text.notes |= set() if dated[1] else {NO_ZONE}
        text.end(dated[0])
    elif number is not None:
        text.end(_nanoseconds(number[1]))


def _nanoseconds(number: str) -> int:
    """Turn a time to nanoseconds: the text format has milliseconds, OpenMetrics has seconds."""
    value = Decimal(number)
    return int(value * (NANOSECONDS if value < FIRST_MS else NANOSECONDS // 1000))


FORMAT: Final = Format(
    name="vllm-prometheus",
    description="Prometheus scrapes of vLLM, SGLang or TensorRT-LLM, text or the JSON of a query",
    provides=("engine samples",),
    sniff=sniff,
    read=read,
    sample="the documented schema",
)
