"""An interval that says what it is an interval of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from lodestar.data.errors import ConfigError

__all__ = ["ALONG_PATH", "OVER_TRAFFIC", "Interval", "check_level"]

#: What intervals claim that take every request as one: no more than the states that this log happened to meet.
ALONG_PATH: Final = "value along this logged path"

#: What intervals claim that take a block of consecutive requests as one: other arrivals, routing and luck, of requests
#: like these. What goes on through the whole log, such as its mean load, counts as given; prefix groups do not, where
#: the log tells them.
OVER_TRAFFIC: Final = "value over traffic like the logged one"


@dataclass(frozen=True, slots=True)
class Interval:
    """A value between two bounds, in the unit of the cost.

    Attributes:
        value: the estimate.
        lower: bound.
        upper: bound.
        level: how often it claims to hold, such as 0.95.
        estimand: of what.
        method: how it was made.
        se: standard error; None where the method has none.
    """

    value: float
    lower: float
    upper: float
    level: float
    estimand: str
    method: str
    se: float | None = None

    @property
    def width(self) -> float:
        """From the lower to the upper bound."""
        return self.upper - self.lower

    def holds(self, truth: float) -> bool:
        """Say whether the truth lies in it.

        >>> Interval(1.0, 0.5, 1.5, 0.95, ALONG_PATH, "by hand").holds(1.4)
        True
        """
        return self.lower <= truth <= self.upper

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def check_level(level: float) -> None:
    """Refuse what is no level of confidence."""
    if not 0 < level < 1:
        raise ConfigError(f"level {level} is not usable; expected one between 0 and 1, such as 0.95")
