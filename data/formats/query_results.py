"""The JSON that Prometheus answers to a query over a range of time, as scrapes of engines."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from lodestar.data.formats.engine_metrics import Samples, Scrape, instance_of, metric_named
from lodestar.data.formats.names import file_named
from lodestar.data.parsing.json_lines import Refused, load_json
from lodestar.data.parsing.records import NANOSECONDS
from lodestar.data.reading import Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["query_readings"]

LATEST_S: Final = 10**11
SHOWN: Final = 1000
SURROGATE: Final = re.compile("[\ud800-\udfff]")  # half a character, which JSON can name


@dataclass(slots=True)
class Query:
    """What the documents have told so far.

    Attributes:
        file: names the instance where labels do not.
        numbers: of rows.
        scrapes: (instance, time) → what is said of it.
        broken: parts of documents that cannot be used.
        counted: what is said to the user.
    """

    file: str
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    scrapes: dict[tuple[str, int], Scrape] = field(default_factory=dict)
    broken: list[Scrape] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def refuse(self, place: str, value: Any, refused: Refused) -> None:
        """Set a part of a document aside."""
        raw = value if isinstance(value, str) else json.dumps(value)
        self.broken.append(Scrape(next(self.numbers), self.file, place, raw=[raw[:SHOWN]], refused=refused))


def query_readings(source: Source) -> Iterator[Reading]:
    """Read one document, or one a line; all that is said of an instance at one time is one row.

    A query names one metric, so a whole state is together only where the documents of several are in one file.

    >>> from lodestar.data.sources.source import from_bytes
    >>> series = b'{"metric": {"__name__": "sglang:token_usage", "pod": "a"}, "values": [[1700000000, "0.5"]]}'
    >>> [reading] = query_readings(from_bytes(b'{"data": {"result": [' + series + b"]}}"))
    >>> reading.samples.select("instance", "kv_usage_ratio").rows()
    [('a', 0.5)]
    """
    query = Query(file_named(source.name))
    for place, text in _documents(source.document()):
        try:
            for number, series in enumerate(_results(load_json(text)), 1):
                _take(series, f"{place} result {number}", query)
        except Refused as error:
            query.refuse(place, text, error)
    rows = sorted(query.scrapes.values(), key=lambda scrape: scrape.at_ns or 0)
    yield Samples().reading([*rows, *query.broken], query.counted)


def _documents(content: bytes) -> Iterator[tuple[str, str]]:
    text = content.decode("utf-8", errors="backslashreplace").removeprefix("\ufeff").strip()
    lines = text.split("\n") if "\n{" in text else [text]
    yield from ((f"document {number}", line) for number, line in enumerate(lines, 1) if line.strip())


def _results(document: Any) -> list[Any]:
    data = document.get("data") if isinstance(document, dict) else None
    results = data.get("result") if isinstance(data, dict) else None
    if not isinstance(results, list):
        raise Refused(Reason.MISSING, f"data.result is no list: {_shown(document)}")
    return results


def _take(series: Any, place: str, query: Query) -> None:
    try:
        labels, points = _parts(series)
    except Refused as error:
        query.refuse(place, series, error)
        return
    metric = metric_named(labels["__name__"])
    if metric is None:
        query.counted["values that tell nothing of an engine's state"] += len(points)
        return
    for number, point in enumerate(points, 1):
        try:
            at_ns, value = _point(point)
        except Refused as error:
            query.refuse(f"{place} value {number}", point, error)
            continue
        _add(metric, labels, at_ns, value, query)


def _add(metric: str, labels: dict[str, str], at_ns: int, value: str, query: Query) -> None:
    instance, at_s = instance_of(labels, query.file), f"{at_ns / NANOSECONDS:.3f}"
    shown = ", ".join(f'{key}="{text}"' for key, text in labels.items() if key != "__name__")
    scrape = query.scrapes.get((instance, at_ns))
    if scrape is None:
        scrape = Scrape(next(query.numbers), instance, f"{instance} at {at_s}", at_ns)
        query.scrapes[instance, at_ns] = scrape
    scrape.raw.append(f"{labels['__name__']}{{{shown}}} {value} {at_s}")
    scrape.take(metric, value, shown)


def _parts(series: Any) -> tuple[dict[str, str], list[Any]]:
    """Return the labels and the values of a series: many of a range, one of an instant."""
    labels = series.get("metric") if isinstance(series, dict) else None
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise Refused(Reason.WRONG_TYPE, f"metric: {_shown(labels)} is no object of texts")
    if SURROGATE.search("".join((*labels, *labels.values()))):
        raise Refused(Reason.NOT_UTF8, f"metric: {_shown(labels)} holds what is no character")
    if "__name__" not in labels:
        raise Refused(Reason.MISSING, "metric.__name__ is missing; query the metric itself, and no rate of it")
    points = series.get("values", [series["value"]] if "value" in series else None)
    if not isinstance(points, list):
        raise Refused(Reason.WRONG_TYPE, f"values: {_shown(points)} is no list")
    return labels, points


def _point(point: Any) -> tuple[int, str]:
    if not (isinstance(point, list) and len(point) == 2 and isinstance(point[1], str) and point[1].isascii()):
        raise Refused(Reason.WRONG_TYPE, f"values: {_shown(point)} is no [time, text of a number]")
    at_s = point[0]
    if isinstance(at_s, bool) or not isinstance(at_s, int | float):
        raise Refused(Reason.WRONG_TYPE, f"values: time {_shown(at_s)} is no number")
    if not 0 <= at_s < LATEST_S or math.isnan(at_s):
        raise Refused(Reason.OUT_OF_UNIT, f"values: time {_shown(at_s)}, expected Unix seconds")
    # Prometheus keeps times to the millisecond.
    return round(at_s * 1000) * (NANOSECONDS // 1000), point[1]


def _shown(value: Any) -> str:
    return json.dumps(value)[:80]
