"""A tree of requests, as agents make that start other agents: its requests one by one, and when they came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.moments import moment_ns

__all__ = ["Place", "places"]


class Place(NamedTuple):
    """A request, its path in the session, and when what its time counts from began; None where that is not known."""

    request: Any
    path: str
    began_ns: int | None
    nested: bool


def places(session: dict[str, Any]) -> Iterator[Place]:
    """Give the requests of a session in the order of the document, those of a sub-agent where it stands.

    >>> agent = {"t": 5.0, "requests": [{"t": 0.0}, {"t": 2.0}]}
    >>> [(place.path, place.began_ns) for place in places({"requests": [{"t": 0.0}, agent]})]
    [('request 1', 0), ('request 2.1', 5000000000), ('request 2.2', 5000000000)]
    """
    waiting: list[Place] = [Place(session, "", 0, False)]
    while waiting:
        place = waiting.pop()
        inner = place.request.get("requests") if isinstance(place.request, dict) else None
        if not isinstance(inner, list):
            yield place
            continue
        began_ns, nested = _began_ns(place, inner), bool(place.path)
        prefix = f"{place.path}." if place.path else "request "
        # Taken from the end, so that the first comes out first; a list of its own, so that depth costs no stack.
        waiting += [Place(each, f"{prefix}{i}", began_ns, nested) for i, each in reversed(list(enumerate(inner, 1)))]


def _began_ns(place: Place, inner: list[Any]) -> int | None:
    """Tell when what the times of these requests count from began: the session, or the sub-agent that holds them."""
    if not place.path:
        return 0
    started = _time_ns(place.request)
    if started is None or place.began_ns is None:
        return None
    times = [at for at in map(_time_ns, inner) if at is not None]
    return place.began_ns + (started if min(times, default=started) < started else 0)


def _time_ns(request: Any) -> int | None:
    try:
        return moment_ns(request, "t") if isinstance(request, dict) else None
    except Refused:
        return None
