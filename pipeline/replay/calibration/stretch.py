"""Which requests fit the engine: of the training part, all or the busiest stretch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import RequestLog, Workload

__all__ = ["MOST_REQUESTS", "TRAINING_SHARE", "Stretch", "stretch_of", "training_part"]

#: The first part of the requests fits the engine; the rest judges it.
TRAINING_SHARE: Final = 0.7
#: More requests take longer and say little more.
MOST_REQUESTS: Final = 8_000
#: Of a stretch that begins amid the traffic: its engines start idle, which the real ones were not.
_WARM_UP: Final = 0.1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive requests of a log.

    Attributes:
        first: the first to be replayed.
        counted: the first whose latencies count.
        end: the one after the last.
        note: which they are, in words; empty where they are the whole training part.
    """

    first: int
    counted: int
    end: int
    note: str = ""

    def of(self, workload: Workload) -> Workload:
        """Return these requests alone.

        >>> stretch = Stretch(1, 1, 3)
        >>> three = Workload(np.arange(3.0), np.full(3, 40), np.ones(3, int), np.arange(3), np.arange(4), 16)
        >>> cut = stretch.of(three)
        >>> cut.arrived_at_s.tolist(), cut.block_ids.tolist(), cut.block_offsets.tolist()
        ([0.0, 1.0], [1, 2], [0, 1, 2])
        """
        head = workload.head(self.end)
        if self.first == 0:
            return head
        skipped = int(head.block_offsets[self.first])
        of_requests: dict[str, Any] = {
            entry.name: value[self.first :]
            for entry in fields(head)
            if isinstance(value := getattr(head, entry.name), np.ndarray) and len(value) == self.end
        }
        of_requests["arrived_at_s"] = of_requests["arrived_at_s"] - of_requests["arrived_at_s"][0]
        blocks = {
            "block_ids": head.block_ids[skipped:],
            "block_offsets": head.block_offsets[self.first :] - skipped,
        }
        return replace(head, **{**of_requests, **blocks})


def training_part(log: RequestLog) -> NDArray[np.bool_]:
    """Say which requests may fit the engine."""
    return np.arange(len(log)) < TRAINING_SHARE * len(log)


def stretch_of(log: RequestLog, workload: Workload, most: int = MOST_REQUESTS) -> Stretch:
    """Choose what to fit to: the training part, or of a longer one the requests that came in the shortest time.

    A busy stretch tells most: what batching, queues and full caches cost.
    """
    end = int(training_part(log).sum())
    if end <= most:
        return Stretch(0, 0, end)
    took_s = workload.arrived_at_s[most - 1 : end] - workload.arrived_at_s[: end - most + 1]
    first = int(np.argmin(took_s))
    counted = first + int(_WARM_UP * most) if first else 0
    note = (
        f"fitted to requests {counted} to {first + most - 1} of the first {end}, the busiest stretch of so many; "
        f"{counted - first} before them warm the engines up"
    )
    return Stretch(first, counted, first + most, note)
