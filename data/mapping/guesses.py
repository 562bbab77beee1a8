"""Which field a column may be, by its name, and in which unit, by its name and by what it holds."""

from __future__ import annotations

import re
from statistics import median
from typing import Final, NamedTuple

from lodestar.data import schema as s
from lodestar.data.mapping.column_samples import ColumnSample
from lodestar.data.mapping.recipe import ARRIVED_AT, COUNTS, units_of

__all__ = ["Unit", "field_of", "plain_name", "status_values", "unit_of"]

#: Field → names that mean it, without blanks and units, in the order in which they are preferred.
SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    s.REQUEST_ID: ("requestid", "reqid", "xrequestid", "id", "uuid", "traceid"),
    ARRIVED_AT: (
        "arrivedat",
        "arrivaltime",
        "arrival",
        "arrivaltimestamp",
        "requeststart",
        "requeststarttime",
        "starttime",
        "startedat",
        "starttimestamp",
        "timestamp",
        "ts",
        "time",
        "createdat",
        "sent",
        "sentat",
        "submittedat",
        "dispatchedat",
        "start",
    ),
    s.PROMPT_TOKENS: (
        "prompttokens",
        "inputtokens",
        "contexttokens",
        "requesttokens",
        "inputsequencelength",
        "isl",
        "inputlength",
        "promptlength",
        "promptlen",
        "inputlen",
        "numinputtokens",
        "numprompttokens",
        "inputtokencount",
        "prompttokencount",
        "inputtokenlength",
    ),
    s.OUTPUT_TOKENS: (
        "outputtokens",
        "completiontokens",
        "generatedtokens",
        "generationtokens",
        "responsetokens",
        "outputsequencelength",
        "osl",
        "outputlength",
        "outputlen",
        "completionlength",
        "numoutputtokens",
        "numcompletiontokens",
        "outputtokencount",
    ),
    s.CACHED_TOKENS: ("cachedtokens", "cachereadtokens", "numcachedtokens", "promptcachedtokens"),
    s.BLOCK_IDS: ("blockids", "hashids", "blockhashes", "prefixblocks"),
    s.SESSION_ID: ("sessionid", "conversationid", "chatid", "threadid"),
    s.POLICY: ("policy", "routingpolicy", "routingstrategy", "strategy"),
    s.MODEL_VERSION: ("modelversion",),
    s.INSTANCE: (
        "instance",
        "selectedpod",
        "targetpod",
        "chosen",
        "pod",
        "podname",
        "endpoint",
        "replica",
        "backend",
        "server",
    ),
    s.STATUS: ("status", "state", "outcome", "result", "success"),
    s.TTFT_MS: ("ttft", "timetofirsttoken", "firsttokenlatency", "firsttokentime", "actualttft"),
    s.TPOT_MS: ("tpot", "avgtpot", "timeperoutputtoken", "intertokenlatency", "avgitl", "meanitl", "actualtpot"),
    s.E2E_MS: (
        "e2e",
        "e2elatency",
        "endtoendlatency",
        "requestlatency",
        "latency",
        "elapsedtime",
        "totaltime",
        "duration",
    ),
    s.QUEUE_MS: ("queue", "queuetime", "timeinqueue", "queueduration"),
    s.PREFILL_MS: ("prefilltime", "prefillduration"),
    s.DECODE_MS: ("decodetime", "decodeduration"),
    s.SNAPSHOT_AGE_MS: ("snapshotage",),
    s.HIT_RATIO: ("hitratio", "kvhitratio", "hit", "kvhit", "prefixhitratio", "cachehitratio", "prefixcachescore"),
    s.INFLIGHT_REQUESTS: ("inflightrequests", "inflight", "outstandingrequests", "requestcount", "activerequests"),
    s.RUNNING_REQUESTS: ("runningrequests", "running", "numrequestsrunning", "numrequestrunning"),
    s.WAITING_REQUESTS: ("waitingrequests", "waiting", "numrequestswaiting", "numrequestwaiting", "queuedepth"),
    s.KV_USAGE_RATIO: ("kvusageratio", "gpukvcache", "kvusage", "kvcacheusage", "kvcachepercentage", "gpucacheusage"),
    s.INFLIGHT_PREFILL_REQUESTS: ("inflightprefillrequests",),
    s.INFLIGHT_DECODE_REQUESTS: ("inflightdecoderequests",),
    s.PREFILL_TOKENS: ("prefilltokens", "prefilltokensinflight"),
    s.DECODE_TOKENS: ("decodetokens", "decodetokensinflight"),
    s.LAST_ACCESS_AGE_S: ("lastaccessage",),
    s.SCORE: ("score",),
    s.PROBABILITY: ("probability", "propensity", "prob"),
}
NAMED_UNITS: Final = {
    "ms": ("ms", "msec", "millis", "milliseconds", "millisecond"),
    "s": ("s", "sec", "secs", "seconds", "second"),
    "us": ("us", "usec", "micros", "microseconds", "microsecond"),
    "ns": ("ns", "nsec", "nanos", "nanoseconds", "nanosecond"),
    "percent": ("percent", "pct", "percentage"),
}
WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+[a-z]*")
# Seconds below, milliseconds from here on; whole numbers are seldom seconds.
EDGES: Final = {s.TPOT_MS: 1.0, s.E2E_MS: 120.0}
OTHER_EDGE: Final = 30.0
WHOLE_EDGE: Final = 5.0
STATUSES: Final = {
    "ok": ("ok", "success", "succeeded", "completed", "200", "true", "done"),
    "error": ("error", "failed", "failure", "500", "false"),
    "cancelled": ("cancelled", "canceled", "aborted", "499"),
    "timeout": ("timeout", "timed_out", "deadline_exceeded", "408", "504"),
}


class Unit(NamedTuple):
    """A unit, None for one that has none, and why."""

    name: str | None
    why: str


def plain_name(column: str) -> str:
    """Reduce a column's name to its letters, without its unit.

    >>> plain_name("metrics.time_to_first_token_ms.value"), plain_name("ContextTokens")
    ('timetofirsttoken', 'contexttokens')
    """
    words, _ = _words(column)
    return "".join(words)


def _words(column: str) -> tuple[list[str], str | None]:
    """Return the words of the last part of a name without its unit, and the unit."""
    parts = column.split(".")
    last = parts[-2] if parts[-1].lower() == "value" and len(parts) > 1 else parts[-1]
    words = [word.lower() for word in WORDS.findall(last)]
    unit = next((unit for unit, names in NAMED_UNITS.items() if len(words) > 1 and words[-1] in names), None)
    return words[:-1] if unit and unit != "percent" else words, unit


def field_of(column: str, fields: tuple[str, ...]) -> tuple[str, int] | None:
    """Return the field that a column's name means, and how far down the list of its names that one stands.

    >>> field_of("usage.completion_tokens", ("prompt_tokens", "output_tokens"))
    ('output_tokens', 1)
    """
    plain = plain_name(column)
    places = {name: SYNONYMS[name].index(plain) for name in fields if plain in SYNONYMS.get(name, ())}
    return min(places.items(), key=lambda each: each[1]) if places else None


def unit_of(field: str, column: ColumnSample, beside: str | None = None) -> Unit | None:
    """Guess the unit of a column: by a column `beside` it that names it, by its own name, or by its size.

    >>> unit_of("ttft_ms", ColumnSample("ttft", ["0.25", "0.5"]))
    Unit(name='s', why='half of the values are below 30')
    """
    units = units_of(field)
    if field in COUNTS or not units:
        return Unit(None, "")
    if field == ARRIVED_AT:
        return _time_unit(column, _words(column.name)[1])
    if beside in units:
        return Unit(beside, "the unit stands beside it")
    named = _words(column.name)[1]
    if named in units and named != "percent":
        return Unit(named, "by its name")
    if not column.numbers:
        return None
    if "percent" in units:
        above = max(column.numbers) > 1
        return Unit("percent" if above else "ratio", f"values reach up to {max(column.numbers):g}")
    edge = EDGES.get(field, OTHER_EDGE)
    return _duration_unit(median(column.numbers), min(edge, WHOLE_EDGE) if column.kind == "whole numbers" else edge)


def _duration_unit(middle: float, edge: float) -> Unit:
    if middle < edge:
        return Unit("s", f"half of the values are below {edge:g}")
    unit = "ms" if middle < 1e6 else "us" if middle < 1e8 else "ns"
    return Unit(unit, f"half of the values are {middle:g} or more")


def _time_unit(column: ColumnSample, named: str | None) -> Unit | None:
    """Times since 1970 tell their unit by their size; smaller numbers count from a start of the log's own."""
    if column.kind == "times":
        return Unit("iso", "dates and times")
    if not column.numbers:
        return None
    middle = median(column.numbers)
    for unit, least in (("ns", 1e17), ("us", 1e14), ("ms", 1e11), ("s", 1e8)):
        if middle >= least:
            return Unit(f"unix_{unit}", "by its size a time since 1970")
    if named in ("s", "ms", "us", "ns"):
        return Unit(f"relative_{named}", "by its name, and too small for a time since 1970")
    whole = column.kind == "whole numbers" and max(column.numbers) > 1e4
    return Unit("relative_ms" if whole else "relative_s", "too small for a time since 1970")


def status_values(column: ColumnSample) -> dict[str, str] | None:
    """Return text → status, where all that a column holds is known; None where it is not.

    >>> status_values(ColumnSample("status", ["success", "failed"]))
    {'success': 'ok', 'failed': 'error'}
    """
    found = {value: _status(value) for value in dict.fromkeys(column.known)}
    known = {value: status for value, status in found.items() if status is not None}
    return known if known and len(known) == len(found) else None


def _status(value: str) -> str | None:
    return next((status for status, words in STATUSES.items() if value.lower() in words), None)
