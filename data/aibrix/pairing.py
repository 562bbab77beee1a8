"""Two logs of the same requests, without a common id and by clocks of their own: who is who."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["Pairing", "Span", "forced", "paired"]

FEWEST_ANCHORS: Final = 3
AGREEING_SHARE: Final = 0.99  # another run of the same workload comes to 0.98
ROUNDS: Final = 20
ROUNDED_S: Final = 5e-6  # logs count microseconds, and seconds since 1970 as a float are not much finer

Interval = tuple[float, float]


class Span(NamedTuple):
    """One side's view of a request, in seconds of its clock.

    Attributes:
        key: what both sides know exactly, such as the token counts.
        start_s: when it was sent, or came in.
        first_s: when its first token was seen, where that is known.
        end_s: when it was complete.
        mark: what must be equal where both sides know it.
    """

    key: Hashable
    start_s: float
    first_s: float | None
    end_s: float
    mark: Hashable | None = None


@dataclass(frozen=True, slots=True)
class Pairing:
    """Who is who, and how sure that is.

    Attributes:
        server_of: client row → server row, one to one; rows that could be more than one are left out.
        offset_s: least and greatest time that can be added to the client's clock to give the server's; None where the
            logs do not tell.
        anchors: requests whose key is unique on both sides, from which the offset follows.
        agreeing: of these, how many that offset fits.
    """

    server_of: dict[int, int]
    offset_s: Interval | None
    anchors: int
    agreeing: int


def paired(clients: Sequence[Span], servers: Sequence[Span]) -> Pairing:
    """Pair the rows that cannot be anyone else's.

    Two rows can be one request only if their keys and marks are equal and if, for a clock offset that fits all pairs,
    the server saw the request no earlier than the client sent it, and its first token and its end no later than the
    client did. A pair is made where that leaves a row one partner alone; that may settle others, and so on. A client
    row is taken to have a server row; a server row may have come from elsewhere, unless as many rows of both sides
    share its key. Nothing is chosen by nearness.

    >>> clients = [Span(n, float(n), None, n + 1.0) for n in range(4)]
    >>> servers = [Span(n, n + 100.2, None, n + 100.9) for n in range(4)]
    >>> found = paired(clients, servers)
    >>> sorted(found.server_of.items()), [round(bound, 1) for bound in found.offset_s]
    ([(0, 0), (1, 1), (2, 2), (3, 3)], [99.9, 100.2])
    """
    anchors = _anchors(clients, servers)
    offset, agreeing = _densest(anchors)
    if offset is None or agreeing < FEWEST_ANCHORS or agreeing < AGREEING_SHARE * len(anchors):
        return Pairing({}, None, len(anchors), agreeing)
    even = _even_keys(clients, servers)
    server_of: dict[int, int] = {}
    for _ in range(ROUNDS):
        before = offset, len(server_of)
        server_of |= forced(clients, servers, offset, server_of, even)
        for client, server in server_of.items():
            low, high = _offsets(clients[client], servers[server])
            offset = max(offset[0], low), min(offset[1], high)
        if offset[0] > offset[1]:
            return Pairing({}, None, len(anchors), agreeing)
        if before == (offset, len(server_of)):
            break
    return Pairing(server_of, offset, len(anchors), agreeing)


def _offsets(client: Span, server: Span) -> Interval:
    """Return the offsets by which these two can be one request: none where the first is greater."""
    low = server.end_s - client.end_s
    if client.first_s is not None and server.first_s is not None:
        low = max(low, server.first_s - client.first_s)
    return low - ROUNDED_S, server.start_s - client.start_s + ROUNDED_S


def _anchors(clients: Sequence[Span], servers: Sequence[Span]) -> list[Interval]:
    sides = [Counter(span.key for span in side) for side in (clients, servers)]
    alone = {key for key, count in sides[0].items() if count == 1 and sides[1][key] == 1}
    server_of = {span.key: span for span in servers if span.key in alone}
    return [_offsets(span, server_of[span.key]) for span in clients if span.key in alone]


def _densest(intervals: list[Interval]) -> tuple[Interval | None, int]:
    """Return where most of the intervals overlap, and how many do."""
    real = [(low, high) for low, high in intervals if low <= high]
    # At one point, starts come before ends, so that intervals that touch overlap.
    edges = sorted([(low, 0) for low, _ in real] + [(high, 1) for _, high in real])
    depth, best, start, found = 0, 0, 0.0, None
    for at, is_end in edges:
        if not is_end:
            depth, start = depth + 1, at
            continue
        if depth > best:
            best, found = depth, (start, at)
        depth -= 1
    return found, best


def forced(
    clients: Sequence[Span],
    servers: Sequence[Span],
    offset: Interval,
    known: Mapping[int, int] = MappingProxyType({}),
    even: Container[Hashable] = (),
) -> dict[int, int]:
    """Return the pairs that follow, beside those that are known: each of a row with one possible partner.

    A server row's only partner counts where its key is in `even`; a client row's counts always.

    >>> forced([Span("a", 0.0, None, 9.0)], [Span("a", 1.0, None, 2.0), Span("b", 1.0, None, 2.0)], (0.0, 0.0))
    {0: 0}
    """
    of_client, of_server = _possible(clients, servers, known, offset)
    found: dict[int, int] = {}
    loose = [(True, row) for row in of_client] + [(False, row) for row in of_server if servers[row].key in even]
    while loose:
        is_client, row = loose.pop()
        partners = (of_client if is_client else of_server).get(row, set())
        if len(partners) != 1:
            continue
        other = next(iter(partners))
        client, server = (row, other) if is_client else (other, row)
        found[client] = server
        for rival in of_client.pop(client) - {server}:
            of_server[rival].discard(client)
            loose += [(False, rival)] if servers[rival].key in even else []
        for rival in of_server.pop(server) - {client}:
            of_client[rival].discard(server)
            loose.append((True, rival))
    return found


def _possible(
    clients: Sequence[Span], servers: Sequence[Span], known: Mapping[int, int], offset: Interval
) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    taken = set(known.values())
    by_key: defaultdict[Hashable, list[tuple[float, int]]] = defaultdict(list)
    for row, span in enumerate(servers):
        if row not in taken:
            by_key[span.key].append((span.start_s, row))
    for rows in by_key.values():
        rows.sort()
    of_client: dict[int, set[int]] = {}
    of_server: defaultdict[int, set[int]] = defaultdict(set)
    for client, span in enumerate(clients):
        if client in known:
            continue
        rows = by_key.get(span.key, [])
        first = bisect_left(rows, (span.start_s + offset[0], -1))
        last = bisect_right(rows, (span.end_s + offset[1], len(servers)))
        of_client[client] = {row for _, row in rows[first:last] if _can_be(span, servers[row], offset)}
        for row in of_client[client]:
            of_server[row].add(client)
    return of_client, dict(of_server)


def _can_be(client: Span, server: Span, offset: Interval) -> bool:
    low, high = _offsets(client, server)
    marked = client.mark is not None and server.mark is not None
    return max(low, offset[0]) <= min(high, offset[1]) and not (marked and client.mark != server.mark)


def _even_keys(clients: Sequence[Span], servers: Sequence[Span]) -> set[Hashable]:
    counts = [Counter(span.key for span in side) for side in (clients, servers)]
    return {key for key, count in counts[0].items() if counts[1][key] == count}
