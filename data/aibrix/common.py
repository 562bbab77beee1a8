"""The gateway log of AIBrix, line by line, to requests with their decision and outcome."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.aibrix.decisions import Decision, Decisions
from lodestar.data.aibrix.klog import SOME_YEAR, KlogLine, duration_ms, klog_line, mapping, pairs
from lodestar.data.aibrix.pairing import Span

__all__ = ["GatewayLog", "GatewayRequest"]

STRUCTURED: Final = re.compile(r'"([^"]*)"')
LATENCIES: Final = re.compile(
    r"\*\* latency metrics, hash\(request\), \w+, selectedpod, ([^,]+), ttft, (\d+), tpot, (\d+), e2e, (\d+), "
    r"numInputTokens, (\d+), numOutputTokens, (\d+)"
)
ENDED: Final = re.compile(r"request end, requestID: (\S+) - targetPod: (\S*), elapsed: (\S+)")
TICKER: Final = re.compile(r"trace ticker start at ([1-9]\d{3})-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ ([+-]\d{4})")
MOST_DIGITS: Final = 15
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(slots=True)
class GatewayRequest:
    """What the log says of one request, by the gateway's own clock.

    Attributes:
        request_id: the gateway's own.
        line: the first that names it.
        raw: its text.
        fields: of ``ROW_COLUMNS``, as far as they are known.
        decision: what the router knew, where it is logged.
        arrived_us: microseconds since the year began, as all times here.
        started_us: when its routing began.
        first_us: when its first token came back.
        ended_us: when it was complete.
    """

    request_id: str
    line: int
    raw: str
    fields: dict[str, Any] = field(default_factory=dict)
    decision: Decision | None = None
    arrived_us: int | None = None
    started_us: int | None = None
    first_us: int | None = None
    ended_us: int | None = None

    def routing(self) -> Span:
        """Return within what time it was routed, and to which pod."""
        start = self.started_us if self.started_us is not None else math.inf
        end = self.first_us if self.first_us is not None else self.ended_us
        return Span(self.fields.get(s.INSTANCE), start, None, math.inf if end is None else end)


@dataclass(slots=True)
class GatewayLog:
    """Takes the lines of a log in their order, and gives each request when the last line of it has come.

    Two generations are known: lines for people ("request start", "Request completed", "** latency metrics"), and
    structured ones ("request_start", "request_end"). A line that names no request is tied to one by what both say:
    the outcome by pod, token counts and TTFT, the decision as `Decisions` does.

    Attributes:
        finished: the requests that are complete; who takes them empties the list.
        waiting: those that are not, by id.
        others: lines that say nothing of a request.
        year: of the first lines, where a line tells it.
        zone_s: how far the log's clock is ahead of UTC.
        structured: it has lines of the second generation.
    """

    finished: list[GatewayRequest] = field(default_factory=list)
    waiting: dict[str, GatewayRequest] = field(default_factory=dict)
    others: int = 0
    year: int | None = None
    zone_s: float = 0.0
    structured: bool = False
    decisions: Decisions = field(default_factory=Decisions)
    outcomes: dict[tuple[str, int, int], list[tuple[int, int, int]]] = field(default_factory=dict)

    def take(self, number: int, raw: str) -> None:
        """Read one line."""
        line = klog_line(raw)
        if line is None:
            self.others += 1
            return
        name = STRUCTURED.match(line.message)
        handler = _STRUCTURED.get(name[1]) if name else None
        if name and handler:
            said = pairs(line.message[name.end() :])
            request_id = said.get("requestID") or said.get("request_id")
            if request_id:
                handler(self, self._request(request_id, number, raw), line, said)
                return
        if not (self._outcome(line) or self._ended(line, number, raw) or self.decisions.take(line)):
            self._ticker(line)
            self.others += 1

    def _request(self, request_id: str, number: int, raw: str) -> GatewayRequest:
        return self.waiting.setdefault(request_id, GatewayRequest(request_id, number, raw))

    def arrived(self, request: GatewayRequest, line: KlogLine, said: dict[str, str]) -> None:
        """Note when the gateway first saw a request."""
        request.arrived_us = line.at_us

    def started(self, request: GatewayRequest, line: KlogLine, said: dict[str, str]) -> None:
        """Note the strategy and, where the line comes after the routing, its choice."""
        strategy = said.get("routing-strategy") or said.get("routing_strategy") or said.get("routingAlgorithm")
        took_ms = duration_ms(said.get("routing_time_taken") or said.get("routingDuration") or "") or 0.0
        request.started_us = line.at_us - round(took_ms * 1e3)
        request.arrived_us = request.started_us if request.arrived_us is None else request.arrived_us
        request.fields[s.POLICY] = strategy
        request.fields[s.INSTANCE] = _pod(said)

    def routed(self, request: GatewayRequest, line: KlogLine, said: dict[str, str]) -> None:
        """Note what the router knew of each pod: shares of the prompt in percent, and requests in flight."""
        if said.get("target_pod") and said.get("target_pod_ip"):
            self.decisions.pod_names[said["target_pod_ip"].rsplit(":", 1)[0]] = said["target_pod"]
        counts, matched = mapping(said.get("pod_request_count", "")), mapping(said.get("matched_pods", ""))
        if not counts:
            return
        # Of the pods that are not in the map no block matched; without a map the line does not say.
        hits = {} if matched is None else {pod: matched.get(pod, 0.0) / 100 for pod in counts}
        request.decision = Decision(
            [{s.INSTANCE: pod, s.HIT_RATIO: hits.get(pod), s.INFLIGHT_REQUESTS: n} for pod, n in counts.items()]
        )

    def first_token(self, request: GatewayRequest, line: KlogLine, said: dict[str, str]) -> None:
        """Note the TTFT."""
        request.first_us, request.fields[s.TTFT_MS] = line.at_us, _whole(said.get("ttft_ms"))

    def completed(self, request: GatewayRequest, line: KlogLine, said: dict[str, str]) -> None:
        """Note the token counts, and the latencies that a line before gave for the same pod and counts."""
        request.fields[s.INSTANCE] = _pod(said) or request.fields.get(s.INSTANCE)
        prompt, output = _whole(said.get("promptTokens")), _whole(said.get("completionTokens"))
        request.fields |= {s.PROMPT_TOKENS: prompt, s.OUTPUT_TOKENS: output, s.STATUS: "ok"}
        if prompt is not None and output is not None:
            self._latencies(request, (said.get("targetPod", ""), prompt, output))
        self._finish(request, line)

    def ended(self, request: GatewayRequest, line: KlogLine, said: dict[str, str]) -> None:
        """Note what the structured log says of the end."""
        self.structured = True
        counts = {s.PROMPT_TOKENS: "prompt_tokens", s.OUTPUT_TOKENS: "completion_tokens"}
        request.fields |= {name: _whole(said.get(key)) for name, key in counts.items()}
        request.fields[s.INSTANCE] = request.fields.get(s.INSTANCE) or _pod(said)
        request.fields[s.E2E_MS] = duration_ms(said.get("total_time_taken", ""))
        request.fields[s.TTFT_MS] = duration_ms(said.get("ttft", ""))
        request.fields[s.STATUS] = "ok"
        self._finish(request, line)

    def failed(self, request: GatewayRequest, line: KlogLine, said: dict[str, str]) -> None:
        """Note that a request ended with an error."""
        request.fields[s.STATUS] = "error"
        self._finish(request, line)

    def _finish(self, request: GatewayRequest, line: KlogLine) -> None:
        request.ended_us = line.at_us
        self.finished.append(self.waiting.pop(request.request_id))

    def resolve(self) -> None:
        """Give the finished requests the decisions that must be theirs, and their pods the names that are known."""
        places = [place for place, request in enumerate(self.finished) if request.decision is None]
        found = self.decisions.of([self.finished[place].routing() for place in places])
        for row, decision in found.items():
            self.finished[places[row]].decision = decision
        for request in self.finished:
            pod = request.fields.get(s.INSTANCE)
            request.fields[s.INSTANCE] = self.decisions.pod_names.get(pod, pod) if pod else None

    def _outcome(self, line: KlogLine) -> bool:
        found = LATENCIES.match(line.message)
        if found:
            ttft, tpot, e2e, prompt, output = (int(number[:MOST_DIGITS]) for number in found.groups()[1:])
            self.outcomes.setdefault((found[1], prompt, output), []).append((ttft, tpot, e2e))
        return found is not None

    def _latencies(self, request: GatewayRequest, key: tuple[str, int, int]) -> None:
        """Take the oldest of the latencies that have the request's TTFT."""
        known = self.outcomes.pop(key, [])
        mine = next((each for each in known if each[0] == request.fields.get(s.TTFT_MS)), None)
        if mine is not None:
            known.remove(mine)
            request.fields |= dict(zip(s.OUTCOMES_LATENCIES, mine, strict=True))
        if known:
            self.outcomes[key] = known

    def _ended(self, line: KlogLine, number: int, raw: str) -> bool:
        found = ENDED.match(line.message)
        if found:
            request = self._request(found[1], number, raw)
            request.fields |= {s.STATUS: "ok", s.E2E_MS: duration_ms(found[3])}
            self._finish(request, line)
        return found is not None

    def _ticker(self, line: KlogLine) -> None:
        """Take year and zone from the one line that shows both."""
        found = TICKER.match(line.message)
        if found and self.year is None:
            try:
                zone = datetime.strptime(found[2], "%z").utcoffset()
            except ValueError:
                return
            self.year, self.zone_s = int(found[1]), zone.total_seconds() if zone else 0.0

    def unix_us(self, at_us: int) -> int:
        """Turn the log's own time into Unix time."""
        at = SOME_YEAR + timedelta(microseconds=at_us)
        month = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        moment = month.replace(year=self.year or SOME_YEAR.year) + (at - month)
        return (moment - EPOCH) // MICROSECOND - round(self.zone_s * 1e6)


def _pod(said: dict[str, str]) -> str | None:
    """Name the pod, by its name where the line has it, else by its address without the port."""
    address = said.get("target_pod_ip") or said.get("targetPodIP") or said.get("targetPod")
    return said.get("target_pod") or (address.rsplit(":", 1)[0] if address else None)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else None


_Handler = Callable[[GatewayLog, GatewayRequest, KlogLine, dict[str, str]], None]
_STRUCTURED: Final[dict[str, _Handler]] = {
    "Processing request": GatewayLog.arrived,
    "processing request": GatewayLog.arrived,
    "request start": GatewayLog.started,
    "request_start": GatewayLog.started,
    "First token received": GatewayLog.first_token,
    "Request completed": GatewayLog.completed,
    "request_end": GatewayLog.ended,
    "request end": GatewayLog.failed,
    "prefix_cache_matched_pods": GatewayLog.routed,
    "prefix_cache_skip_matched_pods": GatewayLog.routed,
    "prefix_cache_load_imbalanced": GatewayLog.routed,
    "prefix_cache_fallback_least_request_count": GatewayLog.routed,
}
