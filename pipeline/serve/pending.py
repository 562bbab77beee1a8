"""Decisions that wait for their outcome: what was known when each was made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lodestar.models.online.brain import Brain

__all__ = ["Pending", "Waiting"]

Floats = NDArray[np.float64]

MOST: Final = 100_000


@dataclass(slots=True)
class Pending:
    """One decision.

    Attributes:
        request_id: of the request.
        session_id: None where none was named.
        decided_at_s: Unix time.
        prompt_tokens: 0 where not known.
        names: the candidates.
        kinds: the hardware of each.
        snapshot: that it was decided by, with what was reserved at the time, shape (len(names), len(SNAPSHOT_FIELDS)).
        told: the same with the gateway's own counts, for the log.
        score: cost of each, in ms; None where nothing was scored.
        probability: of each; None where the gateway chose, or will.
        predicted_ms: TTFT of each; None where nothing was scored.
        chosen: place of the choice in `names`; None where the gateway chose, or will.
        policy: that decided; None where the gateway did.
        version: of the model.
        brain: the model.
    """

    request_id: str
    session_id: str | None
    decided_at_s: float
    prompt_tokens: int
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    snapshot: Floats
    told: Floats
    score: Floats | None
    probability: Floats | None
    predicted_ms: Floats | None
    chosen: int | None
    policy: str | None
    version: str | None
    brain: Brain | None


class Waiting:
    """Decisions by request id, oldest first; bounded in number and in time."""

    def __init__(self, keep_s: float, most: int = MOST) -> None:
        self._keep_s, self._most = keep_s, most
        self._by_id: OrderedDict[str, Pending] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._by_id

    def add(self, pending: Pending) -> Pending | None:
        """Keep a decision; return the one that it replaces: the same request, asked for again."""
        before = self._by_id.pop(pending.request_id, None)
        self._by_id[pending.request_id] = pending
        return before

    def seen(self, request_id: str) -> Pending | None:
        """Return a decision; None where it is not known, or no longer."""
        return self._by_id.get(request_id)

    def take(self, request_id: str) -> Pending | None:
        """Give a decision away; None where it is not known, or no longer."""
        return self._by_id.pop(request_id, None)

    def overdue(self, now_s: float) -> Iterator[Pending]:
        """Give away what has waited too long, and the oldest of too many."""
        while self._by_id:
            oldest = next(iter(self._by_id.values()))
            if len(self._by_id) <= self._most and now_s - oldest.decided_at_s < self._keep_s:
                return
            del self._by_id[oldest.request_id]
            yield oldest

    def drain(self) -> Iterator[Pending]:
        """Give everything away."""
        while self._by_id:
            yield self._by_id.popitem(last=False)[1]
