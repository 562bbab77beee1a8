"""Which requests count: all but the warm-up, the same for every policy and seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload

__all__ = ["WARMUP_RATIO", "Window", "window_of"]

#: A replay starts with idle engines and empty caches, which flatters policies that fill them badly. A warm-up found in
#: each outcome would differ by policy and select requests by their latency, so it is a share of the workload, small
#: enough that what it leaves is the log: five in a hundred requests are 120 of 2,500, several times what eight engines
#: have in flight.
WARMUP_RATIO: Final = 0.05


@dataclass(frozen=True, slots=True)
class Window:
    """The requests from `first` on; those before are replayed, but stand in no number."""

    first: int
    requests: int
    from_s: float
    warmup_ratio: float

    @property
    def rows(self) -> slice:
        """The requests that count, to index arrays of one value a request."""
        return slice(self.first, None)

    def to_dict(self) -> dict[str, Any]:
        """Return the window as the result of a replay shows it."""
        return {
            "warmup_ratio": self.warmup_ratio,
            "warmup_requests": self.first,
            "requests": self.requests,
            "from_s": self.from_s,
            "why": f"the first {self.first} requests ({self.warmup_ratio:.0%}) meet engines that were idle and caches "
            "that were empty; left out for every policy and seed alike",
        }


def window_of(workload: Workload, warmup_ratio: float = WARMUP_RATIO) -> Window:
    """Leave out the first requests of a workload, whatever any policy does with them."""
    if not 0 <= warmup_ratio < 1:
        raise ConfigError(f"--warmup-ratio is {warmup_ratio}; expected 0 or more, below 1. 0 leaves nothing out")
    first = math.floor(len(workload) * warmup_ratio)
    return Window(first, len(workload) - first, float(workload.arrived_at_s[first]), warmup_ratio)
