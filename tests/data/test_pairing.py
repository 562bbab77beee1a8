from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from lodestar.data.aibrix.pairing import Span, forced, paired

OFFSET_S = 1000.0


def both(requests: list[tuple[int, float, float, float, float]]) -> tuple[list[Span], list[Span]]:
    """Two logs of the same requests: key, start, duration, and the delays of either way."""
    clients = [Span(key, start, None, start + there + took + back) for key, start, took, there, back in requests]
    servers = [
        Span(key, OFFSET_S + start + there, None, OFFSET_S + start + there + took)
        for key, start, took, there, _ in requests
    ]
    return clients, servers


REQUEST = st.tuples(st.integers(0, 6), st.floats(0, 100), st.floats(0.01, 5), st.floats(0, 3), st.floats(0, 3))


REQUESTS = st.lists(REQUEST, max_size=30, unique_by=lambda request: request[1])


@given(REQUESTS, st.randoms(use_true_random=False))
def test_no_pair_is_ever_wrong_whatever_the_delays(
    requests: list[tuple[int, float, float, float, float]], dice: Random
) -> None:
    clients, servers = both(requests)
    order = list(range(len(servers)))
    dice.shuffle(order)
    found = paired(clients, [servers[place] for place in order])
    assert all(order[server] == client for client, server in found.server_of.items())


def test_the_offset_lies_between_what_the_quickest_ways_allow() -> None:
    found = paired(*both([(n, float(n), 1.0, 0.1 + n / 100, 0.2 + n / 100) for n in range(5)]))
    assert found.offset_s is not None
    low, high = found.offset_s
    assert low <= OFFSET_S <= high
    assert round(high - low, 4) == 0.3


def test_two_that_could_be_each_other_are_not_paired() -> None:
    alone = [(n, float(n), 1.0, 0.1, 0.1) for n in range(1, 5)]
    found = paired(*both([*alone, (0, 10.0, 1.0, 0.5, 0.5), (0, 10.1, 1.0, 0.5, 0.5)]))
    assert sorted(found.server_of) == [0, 1, 2, 3]


def test_a_mark_tells_them_apart() -> None:
    clients, servers = both(
        [(n, float(n), 1.0, 0.1, 0.1) for n in range(5)] + [(9, 10.0, 1.0, 0.5, 0.5), (9, 10.1, 1.0, 0.5, 0.5)]
    )
    marks = [span._replace(mark=place) for place, span in enumerate(clients)]
    found = paired(marks, [span._replace(mark=place) for place, span in enumerate(servers)])
    assert found.server_of == {place: place for place in range(7)}


def test_logs_of_other_requests_are_not_joined() -> None:
    clients, _ = both([(n, float(n), 1.0, 0.1, 0.1) for n in range(8)])
    _, servers = both([(7 - n, float(n) ** 2, 1.0, 0.1, 0.1) for n in range(8)])
    found = paired(clients, servers)
    assert (found.server_of, found.offset_s) == ({}, None)
    assert found.agreeing < found.anchors


def test_a_server_row_of_someone_else_takes_no_client_row() -> None:
    clients, servers = both([(n, float(n), 1.0, 0.1, 0.1) for n in range(6)])
    strangers = [Span(5, OFFSET_S + 50.0, None, OFFSET_S + 51.0)]
    assert paired(clients, servers + strangers).server_of == {place: place for place in range(6)}


def test_a_known_pair_settles_the_one_that_is_left() -> None:
    twins = [Span("k", 0.0, None, 9.0)] * 2
    servers = [Span("k", 1.0, None, 2.0), Span("k", 1.0, None, 2.0)]
    assert forced(twins, servers, (0.0, 0.0)) == {}
    assert forced(twins, servers, (0.0, 0.0), known={0: 1}) == {1: 0}
