"""The gateway log of AIBrix: klog lines of 2025 and the structured ones since, one row a request that the log names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.aibrix.common import GatewayLog, GatewayRequest
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import CANDIDATES, Entry, Row, Zero, converted
from lodestar.data.reading import Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["CLOCK", "FORMAT", "facts_of", "gateway_log"]

CLOCK: Final = "aibrix-gateway"
PART_REQUESTS: Final = 20_000
KEPT_US: Final = 600_000_000  # a decision waits this long for its request to be complete
LOOK: Final = re.compile(
    rb'^[IWEF]\d{4} [\d:.]+\s+\d+ [\w.]+:\d+\] ("request start" .*\brequestID="|"[Pp]rocessing request" requestID="'
    rb'|"request_start" request_id="|"request_end" request_id=")',
    re.MULTILINE,
)


def sniff(head: bytes) -> bool:
    """Tell by a line that names a request in one of the ways that AIBrix has."""
    return LOOK.search(head) is not None


def read(source: Source) -> Iterator[Reading]:
    """Read the requests in the order of their end; a request that never ended has no row to give."""
    log, zero, counted = GatewayLog(), Zero(), 0
    for block in source.blocks():
        for number, raw in block.lines().iter_rows():
            log.take(number, raw)
        if len(log.finished) >= PART_REQUESTS:
            yield _part(log, zero, log.others - counted)
            counted = log.others
    log.finished += log.waiting.values()
    yield _part(log, zero, log.others - counted)


def gateway_log(source: Source) -> GatewayLog:
    """Read a whole log at once, to join it to another; a request that never ended has no `ended_us`."""
    log = GatewayLog()
    for block in source.blocks():
        for number, raw in block.lines().iter_rows():
            log.take(number, raw)
    log.resolve()
    log.finished += log.waiting.values()
    return log


def facts_of(log: GatewayLog) -> tuple[str, ...]:
    """Say which pod has which address, and by which rule prefix-cache chose, where the log tells it."""
    pods = sorted((name, address) for address, name in log.decisions.pod_names.items())
    facts = [f"pods: {', '.join(f'{name} at {address}' for name, address in pods)}"] if pods else []
    if log.decisions.drawn:
        facts.append(
            "probabilities follow from the rule of this version of prefix-cache: any of the matched pods where more "
            f"than {log.decisions.threshold_percent} % of the tokens match, else any of the ready pods"
        )
    return tuple(facts)


def _part(log: GatewayLog, zero: Zero, others: int) -> Reading:
    log.resolve()
    requests, log.finished = log.finished, []
    _forget(log, requests)
    unix = log.year is not None
    entries = (Entry(each.line, f"request {each.request_id}", {"request": each}, each.raw) for each in requests)
    reading = converted(
        entries,
        lambda value: _row(log, zero, value["request"]),
        clock="unix" if unix else CLOCK,
        version="structured" if log.structured else None,
        notes=facts_of(log) if unix else (*facts_of(log), "no line tells the year: times count from its start"),
        counted={
            "lines that tell of no request or decision": others,
            "requests without candidates: none are logged, or the log does not tell whose they are": sum(
                each.decision is None for each in requests
            ),
        },
    )
    return replace(reading, zero_s=zero.at_s)


def _forget(log: GatewayLog, requests: list[GatewayRequest]) -> None:
    """Drop the decisions that are told whose they are, and those too old to be anyone's."""
    taken = {id(each.decision) for each in requests}
    closed = log.decisions.closed
    newest_us = closed[-1].ended_us if closed else 0
    log.decisions.closed = [one for one in closed if id(one) not in taken and one.ended_us > newest_us - KEPT_US]


def _row(log: GatewayLog, zero: Zero, request: GatewayRequest) -> Row:
    fields: dict[str, Any] = request.fields
    if fields.get(s.PROMPT_TOKENS) is None:
        raise Refused(Reason.MISSING, f"promptTokens is missing: no line tells of the end of {request.request_id}")
    at_us = request.arrived_us if request.arrived_us is not None else request.started_us
    if at_us is None:
        raise Refused(Reason.MISSING, f"no line tells when {request.request_id} arrived")
    arrived_at_s = zero.seconds_since(1000 * (log.unix_us(at_us) if log.year is not None else at_us))
    candidates = request.decision.candidates if request.decision else None
    return {s.REQUEST_ID: request.request_id, s.ARRIVED_AT_S: arrived_at_s, **fields, CANDIDATES: candidates}


FORMAT: Final = Format(
    name="aibrix-gateway",
    description="AIBrix gateway log, klog lines of requests with strategy, pod and, for prefix strategies, candidates",
    provides=("arrivals", "decisions", "candidates", "propensities", "outcomes"),
    sniff=sniff,
    read=read,
)
