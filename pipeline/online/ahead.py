"""Uncached prompt tokens that stand before a new request on each instance, from what a gateway counts anyway.

Gateways count the prompts that have no first token yet whole, cached or not. Prompts are computed in the order in which
they were sent, so the last k that were sent there are the k that a gateway counts as waiting for their first token;
their uncached tokens are known from their decisions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema

__all__ = ["Ahead"]

Floats = NDArray[np.float64]

_HIT: Final = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_REQUESTS: Final = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_PREFILL_REQUESTS)
_TOKENS: Final = schema.SNAPSHOT_FIELDS.index(schema.PREFILL_TOKENS)
_KEPT: Final = 512  # requests an instance; more are never ahead at once


class Ahead:
    """The newest requests sent to each instance, with their uncached tokens, and since when each computes its first."""

    def __init__(self) -> None:
        """Begin with nothing sent."""
        self._sent: list[deque[tuple[float, float]]] = []
        self._total: list[int] = []
        self._head: list[int] = []
        self._since_s: list[float] = []
        self._looked_s = 0.0

    def sent(self, now_s: float, instance: int, uncached_tokens: float) -> None:
        """Take down a request."""
        self._make_room(instance + 1)
        self._sent[instance].append((now_s, uncached_tokens))
        self._total[instance] += 1

    def counted(self, now_s: float, snapshot: Floats, token_ms: Sequence[float] | None = None) -> Floats:
        """Return the snapshot (m, fields) with the uncached tokens still to compute in the place of whole prompts'.

        Where the gateway counts more requests than were sent from here, the others are taken from its own count, in
        proportion; a missing count stays missing.

        Args:
            now_s: the time.
            snapshot: as the gateway has it.
            token_ms: what a token takes on each instance, by which the first prompt in line has come on since it is
                the first; without, it counts whole.

        >>> ahead, snapshot = Ahead(), np.zeros((1, len(schema.SNAPSHOT_FIELDS)))
        >>> for uncached_tokens in (4000.0, 500.0, 200.0):
        ...     ahead.sent(0.0, 0, uncached_tokens)
        >>> snapshot[0, [_REQUESTS, _TOKENS]] = 2, 3000
        >>> round(ahead.counted(1.0, snapshot)[0, _TOKENS])
        700
        """
        out = snapshot.copy()
        self._make_room(len(snapshot))
        for j, waiting in enumerate(snapshot[:, _REQUESTS].tolist()):
            if waiting > 0.0:
                out[j, _TOKENS] = self._tokens(now_s, j, waiting, snapshot[j, _TOKENS], token_ms)
            else:
                self._head[j] = self._total[j]
        self._looked_s = now_s
        return out

    def _tokens(self, now_s: float, j: int, waiting: float, prompts: float, token_ms: Sequence[float] | None) -> float:
        sent = self._sent[j]
        known = min(int(waiting), len(sent))
        if known == 0:
            return prompts
        first_sent_s, first = sent[-known]
        tokens = sum(each for _, each in islice(reversed(sent), known))
        head = self._total[j] - known
        if head != self._head[j] or known == self._total[j]:  # it became the first between the last look and now
            idle = self._head[j] == head
            self._since_s[j] = first_sent_s if idle else max(first_sent_s, (self._looked_s + now_s) / 2.0)
            self._head[j] = head
        elif head == self._head[j] and self._since_s[j] < first_sent_s:
            self._since_s[j] = first_sent_s
        if token_ms is not None and token_ms[j] > 0.0:
            tokens -= min(1e3 * (now_s - self._since_s[j]) / token_ms[j], first)
        if known < waiting:  # others send there too
            tokens += prompts * (waiting - known) / waiting
        return tokens

    def _make_room(self, instances: int) -> None:
        while len(self._sent) < instances:
            self._sent.append(deque(maxlen=_KEPT))
            self._total.append(0)
            self._head.append(0)
            self._since_s.append(0.0)
