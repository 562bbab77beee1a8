"""Another arm of the traffic, row by row: what it chose, believed and measured for each request of a log."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.arms import paired_rows
from lodestar.pipeline.replay.calibration.forced import known_choices

__all__ = ["MeasuredArm", "measured_arm"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class MeasuredArm(NamedTuple):
    """One row a request of the log that it is set beside; NaN where the arm has none or does not say.

    Attributes:
        dataset: its name.
        ttft_ms: measured.
        hit_ratio: that its router believed of the instance it chose.
        choices: where to send each request in its place; None where its instances are not as many.
        by_name: whether its instances were matched by name, not by their order.
    """

    dataset: str
    ttft_ms: Floats
    hit_ratio: Floats
    choices: Ints | None
    by_name: bool


def measured_arm(log: RequestLog, other: RequestLog, instances: int) -> MeasuredArm:
    """Lay out another arm in the rows of `log`, for a cluster of so many instances.

    Requests are the same by id and prompt tokens. A request that the arm lacks, or did not decide, goes where `log`
    sent it.
    """
    row, there = paired_rows(log, other)
    ttft_ms, hit_ratio = np.full(len(log), np.nan), np.full(len(log), np.nan)
    # A TTFT of 0 ms is one that was not taken.
    ttft_ms[row] = np.where(other.ttft_ms[there] > 0, other.ttft_ms[there], np.nan)
    decided = other.chosen[there] >= 0
    row, there = row[decided], there[decided]
    hit_ratio[row] = other.snapshot[s.HIT_RATIO][there, other.chosen[there]]
    by_name = set(other.instances) == set(log.instances)
    if {max(1, len(log.instances)), max(1, len(other.instances))} != {instances}:  # a log may leave its one unnamed
        return MeasuredArm(other.dataset, ttft_ms, hit_ratio, None, by_name)
    places = [log.instances.index(name) if by_name else j for j, name in enumerate(other.instances)]
    column = np.array(places, dtype=np.int64)
    choices = known_choices(log).copy()
    choices[row] = column[other.chosen[there]]
    return MeasuredArm(other.dataset, ttft_ms, hit_ratio, choices, by_name)
