"""The requests of the AIBrix client in the logs of its gateways: who is who, and what was decided for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lodestar.data import schema as s
from lodestar.data.aibrix.common import GatewayLog, GatewayRequest
from lodestar.data.aibrix.decisions import Decision
from lodestar.data.aibrix.pairing import Pairing, Span, paired

__all__ = ["Joined", "join"]

MICROSECONDS: Final = 1e6
KNOWN_TEXTS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Joined:
    """What the gateways say of each client row.

    Attributes:
        of_line: line of the client → the gateway's request.
        unmatched: for each log, its requests that no client row is.
        offset_s: what must be added to the client's clock to give the gateway's; None where the logs do not tell.
        unix: the gateway's clock is Unix time.
        notes: how good the join is.
    """

    of_line: Mapping[int, GatewayRequest]
    unmatched: Sequence[Sequence[GatewayRequest]]
    offset_s: float | None
    unix: bool
    notes: tuple[str, ...]


def join(clients: Mapping[int, Span], logs: Sequence[GatewayLog]) -> Joined:
    """Find each client row's request by token counts and times, and by its text where the gateways log texts.

    Args:
        clients: line → what the client saw, its key the prompt and output tokens, its mark the id of the text.
        logs: of gateways whose clocks agree.
    """
    unix = all(log.year is not None for log in logs)
    complete = [(log, each) for log in logs for each in log.finished if _is_complete(each)]
    servers = [_span(log, each, unix) for log, each in complete]
    texts = {span.mark for span in servers if span.mark is not None}
    if len(texts & {span.mark for span in clients.values()}) < KNOWN_TEXTS * len(texts):
        servers = [span._replace(mark=None) for span in servers]
    found = paired(list(clients.values()), servers)
    lines = list(clients)
    of_line = {lines[client]: complete[server][1] for client, server in found.server_of.items()}
    _decide(of_line, clients, logs)
    taken = {id(each) for each in of_line.values()}
    unmatched = [[each for each in log.finished if id(each) not in taken] for log in logs]
    offset_s = found.offset_s[1] if found.offset_s else None
    return Joined(of_line, unmatched, offset_s, unix, _notes(found, len(clients), of_line))


def _is_complete(request: GatewayRequest) -> bool:
    return request.arrived_us is not None and request.ended_us is not None


def _span(log: GatewayLog, request: GatewayRequest, unix: bool) -> Span:
    def seconds(at_us: int | None) -> float | None:
        return None if at_us is None else (log.unix_us(at_us) if unix else at_us) / MICROSECONDS

    start_s, end_s = seconds(request.arrived_us) or 0.0, seconds(request.ended_us) or 0.0
    key = (request.fields.get(s.PROMPT_TOKENS), request.fields.get(s.OUTPUT_TOKENS))
    return Span(key, start_s, seconds(request.first_us), end_s, request.decision.text if request.decision else None)


def _decide(of_line: Mapping[int, GatewayRequest], clients: Mapping[int, Span], logs: Sequence[GatewayLog]) -> None:
    """Give the requests without a decision the one that was logged with their text and pod."""
    known: defaultdict[tuple[object, str | None], list[Decision]] = defaultdict(list)
    for log in logs:
        for each in log.decisions.closed:
            if each.text is not None and each.pod is not None:
                known[each.text, log.decisions.pod_names.get(each.pod, each.pod)].append(each)
    for line, request in of_line.items():
        if request.decision is None:
            meant = known.get((clients[line].mark, request.fields.get(s.INSTANCE)), [])
            # A request that was sent again has two; where both say the same, either will do.
            if meant and all(each.candidates == meant[0].candidates for each in meant):
                request.decision = meant[0]


def _notes(found: Pairing, clients: int, of_line: Mapping[int, GatewayRequest]) -> tuple[str, ...]:
    if found.offset_s is None:
        return (
            f"not joined to the gateway log: of {found.anchors} requests whose token counts are unique in both, one "
            f"clock offset fits {found.agreeing}; the others have no decision",
        )
    low, high = found.offset_s
    decided = sum(request.decision is not None for request in of_line.values())
    return (
        f"{len(of_line)} of {clients} requests joined to the gateway log, one to one: equal token counts, and "
        f"sent, first token and end in an order that one clock offset allows ({found.agreeing} of {found.anchors} "
        f"requests with token counts of their own agree on it); the others could be more than one and have no decision",
        f"arrivals are the client's times + {high:.6f} s; up to {1e3 * (high - low):.0f} ms less would fit as well",
        f"{decided} of the joined requests have their candidates",
    )
