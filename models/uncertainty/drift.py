"""Whether the errors of a model have changed: ADWIN, a window that forgets what no longer fits.

The window grows with every value, and is cut where the means of its older and its newer part differ by more than chance
allows (Bifet and Gavaldà 2007, "Learning from time-changing data with adaptive windowing"). Only sums are kept, of
buckets whose sizes are powers of two: memory and time grow with the logarithm of the window. Feed it log(latency /
prediction): on latencies themselves, whose tail is heavy, it is slow and raises false alarms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from lodestar.data.errors import DataError

__all__ = ["Adwin"]

DELTA: Final = 0.002  # chance of a false alarm at a check
BUCKETS_A_SIZE: Final = 5  # more are merged, two by two
CHECK_EVERY: Final = 32  # values
MIN_PART: Final = 5  # values on either side of a cut
MIN_WINDOW: Final = 10  # values before the first check


@dataclass(slots=True)
class Adwin:
    """The window's sums, and how many changes were found.

    Attributes:
        delta: how sure a change must be; smaller is slower and surer.
        sizes: values in each bucket, oldest first, never increasing.
        totals: sum of the values of each bucket.
        squares: sum of the squared distances from each bucket's own mean.
        values: that `update` has been given.
        changes: times that the window was cut; one change may cut it more than once, as more of the new law comes in.
    """

    delta: float = DELTA
    sizes: list[int] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)
    values: int = 0
    changes: int = 0

    @property
    def width(self) -> int:
        """Values in the window: those since the last change, or what it left of them."""
        return sum(self.sizes)

    @property
    def mean(self) -> float:
        """Mean of the window; 0 where it is empty."""
        return sum(self.totals) / max(self.width, 1)

    def update(self, value: float) -> bool:
        """Take in one value; say whether the window was cut, that is, whether the mean has changed.

        >>> errors, adwin = [0.1, -0.1] * 200 + [0.6, 0.4] * 100, Adwin()
        >>> [i for i, error in enumerate(errors) if adwin.update(error)][:1], adwin.width < 300
        ([447], True)
        """
        if not math.isfinite(value):
            raise DataError(f"error {value} cannot be watched for drift; expected a finite number. Leave it out")
        self.values += 1
        self._append(1, value, 0.0)
        self._merge()
        if self.values % CHECK_EVERY or self.width <= MIN_WINDOW:
            return False
        changed = False
        while self._cut():
            changed = True
        self.changes += changed
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON; ``Adwin(**values)`` goes on where this one is."""
        return {name: getattr(self, name) for name in self.__slots__}

    def _append(self, size: int, total: float, squares: float) -> None:
        self.sizes.append(size)
        self.totals.append(total)
        self.squares.append(squares)

    def _merge(self) -> None:
        """Merge the two oldest buckets of a size wherever there are too many of it, from the smallest size up."""
        size, first = 1, len(self.sizes) - BUCKETS_A_SIZE - 1
        while first >= 0 and self.sizes[first] == size:
            self._join(first)
            size, first = 2 * size, first - BUCKETS_A_SIZE

    def _join(self, first: int) -> None:
        size, (one, other) = self.sizes[first], self.totals[first : first + 2]
        apart = (one - other) ** 2 / (2 * size)
        self.squares[first] += self.squares.pop(first + 1) + apart
        self.totals[first] = one + self.totals.pop(first + 1)
        self.sizes[first] = size + self.sizes.pop(first + 1)

    def _cut(self) -> bool:
        """Drop the oldest bucket if some cut parts two different means; say whether it was dropped."""
        width, total = self.width, sum(self.totals)
        variance = self._variance(width, total)
        old, old_total = 0, 0.0
        for size, bucket in zip(self.sizes[:-1], self.totals[:-1], strict=True):
            old, old_total = old + size, old_total + bucket
            new = width - old
            if new < MIN_PART:
                return False
            if old < MIN_PART:
                continue
            difference = abs(old_total / old - (total - old_total) / new)
            if difference > self._bound(old, new, width, variance):
                del self.sizes[0], self.totals[0], self.squares[0]
                return True
        return False

    def _variance(self, width: int, total: float) -> float:
        mean = total / width
        between = sum(s * (t / s - mean) ** 2 for s, t in zip(self.sizes, self.totals, strict=True))
        return (sum(self.squares) + between) / width

    def _bound(self, old: int, new: int, width: int, variance: float) -> float:
        """Return the difference of means that chance does not exceed (equation 3.1 of the paper)."""
        log = math.log(2.0 * math.log(width) / self.delta)
        inverse = 1.0 / (old - MIN_PART + 1) + 1.0 / (new - MIN_PART + 1)
        return math.sqrt(2.0 * inverse * variance * log) + 2.0 / 3.0 * inverse * log
