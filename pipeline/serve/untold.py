"""Requests in flight where the gateway leaves them out: Lodestar's sends empty maps of them on ``/infer``.

It does send how many prompt tokens stand before their first token on each instance. Prompts are computed in the order
in which they were sent, so these are the tokens of the last requests that were sent there, which this server knows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s

__all__ = ["Untold"]

Floats = NDArray[np.float64]

_KEPT: Final = 512  # requests an instance
_MOST: Final = 4096  # instances
_PREFILL: Final = s.SNAPSHOT_FIELDS.index(s.INFLIGHT_PREFILL_REQUESTS)
_DECODE: Final = s.SNAPSHOT_FIELDS.index(s.INFLIGHT_DECODE_REQUESTS)
_INFLIGHT: Final = s.SNAPSHOT_FIELDS.index(s.INFLIGHT_REQUESTS)
_TOKENS: Final = s.SNAPSHOT_FIELDS.index(s.PREFILL_TOKENS)
_SHORT: Final = 0.5  # of a prompt: the gateway and its chat template count a little differently


class Untold:
    """The prompts that were sent to each instance, newest last.

    >>> sent, snapshot = Untold(), np.zeros((1, len(s.SNAPSHOT_FIELDS)))
    >>> for prompt_tokens in (900, 500, 700):
    ...     sent.sent("a", prompt_tokens)
    >>> snapshot[0, [_TOKENS, _INFLIGHT]] = 1200, 6  # the last two have no first token; six run or wait
    >>> sent.fill(["a"], snapshot)
    >>> snapshot[0, [_PREFILL, _DECODE, _INFLIGHT]].tolist()
    [2.0, 4.0, 6.0]
    """

    def __init__(self) -> None:
        self._sent: dict[str, deque[int]] = {}

    def sent(self, name: str, prompt_tokens: int) -> None:
        """Take down where a request went."""
        prompts = self._sent.get(name)
        if prompts is None:
            if len(self._sent) >= _MOST:
                self._sent.clear()
            prompts = self._sent[name] = deque(maxlen=_KEPT)
        prompts.append(prompt_tokens)

    def fill(self, names: Sequence[str], snapshot: Floats) -> None:
        """Set the requests in flight of each instance, in place; `inflight_requests` holds those that run or wait."""
        for row, name in zip(snapshot, names, strict=True):
            prefill = self._before_first_token(name, float(row[_TOKENS]))
            at_work = max(float(row[_INFLIGHT]), prefill)
            row[_PREFILL], row[_DECODE], row[_INFLIGHT] = prefill, at_work - prefill, at_work

    def _before_first_token(self, name: str, tokens: float) -> float:
        count = 0
        for prompt_tokens in reversed(self._sent.get(name, ())):
            if not tokens > _SHORT * prompt_tokens:
                break
            tokens -= prompt_tokens
            count += 1
        return float(count)
