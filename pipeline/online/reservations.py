"""What was decided and is not yet in the counters of the gateway, so that a burst does not go to one instance."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema

__all__ = ["HOLD_MS", "Reservations"]

Floats = NDArray[np.float64]

#: How long a gateway takes to count a request that it has sent: it counts once it has the answer. Held for longer, a
#: request counts twice.
HOLD_MS: Final = 20.0

_INFLIGHT: Final = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_PREFILL: Final = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_PREFILL_REQUESTS)
_TOKENS: Final = schema.SNAPSHOT_FIELDS.index(schema.PREFILL_TOKENS)


class Reservations:
    """Requests and prompt tokens that each instance is about to get.

    A request is held from its decision until its outcome is known or `hold_ms` have passed, whichever comes first: by
    then the gateway counts it itself.

    >>> held = Reservations(hold_ms=100.0)
    >>> held.add(0.0, "a", 1, 700.0)
    >>> snapshot = np.zeros((2, len(schema.SNAPSHOT_FIELDS)))
    >>> held.into(0.05, snapshot)
    >>> snapshot[1, _TOKENS].item(), len(held), held.into(0.2, snapshot), len(held)
    (700.0, 1, None, 0)
    """

    def __init__(self, hold_ms: float = HOLD_MS) -> None:
        self._hold_s = hold_ms / 1e3
        self._held: OrderedDict[str, tuple[float, int, float]] = OrderedDict()
        self._sums = np.zeros((0, 2))  # requests and prompt tokens of each instance

    def __len__(self) -> int:
        return len(self._held)

    def add(self, now_s: float, request_id: str, instance: int, prompt_tokens: float) -> None:
        """Hold a request; one of the same name that is held already is forgotten."""
        self.drop(request_id)
        if self._hold_s > 0.0:
            self._held[request_id] = (now_s, instance, prompt_tokens)
            if instance >= len(self._sums):
                self._sums = np.concatenate([self._sums, np.zeros((instance + 16 - len(self._sums), 2))])
            self._sums[instance] += (1.0, prompt_tokens)

    def drop(self, request_id: str) -> None:
        """Let go of a request whose outcome is known, if it is still held."""
        held = self._held.pop(request_id, None)
        if held is not None:
            self._sums[held[1]] -= (1.0, held[2])

    def into(self, now_s: float, snapshot: Floats) -> None:
        """Add what is held to a snapshot (instances, len(SNAPSHOT_FIELDS)), in place; a field not known stays so."""
        held = self._held
        while held:
            first = next(iter(held))
            if now_s - held[first][0] < self._hold_s:
                break
            self.drop(first)
        if held:
            sums = self._sums[: len(snapshot)]
            snapshot[: len(sums), _INFLIGHT] += sums[:, 0]
            snapshot[: len(sums), _PREFILL] += sums[:, 0]
            snapshot[: len(sums), _TOKENS] += sums[:, 1]

    def clear(self) -> None:
        """Let go of everything, as where instances get other numbers."""
        self._held.clear()
        self._sums[:] = 0.0
