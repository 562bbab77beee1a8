"""What happens to instances during a replay: they fail, come back, join, leave, slow down."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lodestar.data.errors import ConfigError, unknown

__all__ = ["KINDS", "ON_FAILURE", "Event", "parse_event"]

#: In the order in which compiled code numbers them.
KINDS: Final = ("fail", "join", "leave", "slow")
ON_FAILURE: Final = ("retry", "lose")
_WRITTEN: Final = re.compile(r"(?P<kind>[a-z]+):(?P<instance>\d+)@(?P<at>[0-9.]+)(:(?P<factor>[0-9.]+))?")


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one instance.

    Attributes:
        at_s: seconds from the first arrival.
        kind: 'fail' (what it was doing is gone), 'join' (a new instance or one that comes back, with an empty cache),
            'leave' (it finishes what it has and gets nothing new), 'slow' (every step takes `factor` times as long).
        instance: its index in the cluster. An instance whose first event is 'join' is not there before.
        factor: of 'slow', over the instance's own speed; 1 ends it.
    """

    at_s: float
    kind: str
    instance: int
    factor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what can't happen."""
        if self.kind not in KINDS:
            raise unknown("event", self.kind, KINDS)
        if not self.at_s >= 0 or not self.factor > 0:
            raise ConfigError(f"event {self.kind} at {self.at_s} s, factor {self.factor}; expected both positive")

    def __str__(self) -> str:
        """Write it as the command line takes it."""
        return f"{self.kind}:{self.instance}@{self.at_s:g}" + (f":{self.factor:g}" if self.kind == "slow" else "")


def parse_event(text: str) -> Event:
    """Read an event as the command line writes it, KIND:INSTANCE@SECONDS[:FACTOR].

    >>> parse_event("slow:3@60:2.5")
    Event(at_s=60.0, kind='slow', instance=3, factor=2.5)
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"event {text!r}; expected KIND:INSTANCE@SECONDS[:FACTOR], such as fail:2@120 or slow:3@60:2")
    if (found["kind"] == "slow") != (found["factor"] is not None):
        raise ConfigError(f"event {text!r}; expected a :FACTOR for slow and for nothing else, such as slow:3@60:2")
    return Event(float(found["at"]), found["kind"], int(found["instance"]), float(found["factor"] or 1.0))
